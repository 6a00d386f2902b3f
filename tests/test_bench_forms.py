"""The measurements of reading forms: what they count, and that they see what they should."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hwr_export.scanner.form.definition import load_form
from scripts.pages.hand import load_hands
from scripts.pages.page import Maker
from scripts.pages.timed import time_pages
from tests.conftest import ROOT
from tests.test_docs import load_script

bench_forms = load_script("bench_forms")

METER = ROOT / "docs" / "examples" / "meter-reading.yaml"
DIGITS = ROOT / "exported" / "digits"


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [("", "", 0), ("123", "", 3), ("123", "123", 0), ("123", "133", 1), ("123", "23", 1), ("12", "312", 1)],
)
def test_edits_are_counted(a: str, b: str, count: int) -> None:
    assert bench_forms.edits(a, b) == bench_forms.edits(b, a) == count


def test_characters_and_fields_are_counted_apart() -> None:
    rows = [bench_forms.Row("123", []), bench_forms.Row("4", []), bench_forms.Row("56", [])]
    found = bench_forms.accuracy(rows, ["123", "7777", "5"], 0.6, 2)
    assert found["characters_right_percent"] == pytest.approx(100 * 4 / 6, abs=0.001)
    assert found["fields_right_percent"] == pytest.approx(100 / 3, abs=0.001)
    assert (found["ms_a_character"], found["ms_a_page"]) == (100.0, 300.0)


def test_both_readers_get_the_same_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Tesseract that answers 1 to every image: its share of right characters is that of ones."""
    given: list[tuple[str, int, tuple[int, ...]]] = []

    def answers_one(images: list[np.ndarray], mode: str, folder: Path) -> tuple[list[str], float]:
        given.append((mode, len(images), images[0].shape))
        return ["1"] * len(images), 0.5

    monkeypatch.setattr(bench_forms, "tesseract", answers_one)
    monkeypatch.setattr(bench_forms, "_tesseract", lambda: "tesseract")
    monkeypatch.setattr(bench_forms, "_tesseract_version", lambda: "5")
    done = CliRunner().invoke(bench_forms.main, ["tesseract", "--pages", "1", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "form-tesseract.json").read_bytes())
    singles = next(n for mode, n, _ in given[1:] if mode == bench_forms.BOX[0])
    assert singles == found["characters"] > 40
    boxes, line, ours = found["readers"].values()
    assert 0 < boxes["characters_right_percent"] < 30
    assert line["fields_right_percent"] < 10
    assert ours["characters_right_percent"] > 97


def test_every_page_is_timed_from_its_bytes(tmp_path: Path) -> None:
    maker = Maker(load_form(METER), load_hands("validation", letters=False), 1, plain=True)
    for number in (1, 2, 3):
        page = maker.make(number)
        Image.fromarray(page.grey).save((tmp_path / page.name).with_suffix(".jpg"))
    found = time_pages(tmp_path, METER, [DIGITS])
    assert (found["pages"], found["read"]) == (3, 3)
    assert 0 < found["decoding_ms"]["p50"] < found["ms"]["p50"] <= found["ms"]["p95"] <= found["ms"]["max"]
