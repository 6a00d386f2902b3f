"""How likely a box is empty or ticked: plain where it is plain, in between where nobody could tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.scanner.form.pen import CERTAIN, blank_probability, pen_levels, tick_probability
from tests.scanner.form.written import SCALE, Sheet, digit, form, inked, row

AMOUNTS = st.floats(0, 40)
PARTS = st.floats(0, 1.5)


@given(AMOUNTS, PARTS, PARTS, st.floats(0.01, 2))
def test_more_ink_is_never_less_likely_written(area: float, extent: float, contrast: float, more: float) -> None:
    def blank(*of: float) -> float:
        return float(blank_probability(*(np.array([v]) for v in of))[0])

    assert CERTAIN * 0.999 <= blank(area, extent, contrast) <= 1 - CERTAIN * 0.999
    assert blank(area + more, extent, contrast) <= blank(area, extent, contrast) + 1e-12
    assert blank(area, extent + more, contrast) <= blank(area, extent, contrast) + 1e-12
    assert blank(area, extent, contrast + more) <= blank(area, extent, contrast) + 1e-12
    assert tick_probability(area + more, extent, contrast) >= tick_probability(area, extent, contrast) - 1e-12


def test_levels_are_those_of_the_pen() -> None:
    strokes = np.zeros((80, 200), np.uint8)
    strokes[20:24, 20:120] = 150
    empty = np.random.default_rng(0).integers(0, 6, (80, 200)).astype(np.uint8)
    levels, page = pen_levels([strokes, empty, empty], [2.0, 2.0, 2.0])
    assert page == pytest.approx(150, abs=2)
    assert levels == pytest.approx([150, 150, 150], abs=2)
    assert pen_levels([empty], [2.0])[1] > 100


@pytest.mark.parametrize(
    "how", [{}, {"fade": 0.4, "noise": 4.0}, {"fade": 0.25, "noise": 3.0}, {"degrees": 1.5}, {"blur": 1.5}]
)
def test_faded_pages_are_read_as_others(how: dict[str, float]) -> None:
    assert inked(Sheet(row()).fill("1 7 1 ").cells(**how)) == "X.X.X."


def test_dust_is_no_character() -> None:
    sheet = Sheet(row())
    rng = np.random.default_rng(3)
    for x in np.arange(20.5, 55, 2.0):
        y = rng.uniform(20.5, 26.5)
        sheet.draw((x, y), (x + 0.1, y), mm=rng.uniform(0.1, 0.3), ink=rng.uniform(0.2, 0.6))
    cells = sheet.cells().cells
    assert min(cell.blank for cell in cells) > 0.9
    assert not any(cell.struck for cell in cells)
    assert inked(sheet.fill("1 7 1 ").cells()) == "X.X.X."


def boxes_to_tick(count: int = 6) -> Sheet:
    fields = [{"kind": "checkbox", "name": f"c{i}", "x": 10 + 12 * i, "y": 20, "size": 5} for i in range(count)]
    return Sheet(form(*fields))


@pytest.mark.parametrize("how", [{}, {"fade": 0.4, "noise": 5.0}, {"degrees": 1.0}])
@pytest.mark.parametrize("tint", [204, 30])
def test_ticks_of_all_kinds(how: dict[str, float], tint: int) -> None:
    sheet = boxes_to_tick()
    sheet = Sheet(sheet.layout, tint)
    sheet.draw((11, 22.5), (12, 24), (16, 18.5))
    sheet.draw((22.5, 20.5), (26.5, 24.5)).draw((26.5, 20.5), (22.5, 24.5))
    sheet.paper[round(20.5 * SCALE) : round(24.5 * SCALE), round(34.5 * SCALE) : round(38.5 * SCALE)] = 0.2
    sheet.draw((46, 20), (51, 25))
    ticked = [sheet.cells(i, **how).ticked for i in range(6)]
    assert [t > 0.99 for t in ticked] == [True, True, True, True, False, False]
    assert max(ticked[4:]) < 0.01


def test_strokes_from_beside_do_not_tick_and_dots_are_doubtful() -> None:
    sheet = boxes_to_tick()
    sheet.draw((8, 22.5), (10.5, 22.6))  # ends in the box's line
    sheet.draw((20, 25.7), (30, 25.7))  # below it
    sheet.draw((36.4, 22.5), (36.7, 22.6), mm=0.55)
    ticked = [sheet.cells(i).ticked for i in range(3)]
    assert max(ticked[:2]) < 0.01
    assert 0.01 < ticked[2] < 0.9


def test_a_checkbox_has_one_cell_without_an_image() -> None:
    cells = boxes_to_tick().draw((11, 21), (14, 24)).cells(0)
    (cell,) = cells.cells
    assert cell.image is None
    assert cell.blank == pytest.approx(1 - cells.ticked)
    assert cell.box_px == cells.box_px


def test_a_digit_is_no_tick_of_the_next_field() -> None:
    layout = form(
        {"kind": "digits", "name": "a", "x": 20, "y": 20, "boxes": 2},
        {"kind": "checkbox", "name": "b", "x": 32.5, "y": 21, "size": 5},
    )
    assert Sheet(layout).write(digit(3), 30, 23.5).cells(1).ticked < 0.01
