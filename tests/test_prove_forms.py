"""The proof of form reading counts what it says it counts; the reader here knows the truth and errs on purpose."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hwr_export.errors import FormError, UsageError
from hwr_export.glyph import normalize
from hwr_export.release import Release
from hwr_export.scanner.form.calibrate import load_results, load_truth, truth_of
from hwr_export.scanner.form.cells import Cell, FieldCells
from hwr_export.scanner.form.definition import Form, load_form
from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.registration import PageRefused, Registration
from hwr_export.scanner.form.results import FieldResult, PageResult
from hwr_export.scanner.page import Grey
from scripts.pages import judge as judging
from scripts.pages.hand import load_hands
from scripts.pages.page import Maker, Page
from scripts.pages.picture import picture
from tests.conftest import ROOT
from tests.test_docs import load_script
from tests.test_make_pages import SMALL, form

prove_forms = load_script("prove_forms")

PAGES, SEED, STRUCK, WRONG = 6, 3, 0.6, 4
RELEASES = [ROOT / "exported" / "digits"]
FORM = form(SMALL)
OFF_MM = 0.02


@cache
def made_pages() -> list[Page]:
    maker = Maker(FORM, load_hands("test", letters=True), SEED, struck=STRUCK)
    return [maker.make(number) for number in range(1, PAGES + 1)]


class Knowing:
    """Reads the pages in their order: refuses the third, gets one number wrong and refers all names."""

    def __init__(self) -> None:
        self.number = 0

    def read(self, page: Grey) -> PageResult:
        self.number += 1
        made = made_pages()[self.number - 1]
        assert np.array_equal(made.grey, page)
        if self.number == 3:
            return PageResult("refused", "no-marks: it shows no marks", None, 1.0)
        fields = []
        for field in FORM.fields:
            value = made.truth.get(field.name, "")
            reasons = ("doubtful",) if field.kind == "letters" else ()
            if field.name in made.scan["struck"]:
                reasons = ("struck-out",)
            if field.name == "number" and self.number == WRONG:
                value = "0000000"
            fields.append(FieldResult(field.name, value, 0.9, not reasons, reasons, (0, 0, 9, 9)))
        return PageResult("read", "", 0.3, 10.0 * self.number, tuple(fields))


@contextmanager
def knowing(form: Form, releases: Sequence[Release]) -> Iterator[Knowing]:
    assert form == FORM
    assert [release.path for release in releases] == RELEASES
    yield Knowing()


def slightly_off(page: Grey, layout: Layout) -> Registration:
    """Find a page's true place, 0.02 mm to the right: a number of pixels that depends on its size."""
    for made in made_pages():
        if np.array_equal(made.grey, page):
            moved = np.array(made.scan["homography"]) @ np.array([[1, 0, OFF_MM], [0, 1, 0], [0, 0, 1]])
            return Registration(moved, 0.1, 4, 300.0)
    raise PageRefused("no-marks", "never seen")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proof") / "results"
    hands = load_hands("test", letters=True)
    read = prove_forms.read_pages(
        out, FORM, hands, RELEASES, PAGES, SEED, struck=STRUCK, opens=knowing, registers=slightly_off
    )
    assert read == PAGES
    return out


def test_the_folder_is_one_that_calibrating_takes(results: Path) -> None:
    found, pages = load_results(results)
    assert found == load_form(results / "form.yaml") == FORM
    assert len(pages) == PAGES - 1
    truth = load_truth(results / "truth.json")
    assert len(truth) == PAGES
    assert len(truth_of(pages, truth)) == PAGES - 1


def test_what_was_accepted_and_wrong_is_counted(results: Path) -> None:
    document = prove_forms.judge_pages(results)
    truth = load_truth(results / "truth.json")
    written = [values.get("number") for values in truth.values() if values.get("number")]
    others = [v for values in truth.values() for name in ("sum", "line") if (v := values.get(name))]
    digits = document["families"]["digits"]
    assert digits["fields"] == len(written) + len(others)
    refused = sum(bool(truth["page-00003.png"].get(name)) for name in ("number", "sum", "line"))
    assert digits["accepted"] == digits["fields"] - refused
    assert (digits["wrong"], digits["wrong_pages"]) == (1, 1)
    assert digits["wrong_share"] == pytest.approx(1 / digits["accepted"], abs=1e-8)
    assert 1 / digits["accepted"] < digits["wrong_upper95"] <= 1
    assert document["families"]["letters"]["accepted"] == 0
    assert document["families"]["checkbox"]["accepted"] == document["families"]["checkbox"]["fields"] - 1
    assert document["refused"]["reasons"] == {"no-marks": 1}
    assert document["referred_for"]["letters"]["doubtful"] == document["families"]["letters"]["fields"] - (
        bool(truth["page-00003.png"].get("name"))
    ) + sum(values.get("name") == "" for page, values in truth.items() if page != "page-00003.png")
    struck = document["struck_out"]
    assert struck["accepted"] == 0
    assert struck["seen_as_struck_out"] == struck["on_pages_that_were_read"] > 0
    (mistake,) = document["mistakes"]
    assert mistake["read"] == "0000000"
    drawn = sum(a != "0" for a in mistake["truth"]) if len(mistake["truth"]) == 7 else 0
    assert sum(each["times"] for each in document["drawings"]["mistaken"]) == drawn
    assert all(each["read"] == "0" != each["is"] for each in document["drawings"]["mistaken"])
    assert 0 < document["drawings"]["different"] <= sum(len("".join(v.values())) for v in truth.values()) + 60
    assert sum(row["pages"] for row in document["by_strength"]) == PAGES
    assert sum(row["digits"]["wrong"] for row in document["by_strength"]) == 1
    assert document["seed"] == SEED
    assert [release["name"] for release in document["releases"]] == [Release.open(RELEASES[0]).manifest.name]


def test_registration_is_held_against_the_truth_at_300_dpi(results: Path) -> None:
    registration = prove_forms.judge_pages(results)["registration"]
    assert registration["pages"] == PAGES - 1
    # 0.02 mm at 300 dpi, by up to 3 % more or less where the page was stretched.
    assert registration["worst_px"] == pytest.approx(OFF_MM * 300 / 25.4, rel=0.04)
    assert registration["pages_over_1_px"] == registration["read_but_refused_when_asked_again"] == 0
    assert sum(registration["histogram_px"]) == PAGES - 1


def test_a_picture_is_drawn_of_it(results: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(prove_forms.main, ["judge", str(results), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["digits"]["wrong"] == 1
    assert (tmp_path / "forms.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "forms.json").read_bytes())["pages"] == PAGES


def test_unfinished_results_are_not_judged_and_go_on(results: Path, tmp_path: Path) -> None:
    hands = load_hands("test", letters=True)
    with pytest.raises(FormError, match="holds finished pages; name another folder"):
        prove_forms.read_pages(results, FORM, hands, RELEASES, PAGES, SEED, struck=STRUCK)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in results.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    run = json.loads((copy / "run.json").read_bytes())
    (copy / "run.json").write_text(json.dumps(run | {"finished": False}))
    with pytest.raises(UsageError, match="is not finished; repeat the command that fills it"):
        prove_forms.judge_pages(copy)
    read = prove_forms.read_pages(copy, FORM, hands, RELEASES, PAGES, SEED, struck=STRUCK)
    assert read == 0  # with a reader of its own, had there been pages left
    assert prove_forms.judge_pages(copy) == prove_forms.judge_pages(results)
    with pytest.raises(UsageError, match=r"is no folder that `prove_forms\.py read` has filled"):
        prove_forms.judge_pages(tmp_path)


def test_effects_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(800, 3))
    x[:, 2] = 0.5
    y = 0.1 + 0.2 * x[:, 0] + rng.normal(0, 0.05, 800)
    effect, error = judging._least_squares(x, y)
    assert effect == pytest.approx([0.2, 0, 0], abs=0.03)
    assert 0.002 < error[0] < 0.01
    assert error[2] == 0


def test_a_document_of_many_pages_is_drawn() -> None:
    rng = np.random.default_rng(1)
    kinds = (*judging.ALWAYS, *judging.SOMETIMES)
    records: list[dict[str, Any]] = [
        {
            "path": f"page-{i:05}.png",
            "status": "read",
            "reason": "",
            "registration_px": 0.2,
            "error_px": float(rng.uniform(0, 0.8)),
            "ms": 100.0 + i % 7,
            "truth": {"number": "12", "name": "AB", "sum": "", "line": "7", "tick": "yes"},
            "scan": {
                "strength": float(rng.uniform()),
                "dpi": int(rng.choice([150, 300])),
                "pen": {"width": "thin"},
                "struck": {},
                "distortions": {kind: {"strength": float(rng.uniform())} for kind in kinds},
                "sources": ["mnist test", "chars62 test"],
                "glyphs": {"number": [0, 5, 0, 10 + i], "name": [1, 5, 1, 6], "line": [0, 9]},
            },
            "fields": [
                {"name": name, "value": value, "accepted": bool(rng.random() < 0.9), "reasons": [], "confidence": 0.9}
                for name, value in (
                    ("number", "13" if i == 7 else "12"),
                    ("name", "AB"),
                    ("sum", ""),
                    ("line", "7"),
                    ("tick", "yes"),
                )
            ],
        }
        for i in range(200)
    ]
    records[7]["fields"][0]["accepted"] = True
    document = judging.judge(FORM, records)
    assert document["drawings"] == {
        "different": 200 + 4,
        "mistaken": [{"source": "mnist test", "number": 17, "is": "2", "read": "3", "times": 1}],
    }
    assert document["families"]["digits"]["fields"] == 400
    assert document["empty"]["fields"] == 200
    assert [row["pages"] for row in document["by_strength"]] == [20] * 10
    assert document["families"]["digits"]["wrong"] == 1
    dpi = records[7]["scan"]["dpi"]
    assert {d: c["digits"]["wrong"] for d, c in document["by_condition"]["dpi"].items()} == {
        "150": int(dpi == 150), "300": int(dpi == 300)
    }  # fmt: skip
    shown = [(np.zeros((28, 28), np.uint8), "2, read 3")]
    drawn = picture({**document, "form": {"id": "small"}, "handwriting": "test"}, shown)
    assert drawn.startswith(b"\x89PNG")


def cut_plainly(page: Grey, registration: Registration, layout: Layout) -> list[FieldCells]:
    """Cut boxes out with their lines as black as ink; of the first field, take the last box for an empty one."""
    found = []
    for place in layout.places:
        cells = []
        for rect in place.boxes:
            corners = registration.pixels(rect.grown(0.3).corners)
            (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
            box = page[int(top) : int(bottom), int(left) : int(right)]
            crop = normalize(np.where(box < 205, 0, 255).astype(np.uint8), 28, 28)
            cells.append(Cell(crop, 0.0 if crop is not None else 1.0, False, (0, 0, 1, 1)))
        if place.field.name == "number":
            cells[-1] = Cell(None, 1.0, False, (0, 0, 1, 1))
        found.append(FieldCells(tuple(cells), None, False, (0, 0, 1, 1)))
    return found


def test_what_boxes_cost_is_told_by_the_same_ink_without_them() -> None:
    hands = load_hands("test", letters=True)
    document = prove_forms.compare_boxes(FORM, hands, RELEASES, 8, SEED, strength=0.2, finds=cut_plainly)
    assert "letters" not in document  # no release here knows them
    digits = document["digits"]
    accuracy = digits["accuracy_percent"]
    # Lines that nobody removed are read with the ink; one character of a full field is missed in either.
    assert accuracy["printed"] < accuracy["bare"] < accuracy["glyph"]
    assert digits["boxes_cost_pt"] == pytest.approx(accuracy["bare"] - accuracy["printed"], abs=1e-3)
    low, high = digits["one_sided_bounds95_pt"]
    assert low < digits["boxes_cost_pt"] < high
    assert digits["at_most_0.2_pt"] == "FAIL"
    texts = [Maker(FORM, hands, SEED, 0.2).make(n).truth for n in range(1, 9)]
    assert digits["characters"] == sum(len(t["number"] + t["sum"].replace(".", "")) for t in texts)
