"""Rows of boxes on a page, read with the reference release."""

import numpy as np
import pytest
from pydantic import ValidationError

from hwr_export.errors import ImageError
from hwr_export.release import Release
from hwr_export.runners import reader_runner
from hwr_export.scanner.grid import GridConfig, GridReader, Row
from hwr_export.scanner.page import CropReader
from tests.conftest import ROOT
from tests.scanner.devices import SMALL, page_of

ROWS = (
    Row(name="number", x=20, y=40, width=10, height=12, pitch=11, count=6),
    Row(name="nothing", x=20, y=60, width=10, height=12, count=3),
)


@pytest.fixture(scope="module")
def runner():
    release = Release.open(ROOT / "exported" / "digits")
    with reader_runner(release.read(release.onnx("fp32")), release.spec) as opened:
        yield opened


@pytest.fixture
def grid(runner) -> GridReader:
    return GridReader(GridConfig(kind="grid", rows=ROWS), runner)


def test_handwritten_numbers_are_read(grid: GridReader, digits) -> None:
    rng, right = np.random.default_rng(3), 0
    for _ in range(30):
        wanted = rng.integers(10, size=6)
        number, nothing = grid.read(page_of([digits[d][rng.integers(40)] for d in wanted], SMALL))
        right += number.value == "".join(map(str, wanted))
        assert (nothing.value, nothing.confidence, nothing.rejected) == (None, 0.0, False)
        assert number.confidence == min(c.confidence for c in number.characters)
    assert right >= 28


def test_one_page_is_one_batch(grid: GridReader, digits, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = grid._runner
    batches = []
    infer = runner._infer
    monkeypatch.setattr(runner, "_infer", lambda inputs: batches.append(len(inputs["image"])) or infer(inputs))
    grid.read(page_of([digits[d][0] for d in range(5)], SMALL))
    assert batches == [5]


def test_empty_boxes_are_spaces_between_and_nothing_around(grid: GridReader, digits) -> None:
    page = page_of([digits[d][0] for d in (1, 2, 3, 4)], SMALL)
    boxes = grid._fields["number"]
    for empty in (0, 2):
        x, y, width, height = boxes[empty]
        page[y : y + height, x : x + width] = 250
    number, _ = grid.read(page)
    assert number.value == "2 4"
    assert [c.label for c in number.characters] == [None, "2", None, "4", None, None]
    assert [c.box for c in number.characters] == boxes


def test_specks_and_grain_are_no_ink(grid: GridReader) -> None:
    rng = np.random.default_rng(5)
    page = np.clip(page_of([], SMALL) + rng.normal(0, 5, SMALL), 0, 255).astype(np.uint8)
    for x, y, _, _ in grid._fields["number"]:
        page[y + 40 : y + 44, x + 50 : x + 54] = 60
    assert [field.value for field in grid.read(page)] == [None, None]


def test_what_the_release_is_not_sure_of_is_rejected(grid: GridReader) -> None:
    page, rng = page_of([], SMALL), np.random.default_rng(1)
    for x, y, width, height in grid._fields["number"]:
        for _ in range(5):
            left, top = x + rng.integers(width - 30), y + rng.integers(height - 30)
            page[top : top + 4, left : left + 30] = 40
    number, _ = grid.read(page)
    reject_below = grid._runner.spec.reject_below
    assert [c.rejected for c in number.characters] == [c.confidence < reject_below for c in number.characters]
    assert number.rejected


def test_pixels_and_millimetres_agree(runner, digits) -> None:
    page = page_of([digits[7][0]] * 6, SMALL)
    scale, lengths = 300 / 25.4, {"x": 20, "y": 40, "width": 10, "height": 12, "pitch": 11}
    pixels = GridConfig(
        kind="grid",
        unit="px",
        inset=0.6 * scale,
        rows=(Row(name="number", **{k: v * scale for k, v in lengths.items()}, count=6),),
    )
    in_mm = GridReader(GridConfig(kind="grid", rows=ROWS[:1]), runner).read(page)
    assert GridReader(pixels, runner).read(page) == in_mm


def test_a_page_that_is_too_small_is_one_sentence(grid: GridReader) -> None:
    with pytest.raises(
        ImageError, match=r"beyond the page of 300 x 200 pixels; scan at the resolution that the grid's"
    ):
        grid.read(np.full((200, 300), 255, np.uint8))


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two rows are called 'number'"):
        GridConfig(kind="grid", rows=(ROWS[0], ROWS[0]))


def test_a_crop_is_one_character(runner, digits) -> None:
    (field,) = CropReader(runner).read(255 - np.kron(digits[4][0], np.ones((3, 3), np.uint8)))
    assert (field.name, field.value, field.rejected) == ("character", "4", False)
    (empty,) = CropReader(runner).read(np.full((50, 50), 255, np.uint8))
    assert (empty.value, empty.characters[0].label) == (None, None)
