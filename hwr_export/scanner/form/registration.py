"""A page, grey uint8 (H, W), and a form's layout -> where the sheet lies on it; whatever is not that sheet is refused.

Marks give about where it lies, their edges exactly where; printed lines help where marks are missing, and stand in for
them on forms that have none. Nothing is returned whose error is not bounded.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.alignment import Alignment, align, grow, per_mm
from hwr_export.scanner.form.layout import CORNERS, Layout
from hwr_export.scanner.form.marks import find_sheet
from hwr_export.scanner.form.measured import measure
from hwr_export.scanner.form.pieces import Pieces, is_box, line_pieces, mark_pieces
from hwr_export.scanner.form.plausible import dpi_of, implausible, outside, project
from hwr_export.scanner.form.refusal import PageRefused
from hwr_export.scanner.form.residual import lines_found, marks_there, off_of_fields, off_of_marks
from hwr_export.scanner.form.rivals import Rival, rivals
from hwr_export.scanner.form.search import ways
from hwr_export.scanner.form.strangers import not_this_form, of_few_marks
from hwr_export.scanner.form.unmarked import align_by_lines
from hwr_export.scanner.page import Grey

__all__ = ["PageRefused", "Registration", "register"]

Floats = npt.NDArray[np.float64]

LEAST_DPI, MOST_DPI = 95.0, 1260.0  # 100 and 1200, as scanners have them
MOST_SIDE = 32_000  # pixels; OpenCV looks nothing up in a larger image
OUTSIDE_MM = 0.5  # by which a box may lie outside of the image
WELL_MM = 0.05  # by which marks and fields may be off, before more is looked at
RESIDUAL_MM = 0.12  # by which they may be off in the end: 1.4 px at 300 dpi
BENT_MM = 0.25  # by which marks may be, where the fields are not
DOUBT_MM = 0.085  # by which a box may be, surely: 1 px at 300 dpi
SURE = 3.0  # standard deviations


@dataclass(frozen=True)
class Registration:
    """The sheet on the scan. Pixel centres are at whole coordinates, x to the right and y down."""

    homography: Floats  # float64 (3, 3): mm on the sheet -> pixels of the image
    residual_px: float  # worst distance of a reference point from where the homography puts it
    marks: int  # found; none on a form without
    dpi: float  # of the scan, by the homography

    def pixels(self, points_mm: Floats) -> Floats:
        """Return where points of the sheet lie on the image: float64 (N, 2), mm -> float64 (N, 2), pixels."""
        return project(self.homography, points_mm)


def register(page: Grey, layout: Layout) -> Registration:
    """Find a form's sheet on a page.

    Args:
        page: uint8 (H, W), dark on light; the sheet may lie any way up.

    Raises:
        PageRefused: it is not there, not whole, or lies so that it cannot be told exactly enough where.
    """
    page = np.ascontiguousarray(page)
    _check_size(page, layout)
    known = _prepared(layout)
    if known.edges is None:
        aligned = align_by_lines(page, layout, known.lines, known.mistakes)
        return _checked(page, layout, _look(page, layout, aligned, known.lines, frozenset()))
    read, start = find_sheet(page, layout)
    pieces, marks = known.edges + known.lines, frozenset(read)
    if len(marks) == 4 and (by_marks := align(page, start, known.edges)):
        found = _look(page, layout, by_marks, pieces, marks)
        if not found.astray and found.off_px < WELL_MM * per_mm(by_marks.homography):
            return _checked(page, layout, found)
    # Marks are missing, or the paper is not flat: then it is right where the fields are.
    grown = grow(page, start, layout, pieces, np.isin(pieces.corner, list(marks)))
    if grown is None:
        raise of_few_marks(marks)
    return _checked(page, layout, _look(page, layout, grown, pieces, marks))


@dataclass(frozen=True)
class _Prepared:
    """What is made of a layout once."""

    edges: Pieces | None
    lines: Pieces
    mistakes: tuple[Rival, ...]


@lru_cache(maxsize=8)
def _prepared(layout: Layout) -> _Prepared:
    lines = line_pieces(layout)
    if layout.marks:
        return _Prepared(mark_pieces(layout), lines, ())
    return _Prepared(None, lines, rivals(layout, lines[is_box(lines, layout)], ways(layout)))


@dataclass(frozen=True)
class _Found:
    """Where a sheet seems to lie, and what is seen of it there."""

    aligned: Alignment
    marks: frozenset[int]  # corners
    astray: frozenset[int]  # corners whose marks were read, elsewhere
    marks_off: tuple[float, str]  # the furthest one, px, and its name
    fields_off: tuple[float, str]
    fields_seen: int
    boxes_there: bool  # of every field, as far as can be told

    @property
    def off_px(self) -> float:
        return max(self.marks_off[0], self.fields_off[0])


def _look(page: Grey, layout: Layout, aligned: Alignment, pieces: Pieces, read: frozenset[int]) -> _Found:
    measured, scale = measure(page, aligned.homography, pieces), per_mm(aligned.homography)
    gains = aligned.fitted.gains
    marks, astray = marks_there(measured, pieces, gains, scale, read)
    fields_off, seen = off_of_fields(measured, pieces, layout)
    there = lines_found(measured, pieces, layout, scale).all_there
    return _Found(aligned, marks, astray, off_of_marks(measured, pieces, gains, marks), fields_off, seen, there)


def _checked(page: Grey, layout: Layout, found: _Found) -> Registration:
    """Return where the sheet lies, if it does."""
    homography = found.aligned.homography
    scale, dpi = per_mm(homography), dpi_of(homography, layout)
    corners = np.concatenate([place.area.corners for place in layout.places])
    doubt_mm = SURE * float(found.aligned.doubt_px(corners).max()) / scale
    sure = doubt_mm <= DOUBT_MM
    if (strange := implausible(homography, layout)) and sure:
        raise PageRefused("distorted", f"the sheet cannot lie on the page as it seems to: {strange}; scan it anew")
    if dpi < LEAST_DPI:
        raise _too_small("the sheet on the page is too small", dpi)
    if dpi > MOST_DPI:
        raise PageRefused("too-large", f"the sheet on the page has {dpi:.0f} dpi: scan it with 300 to 600 dpi")
    gone = [] if strange else outside(homography, layout, page.shape, OUTSIDE_MM if sure else OUTSIDE_MM + doubt_mm)
    if gone:
        more = f" and {len(gone) - 1} more" if gone[1:] else ""
        raise PageRefused(
            "cut-off", f"the page is cut off: the field {gone[0]!r}{more} lies beyond its edge; scan the whole sheet"
        )
    if layout.marks and (not sure or (len(found.marks) < 2 and not found.boxes_there)):
        raise of_few_marks(found.marks)  # one mark alone does not tell a form
    if not sure:
        raise not_this_form(layout, f"its lines tell where it lies to no more than {doubt_mm:.2f} mm")
    if found.astray and not found.boxes_there:
        names = " and ".join(CORNERS[corner] for corner in sorted(found.astray))
        raise PageRefused(
            "distorted",
            f"the sheet is torn, creased or distorted: the mark {names} is not where the others want it; scan it anew",
        )
    bent = BENT_MM if 2 * found.fields_seen >= len(layout.places) else RESIDUAL_MM
    for (off, what), most in ((found.fields_off, RESIDUAL_MM), (found.marks_off, bent)):
        if off > most * scale:
            raise PageRefused(
                "distorted",
                f"the sheet is bent, creased or distorted: {what} is {off / scale:.2f} mm from where it should be, "
                f"more than {most:g} mm; smooth it and scan it anew",
            )
    return Registration(homography, found.off_px, len(found.marks), dpi)


def _check_size(page: Grey, layout: Layout) -> None:
    height, width = page.shape
    dpi = 25.4 * max(height, width) / max(layout.width, layout.height)
    if dpi < LEAST_DPI / 2:
        raise _too_small(f"the page of {width} x {height} pixels is too small", dpi)
    if max(height, width) > MOST_SIDE:
        raise PageRefused(
            "too-large",
            f"the page of {width} x {height} pixels is too large, at most {MOST_SIDE:,} are read: scan it with 300 dpi",
        )


def _too_small(what: str, dpi: float) -> PageRefused:
    return PageRefused("too-small", f"{what}, about {dpi:.0f} dpi: scan it with 150 dpi at least, better 300")
