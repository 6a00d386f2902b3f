"""Printed boxes go, whatever they are printed in, and what is written over them stays."""

import numpy as np
import pytest

from hwr_export.scanner.form.boxlines import without_lines
from hwr_export.scanner.form.strips import PX_PER_MM, cut_strip
from tests.scanner.form.written import Sheet, row


def ink_of(sheet: Sheet, **how: float) -> np.ndarray:
    """Return the ink of the first field's strip, whose boxes begin 2 mm from its edges."""
    grey, registration = sheet.scanned(**how)
    place = sheet.layout.places[0]
    strip = cut_strip(grey, registration, place.area.grown(2.0))
    rects = np.array([(r.x, r.y, r.right, r.bottom) for r in place.boxes])
    return without_lines(strip, strip.boxes(rects))


@pytest.mark.parametrize(
    ("tint", "line_mm"), [(215, 0.25), (204, 0.3), (190, 0.4), (30, 0.3)], ids=["light", "ours", "dark", "black"]
)
@pytest.mark.parametrize("how", [{}, {"degrees": 1.0}, {"fade": 0.4, "noise": 5.0}, {"blur": 1.4}])
def test_an_empty_row_has_no_ink(tint: int, line_mm: float, how: dict[str, float]) -> None:
    ink = ink_of(Sheet(row(), tint, line_mm), **how)
    assert np.percentile(ink, 99.5) < 45 * how.get("fade", 1.0) + 3 * how.get("noise", 3.0)


@pytest.mark.parametrize("tint", [204, 30])
def test_a_stroke_across_a_line_stays_whole(tint: int) -> None:
    # Slanting, over the line between the first box and the gap behind it.
    ink = ink_of(Sheet(row(), tint).draw((23, 22), (27, 25.5)))
    columns = np.arange(round(5.4 * PX_PER_MM), round(8.6 * PX_PER_MM))
    strokes = np.array([ink[:, c].max() for c in columns])
    assert strokes.min() > 100


def test_a_stroke_along_a_line_is_not_taken_for_it() -> None:
    ink = ink_of(Sheet(row()).draw((21, 27), (24, 27), mm=0.6))
    along = ink[round(8.8 * PX_PER_MM) : round(9.3 * PX_PER_MM), round(3.5 * PX_PER_MM) : round(5.5 * PX_PER_MM)]
    assert along.max(axis=0).min() > 120


def test_points_and_hints_in_the_tint_are_paper() -> None:
    sheet = Sheet(row()).draw((25.45, 26.4), (25.55, 26.4), mm=1.0, ink=0.8).draw((22, 28), (23, 28), ink=0.8)
    assert np.percentile(ink_of(sheet), 99.8) < 30


def test_what_is_written_beside_the_boxes_is_not_a_hint() -> None:
    ink = ink_of(Sheet(row()).draw((22, 26), (22, 28.5), ink=0.5))
    assert ink[round(10 * PX_PER_MM), round(4 * PX_PER_MM) - 3 : round(4 * PX_PER_MM) + 3].max() > 90
