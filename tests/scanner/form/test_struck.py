"""What is struck out is seen; what people write is hardly ever taken for it."""

import cv2
import numpy as np
import pytest

from tests.scanner.form.written import DIGITS, SCALE, Sheet, digit, form, row


def struck(sheet: Sheet, place: int = 0, **how: float) -> str:
    return "".join("S" if cell.struck else "." for cell in sheet.cells(place, **how).cells)


def zigzag(x: float, y: float, turns: int) -> list[tuple[float, float]]:
    return [(x + 4 * i / turns, y + (5.6 if i % 2 else 0.0)) for i in range(turns + 1)]


@pytest.mark.parametrize("slope", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("tint", [204, 30])
def test_a_line_through_several_boxes(slope: float, tint: int) -> None:
    sheet = Sheet(row(), tint).fill("274381").draw((26, 23.3 - slope / 2), (43.3, 23.3 + slope / 2), mm=0.4)
    assert struck(sheet) == ".SSS.."


def test_a_line_through_both_of_two_boxes() -> None:
    assert struck(Sheet(row(2)).fill("38").draw((19.5, 23.8), (31.5, 23.6))) == "SS"


def test_a_line_through_one_character_that_sticks_out_of_its_box() -> None:
    assert struck(Sheet(row(3)).fill(" 8 ").draw((24.8, 23.4), (32.2, 23.6), mm=0.4)) == ".S."


@pytest.mark.parametrize("turns", [9, 16])
def test_scribble(turns: int) -> None:
    sheet = Sheet(row()).fill("123456").draw(*zigzag(26.5, 20.7, turns), mm=0.55)
    assert struck(sheet) == ".S...."
    assert struck(sheet, fade=0.5, noise=5.0) == ".S...."


def test_a_box_that_is_blackened() -> None:
    sheet = Sheet(row()).fill("123456")
    sheet.paper[round(20.6 * SCALE) : round(26.4 * SCALE), round(26.6 * SCALE) : round(30.4 * SCALE)] = 0.2
    assert struck(sheet) == ".S...."


def test_a_dash_in_the_place_of_a_character() -> None:
    assert struck(Sheet(row(3)).draw((27, 23.4), (30, 23.6))) == ".S."


def test_bars_of_neighbours_that_meet_are_no_line() -> None:
    sheet = Sheet(row(4)).fill("4747").draw((30.6, 21.2), (32, 21.2), mm=0.4)
    assert struck(sheet) == "...."


def test_real_digits_are_not_struck_out() -> None:
    fields = [{"kind": "digits", "name": f"f{i}", "x": 12, "y": 8 + 11 * i, "boxes": 30} for i in range(20)]
    sheet = Sheet(form(*fields, width=205, height=235))
    images = iter(DIGITS.images[5000:])
    for place in sheet.layout.places:
        for box in place.boxes:
            sheet.write(next(images), box.x + 2.5, box.y + 3.5, height=5.2)
    grey, registration = sheet.scanned(degrees=0.4)
    from hwr_export.scanner.form.cells import find_cells

    found = [cell for cells in find_cells(grey, registration, sheet.layout) for cell in cells.cells]
    assert len(found) == 600
    assert sum(cell.struck for cell in found) == 0
    assert max(cell.blank for cell in found) < 0.01


def test_small_boxes_are_measured_by_their_size() -> None:
    layout = form(
        {"kind": "digits", "name": "n", "x": 20, "y": 20, "boxes": 6, "box": {"width": 3, "height": 4, "pitch": 3.6}}
    )
    sheet = Sheet(layout)
    for i, box in enumerate(layout.places[0].boxes):
        thick = cv2.dilate(digit(i), np.ones((2, 2), np.uint8))
        sheet.write(thick, box.x + 1.5, box.y + 2, height=3.2)
    assert struck(sheet) == "......"
