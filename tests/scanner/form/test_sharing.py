"""Whose ink is whose: what crosses lines stays with its character, what cannot be told is said to be doubtful."""

import numpy as np
import pytest

from tests.scanner.form.written import Sheet, alike, digit, form, inked, row


def middle(sheet: Sheet, box: int) -> tuple[float, float]:
    rect = sheet.layout.places[0].boxes[box]
    return rect.x + rect.width / 2, rect.y + rect.height / 2


@pytest.mark.parametrize("tint", [204, 30])
@pytest.mark.parametrize(("dx", "dy"), [(1.6, 0), (-1.6, 0), (0, 2.2), (0, -2.2)], ids=["right", "left", "down", "up"])
def test_a_character_over_the_line_is_whole(dx: float, dy: float, tint: int) -> None:
    x, y = middle(Sheet(row()), 2)
    cells = Sheet(row(), tint).write(digit(3), x + dx, y + dy).cells()
    clean = Sheet(row()).write(digit(3), x, y).cells().cells[2].image
    assert inked(cells) == "..X..."
    assert not cells.stray
    assert alike(cells.cells[2].image, clean) < (13 if tint == 204 else 20)


def test_a_character_that_reaches_into_the_next_leaves_it_alone() -> None:
    x, y = middle(Sheet(row()), 2)
    cells = Sheet(row()).write(digit(1), x + 6.4, y).write(digit(2), x + 1.9, y, height=5.5).cells()
    clean = Sheet(row()).write(digit(1), x, y).cells().cells[2].image
    assert inked(cells) == "..XX.."
    assert alike(cells.cells[3].image, clean) < 6


def test_characters_that_touch_are_cut_between_their_boxes() -> None:
    sheet = Sheet(row()).fill(" 00   ").draw((30.5, 23.5), (33, 23.5), mm=0.4)
    cells = sheet.cells()
    clean = Sheet(row()).fill(" 00   ").cells()
    assert inked(cells) == ".XX..."
    assert not cells.stray
    assert alike(cells.cells[1].image, clean.cells[1].image) < 16


def test_what_joins_boxes_broadly_is_doubtful() -> None:
    sheet = Sheet(row()).fill(" 00   ").draw((30, 23.5), (33, 23.5), mm=2.5)
    assert sheet.cells().stray


def test_a_character_at_the_edge_of_an_empty_box_is_doubtful() -> None:
    x, y = middle(Sheet(row()), 2)
    assert Sheet(row()).write(digit(0), x - 0.4, y).draw((34.6, 21.5), (34.6, 25.5), mm=0.5).cells().stray is False
    touching = Sheet(row()).write(digit(0, 1), x + 1.2, y, height=5.5).draw((38.4, 21), (38.2, 26), mm=0.6)
    assert touching.cells().stray


def test_ink_between_rows_is_stray_and_specks_are_not() -> None:
    layout = row()
    assert not Sheet(layout).fill("12").draw((23, 18.9), (23.2, 18.9), mm=0.25).cells().stray
    assert Sheet(layout).fill("  3").draw((22, 18.9), (24, 18.9), mm=0.5).cells().stray


def test_a_dot_over_a_box_belongs_to_what_is_written_in_it() -> None:
    sheet = Sheet(row()).draw((22.5, 21), (22.5, 26)).draw((22.5, 19.6), (22.6, 19.6), mm=0.6)
    image = sheet.cells().cells[0].image
    assert image is not None
    rows = np.flatnonzero(image.max(axis=1) > 100)
    assert (np.diff(rows) > 1).sum() == 1


def test_ink_of_the_field_beside_is_its_own() -> None:
    layout = form(
        {"kind": "digits", "name": "a", "x": 20, "y": 20, "boxes": 3},
        {"kind": "digits", "name": "b", "x": 38.5, "y": 20, "boxes": 3},
    )
    sheet = Sheet(layout).write(digit(2), 40, 23.5)
    assert inked(sheet.cells(0)) == "..."
    assert inked(sheet.cells(1)) == "X.."
    assert not sheet.cells(0).stray


def test_print_above_the_boxes_is_not_theirs() -> None:
    sheet = Sheet(row()).draw((20, 18), (30, 18), mm=0.8, ink=0.0)
    cells = sheet.cells()
    assert inked(cells) == "......"
    assert not cells.stray


def test_boxes_are_given_in_the_image_that_was_scanned() -> None:
    cells = Sheet(row()).cells(degrees=2.0)
    grey, registration = Sheet(row()).scanned(degrees=2.0)
    for cell, rect in zip(cells.cells, row().places[0].boxes, strict=True):
        x, y, width, height = cell.box_px
        corners = registration.pixels(rect.corners)
        assert (corners >= (x, y)).all()
        assert (corners <= (x + width, y + height)).all()
        assert width < 5.6 * 12
        assert x + width <= grey.shape[1]
