"""One long box: characters by their gaps, fragments with their characters, no guess about joined-up writing."""

import numpy as np
import pytest

from tests.scanner.form.written import Sheet, alike, digit, form


def line(**changes: object) -> Sheet:
    return Sheet(form({"kind": "digits", "name": "number", "x": 10, "y": 20, "line": 70.0} | changes))


def written(text: str, apart: float = 4.6, sheet: Sheet | None = None) -> Sheet:
    sheet = sheet or line()
    for i, character in enumerate(text):
        sheet.write(digit(int(character), i), 13 + apart * i, 23.5, height=4.6)
    return sheet


@pytest.mark.parametrize("text", ["", "7", "20261128", "0123456789"])
def test_characters_come_from_left_to_right(text: str) -> None:
    cells = written(text).cells()
    assert len(cells.cells) == len(text)
    assert not cells.stray
    for i, cell in enumerate(cells.cells):
        clean = written(text[i]).cells().cells[0].image if i == 0 else None
        assert cell.blank < 0.01
        assert clean is None or alike(cell.image, clean) < 4
    lefts = [cell.box_px[0] for cell in cells.cells]
    assert lefts == sorted(lefts)


def test_boxes_lie_around_the_characters() -> None:
    (cell,) = written("8").cells().cells
    x, y, width, height = cell.box_px
    assert x + width / 2 == pytest.approx(13 * 12, abs=6)
    assert y + height / 2 == pytest.approx(23.5 * 12, abs=6)
    assert height == pytest.approx(4.6 * 12, abs=9)


def test_characters_that_touch_at_a_point_are_cut() -> None:
    cells = written("00", apart=5.6).draw((14, 23.5), (17.5, 23.5), mm=0.4).cells()
    assert len(cells.cells) == 2
    assert not cells.stray


def test_joined_up_writing_is_doubtful() -> None:
    wave = [(13 + t / 2, 23.5 + 2 * np.sin(t)) for t in np.linspace(0, 40, 200)]
    assert line().draw(*wave, mm=1.6).cells().stray


def test_a_fragment_belongs_to_the_character_beside_it() -> None:
    sheet = written("17").draw((20.2, 25.4), (20.2, 26), mm=0.4)
    assert len(sheet.cells().cells) == 2
    assert not sheet.cells().stray


def test_a_dash_far_from_all_is_stray() -> None:
    cells = written("17").draw((30, 23.5), (31, 23.5), mm=0.5).cells()
    assert len(cells.cells) == 2
    assert cells.stray


def test_ink_beside_the_line_is_stray() -> None:
    assert written("17").draw((30, 18.9), (34, 18.9)).cells().stray
