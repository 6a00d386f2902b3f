"""Pages to prove with: seeded, true to what they say of themselves, written by people no model has learnt from."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hwr_export.errors import DataError, FormError
from hwr_export.glyph import normalize
from hwr_export.release import Release
from hwr_export.runners.release import open_runner
from hwr_export.scanner.form import checks
from hwr_export.scanner.form.decode import decode, text_of, value_of
from hwr_export.scanner.form.definition import Form, load_form
from hwr_export.scanner.form.fields import CheckboxField
from hwr_export.scanner.form.layout import MARK_MODULES
from hwr_export.scanner.form.rules import keeps
from hwr_export.spec import PROBABILITIES
from scripts.pages import virtual_scan
from scripts.pages.hand import Hands, PageHand, load_hands
from scripts.pages.ink import Sheet
from scripts.pages.page import Maker, has_letters
from scripts.pages.text import draw_values
from tests.conftest import ROOT
from tests.test_docs import load_script
from train.data import split_training_data
from train.recipe import DataRecipe
from train.splits import contents

make_pages = load_script("make_pages")

SMALL: dict[str, Any] = {
    "id": "small",
    "page": {"width": 105, "height": 100},
    "fields": [
        {"kind": "digits", "name": "number", "x": 24, "y": 30, "boxes": 7, "required": True},
        {"kind": "letters", "name": "name", "x": 24, "y": 42, "boxes": 6},
        {"kind": "amount", "name": "sum", "x": 24, "y": 54, "boxes": 6},
        {"kind": "digits", "name": "line", "x": 24, "y": 66, "line": 60},
        {"kind": "checkbox", "name": "tick", "x": 78, "y": 54},
    ],
}
EVERY: dict[str, Any] = {
    "id": "every",
    "fields": [
        {"kind": "digits", "name": "digits", "x": 25, "y": 30, "boxes": 12, "characters": "0123"},
        {"kind": "letters", "name": "letters", "x": 25, "y": 42, "boxes": 9, "case": "any"},
        {"kind": "alphanumeric", "name": "mixed", "x": 25, "y": 54, "boxes": 7},
        {"kind": "date", "name": "from", "x": 25, "y": 66, "boxes": 8, "first": "2024-02-28", "last": "2024-03-02"},
        {"kind": "date", "name": "to", "x": 95, "y": 66, "boxes": 6, "order": "YYMMDD", "first": "2000-01-01"},
        {"kind": "amount", "name": "a", "x": 25, "y": 78, "boxes": 5},
        {"kind": "amount", "name": "b", "x": 95, "y": 78, "boxes": 5},
        {"kind": "amount", "name": "total", "x": 25, "y": 90, "boxes": 5, "required": True},
        {"kind": "amount", "name": "whole", "x": 95, "y": 90, "boxes": 4, "decimals": 0},
        {"kind": "phone", "name": "phone", "x": 25, "y": 102, "boxes": 11},
        {"kind": "iban", "name": "iban", "x": 25, "y": 114, "boxes": 22, "countries": ["DE", "NO"]},
        {"kind": "card", "name": "card", "x": 25, "y": 126, "boxes": 16},
        {"kind": "digits", "name": "line", "x": 25, "y": 250, "line": 60},
        {"kind": "checkbox", "name": "tick", "x": 110, "y": 250},
        *(
            {"kind": "id", "name": check, "check": check, "x": 25, "y": 138 + 12 * i, "boxes": 9}
            for i, check in enumerate(("luhn", "mod11", "mod11-10", "mod97-10", "gs1", "verhoeff", "damm"))
        ),
    ],
    "rules": [
        {"kind": "sum", "total": "total", "parts": ["a", "b"]},
        {"kind": "range", "field": "whole", "least": 20, "most": 4000},
        {"kind": "order", "earlier": "from", "later": "to"},
    ],
}
GEOMETRY = ("rotation", "scale", "shift", "perspective")


def form(document: dict[str, Any]) -> Form:
    for field in document["fields"]:
        if field["name"] == "to":
            field["last"] = "2049-12-31"
    return Form.model_validate(document)


@pytest.fixture(scope="module")
def hands() -> Hands:
    return load_hands("test", letters=True)


@pytest.fixture(scope="module")
def validation() -> Hands:
    return load_hands("validation", letters=True)


@pytest.fixture(scope="module")
def proof() -> Form:
    return load_form(ROOT / "docs" / "examples" / "proof.yaml")


def test_the_proof_has_20_fields_of_1_to_12_characters(proof: Form) -> None:
    written = [field for field in proof.fields if not isinstance(field, CheckboxField)]
    lengths = [field.boxes for field in written]
    assert len(written) == 20
    assert (min(lengths), max(lengths)) == (1, 12)
    assert sum(map(has_letters, written)) == 4
    assert 120 <= sum(lengths) <= 150


def test_values_are_valid_in_every_kind_of_field() -> None:
    every = form(EVERY)
    fields = {field.name: field for field in every.fields}
    empty = dict.fromkeys(fields, 0)
    texts: dict[str, set[str]] = {name: set() for name in fields}
    for seed in range(150):
        values = draw_values(every, np.random.default_rng(seed))
        assert list(values) == list(fields)
        assert all(keeps(rule, values) for rule in every.rules)
        for name, field in fields.items():
            texts[name].add(values[name])
            if isinstance(field, CheckboxField):
                assert values[name] in ("yes", "no")
                continue
            text = text_of(field, values[name])
            assert value_of(field, text) == values[name]
            assert set(text) <= set(field.alphabet)
            empty[name] += not text
            assert text or not field.required
            count = field.boxes or len(text)
            if seed < 25 and count:
                written = range(count - len(text), count) if field.kind == "amount" else range(len(text))
                seen, blanks = np.full((count, len(field.alphabet)), 1e-6), np.ones(count)
                for box, character in zip(written, text, strict=True):
                    seen[box, field.alphabet.index(character)], blanks[box] = 1.0, 0.0
                assert decode(field, seen, blanks)[0].value == values[name]
    assert texts["from"] - {""} == {"2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"}
    assert all(len(found) > 40 for name, found in texts.items() if name not in ("from", "tick"))
    assert empty["total"] == 0
    assert 0 < sum(empty.values()) < 0.15 * 150 * len(fields)
    assert checks.valid_iban(max(texts["iban"]))


def test_a_form_whose_rules_nothing_keeps_is_refused() -> None:
    narrow = EVERY | {"rules": [{"kind": "range", "field": "whole", "least": 99999}]}
    with pytest.raises(FormError, match=r"3,000 draws gave no values for whole that may stand there together; widen"):
        draw_values(form(narrow), np.random.default_rng(0))


def test_texts_use_the_digits_that_a_writer_has(hands: Hands, proof: Form) -> None:
    hand = PageHand(hands, np.random.default_rng(0))
    lacking = [w for w, own in hands.digits.by_writer.items() if len(set(hands.digits.characters[own])) == 9]
    hand.writer = lacking[0]
    missing = next(d for d in "0123456789" if not hand.has(d))
    values = draw_values(proof, np.random.default_rng(1), lambda field, text: has_letters(field) or hand.has(text))
    with_it = [n for n, value in values.items() if missing in value and n not in ("voucher", "article")]
    assert len(with_it) <= 4  # a phone number begins with 0, days have few digits to choose from


def test_a_page_depends_on_seed_and_number_alone(hands: Hands) -> None:
    small = form(SMALL)
    one, other = (Maker(small, hands, seed=4, struck=0.5) for _ in range(2))
    first = [one.make(number) for number in (1, 2, 3)]
    again = [other.make(number) for number in (3, 1, 2)]
    for page, same in zip(first, (again[1], again[2], again[0]), strict=True):
        assert page.png() == same.png()
        assert (page.truth, page.scan) == (same.truth, same.scan)
    assert len({page.scan["homography"][0][0] for page in first}) == 3
    assert Maker(small, hands, seed=5).make(1).truth != first[0].truth


def test_strengths_are_within_what_is_asked(hands: Hands) -> None:
    drawn = [virtual_scan.draw_strengths(np.random.default_rng(seed), 0.5) for seed in range(400)]
    pages = np.array([page for page, _ in drawn])
    for kind in virtual_scan.ALWAYS:
        own = np.array([each[kind] for _, each in drawn])
        assert 0 <= own.min() < 0.02
        assert 0.48 < own.max() <= 0.5
        assert 0.3 < np.corrcoef(own, pages)[0, 1] < 0.95
    shares = {kind: np.mean([each[kind] > 0 for _, each in drawn]) for kind in virtual_scan.SOMETIMES}
    assert all(abs(share - virtual_scan.SOMETIMES[kind]) < 0.08 for kind, share in shares.items())
    assert not any(virtual_scan.draw_strengths(np.random.default_rng(1), 0.0)[1].values())


@pytest.mark.parametrize(("dpi", "upside_down"), [(300, 0.0), (200, 1.0), (150, 0.0)])
def test_marks_are_where_the_homography_puts_them(hands: Hands, proof: Form, dpi: int, upside_down: float) -> None:
    maker = Maker(proof, hands, seed=0)
    strengths = dict.fromkeys(virtual_scan.KINDS, 0.0) | dict.fromkeys(GEOMETRY, 1.0) | {"upside-down": upside_down}
    scan = virtual_scan.draw_scan(np.random.default_rng(dpi), maker.layout, 1.0, strengths, dpi)
    grey = virtual_scan.scan_sheet(maker._blank(2 * dpi), maker.layout, scan, np.random.default_rng(0))
    off = [value for mark in maker.layout.marks for value in edges_off(grey, scan.homography, mark.rect.corners)]
    assert np.abs(off).max() < 0.05


def test_marks_of_a_plain_page_are_in_their_places(hands: Hands, proof: Form) -> None:
    maker = Maker(proof, hands, seed=0, plain=True)
    page = maker.make(1)
    assert page.grey.shape == (3508, 2480)
    off = [
        value
        for mark in maker.layout.marks
        for value in edges_off(page.grey, np.array(page.scan["homography"]), mark.rect.corners)
    ]
    assert np.abs(off).max() < 0.05


def edges_off(grey: np.ndarray, homography: np.ndarray, corners: np.ndarray) -> list[float]:
    """Return how far a mark's four outer edges lie outside of where they ought to be, in pixels."""
    found = []
    module = np.linalg.norm(corners[1] - corners[0]) / MARK_MODULES
    steps = np.linspace(-0.8, 0.8, 321) * module
    for start, end in pairwise([*corners, corners[0]]):
        along = (end - start) / np.linalg.norm(end - start)
        outwards = np.array([along[1], -along[0]])
        middle = start + np.linspace(0.2, 0.8, 60)[:, None] * (end - start)
        points = (middle[:, None] + steps[None, :, None] * outwards).reshape(-1, 2)
        at = np.c_[points, np.ones(len(points))] @ homography.T
        at = (at[:, :2] / at[:, 2:]).astype(np.float32).reshape(len(middle), len(steps), 2)
        profile = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR).astype(float).mean(axis=0)
        dark, light = profile[:40].mean(), profile[-40:].mean()
        # Blur is even, so that the edge is where as much is missing on one side as is too much on the other.
        black = ((light - profile) / (light - dark)).mean() * (steps[-1] - steps[0]) + steps[0]
        pixels_a_mm = np.linalg.norm(at[0, -1] - at[0, 0]) / (steps[-1] - steps[0])
        found.append(black * pixels_a_mm)
    return found


def test_one_writer_fills_a_page(hands: Hands, proof: Form) -> None:
    assert hands.digits.writers is not None
    maker = Maker(proof, hands, seed=2, plain=True)
    for number in (1, 2):
        scan = maker.make(number).scan
        numbers = [
            n
            for glyphs in scan["glyphs"].values()
            for source, n in zip(*[iter(glyphs)] * 2, strict=True)
            if source == 0
        ]
        assert scan["sources"] == ["mnist test", "chars62 test"]
        others = [n for n in numbers if hands.digits.writers[n] != scan["writer"]]
        assert len(others) == sum(scan["borrowed"].values())
        assert len(numbers) > 60


def test_no_glyph_is_one_that_models_learn_from(hands: Hands, validation: Hands) -> None:
    for name in ("mnist", "chars62"):
        split = split_training_data(DataRecipe(name=name), None)
        learnt_from = set(contents(split.data.images[split.train]))
        for part in (hands, validation):
            pool = part.digits if name == "mnist" else part.characters
            assert pool is not None
            assert pool.source == f"{name} {part.part}"
            assert learnt_from.isdisjoint(contents(pool.images))
        if name == "mnist":
            assert np.array_equal(validation.digits.images, split.data.images[split.validation])


def test_digits_are_read_as_what_the_truth_says(proof: Form, validation: Hands) -> None:
    maker = Maker(proof, validation, seed=3, plain=True, printed=False)
    crops, digits, originals = [], [], []
    for number in (1, 2, 3):
        page = maker.make(number)
        for place in maker.layout.places:
            field = place.field
            if field.name not in page.scan["glyphs"] or has_letters(field):
                continue
            text = text_of(field, page.truth[field.name])
            boxes = place.boxes[-len(text) :] if field.kind == "amount" else place.boxes[: len(text)]
            for box, digit, glyph in zip(boxes, text, page.scan["glyphs"][field.name][1::2], strict=True):
                left, top = (round(value * 300 / 25.4) for value in (box.x - 0.4, box.y - 0.4))
                crops.append(normalize(page.grey[top : top + 92, left : left + 68], 28, 28))
                digits.append(int(digit))
                originals.append(validation.digits.images[glyph])
    with open_runner(Release.open(ROOT / "exported" / "digits"), "onnxruntime", "fp32") as runner:
        read = runner.infer_all(np.stack(crops))[PROBABILITIES].argmax(axis=1)
        known = runner.infer_all(np.stack(originals))[PROBABILITIES].argmax(axis=1)
    assert (read == digits).mean() > (known == digits).mean() - 0.02


def test_ink_leaves_its_box_only_where_it_says_so(hands: Hands) -> None:
    small = form(SMALL)
    maker = Maker(small, hands, seed=1, plain=True, printed=False)
    for number in range(1, 7):
        grey = maker.make(number).grey.copy()
        for box in (box.grown(0.7) for place in maker.layout.places for box in place.boxes):
            left, top, right, bottom = (round(v * 300 / 25.4) for v in (box.x, box.y, box.right, box.bottom))
            grey[top:bottom, left:right] = 255
        assert grey.min() > 250
    maker = Maker(small, hands, seed=1)
    crossing = [maker.make(number).scan["distortions"].get("crossing") for number in range(1, 9)]
    assert 0 < sum(each is not None for each in crossing) < 8
    assert all(0 < each["mm"] == pytest.approx(1.5 * each["strength"], abs=1e-4) for each in crossing if each)


def test_what_is_struck_out_is_no_truth(hands: Hands) -> None:
    maker = Maker(form(SMALL), hands, seed=6, struck=1.0)
    page = maker.make(1)
    assert len(page.scan["struck"]) == 1
    assert set(page.truth) == {field["name"] for field in SMALL["fields"]} - set(page.scan["struck"])
    assert not Maker(form(SMALL), hands, seed=6).make(1).scan["struck"]


def test_a_torn_corner_takes_a_mark_and_no_field(hands: Hands, proof: Form) -> None:
    maker = Maker(proof, hands, seed=0)
    layout = maker.layout
    for seed in range(6):
        scan = virtual_scan.plain_scan(layout, 75)
        scan.drawn["lost-mark"] = {"strength": 1.0, "corner": "bottom left", "how": ("torn", "covered")[seed % 2]}
        sheet = Sheet(np.full((1188, 840), 255, np.uint8), (4.0, 4.0))
        for mark in layout.marks:
            x, y, right, bottom = (round(4 * v) for v in (mark.rect.x, mark.rect.y, mark.rect.right, mark.rect.bottom))
            sheet.grey[y:bottom, x:right] = 7
        sheet.grey[sheet.grey == 255] = 250
        virtual_scan.stain_sheet(sheet, layout, scan, np.random.default_rng(seed))
        left = (sheet.grey == 7).sum() / 1600
        assert 3 <= left <= 3.6, scan.drawn
        for place in layout.places:
            x, y = round(4 * place.area.x), round(4 * place.area.y)
            assert (sheet.grey[y : y + 28, x : x + 20] == 250).all()


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(make_pages.main, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_the_command_writes_pages_truth_and_scan_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(SMALL))
    arguments = ("--pages", 3, "--seed", 1, "--form", path, "--struck", 0.5)
    assert run(tmp_path / "one", *arguments, "--jobs", 1) == (0, f"made 3 pages in {tmp_path / 'one'}\n")
    assert run(tmp_path / "two", *arguments, "--jobs", 2)[0] == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert set(files) == {
        *(f"page-0000{i}.png" for i in range(1, 4)),
        *("form.yaml", "truth.json", "scan.json", "made.json"),
    }
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    truth, scan = (json.loads(files[name]) for name in ("truth.json", "scan.json"))
    assert list(truth) == list(scan) == sorted(name for name in files if name.endswith(".png"))
    assert load_form(tmp_path / "one" / "form.yaml") == form(SMALL)
    with Image.open(tmp_path / "one" / "page-00001.png") as image:
        assert image.mode == "L"
        assert list(image.size) == scan["page-00001.png"]["size"]
        assert image.info["dpi"][0] == pytest.approx(scan["page-00001.png"]["dpi"], abs=0.02)

    write_page, calls = make_pages.work.write_page, []

    def stops(number: int) -> dict[str, Any]:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_page(number)

    monkeypatch.setattr(make_pages.work, "write_page", stops)
    out = tmp_path / "three"
    assert run(out, *arguments, "--jobs", 1) == (130, f"Stopped; the same command goes on in {out}.\n")
    code, message = run(out, *arguments, "--strength", 0.5)
    assert (code, "another command (strength differ)" in message) == (2, True)
    with (out / "unfinished.jsonl").open("a") as file:
        file.write('{"number": 2, "name": "page-0')
    assert run(out, *arguments, "--jobs", 1) == (0, f"made 2 pages in {out}, 1 were there\n")
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    code, message = run(out, *arguments)
    assert (code, "holds finished pages; name another folder" in message) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    code, message = run(tmp_path / "full", *arguments)
    assert (code, "is not empty and holds no pages of this command" in message) == (2, True)


def test_without_letters_forms_of_digits_can_be_filled_and_no_others(
    tmp_path: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.pages import hand

    def missing(*_: object) -> None:
        raise DataError("chars62's test part was not found")

    monkeypatch.setattr(hand, "load_chars62", missing)
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(SMALL))
    code, message = run(tmp_path / "out", "--pages", 1, "--seed", 0, "--form", path)
    assert code == 2
    assert "the form has fields for letters, and those are written with chars62: chars62's test part was not" in message
    assert load_hands("test", letters=False).characters is None
    digits = form(SMALL | {"fields": [SMALL["fields"][0]]})
    assert Maker(digits, load_hands("test", letters=False), seed=0).make(1).truth["number"]
