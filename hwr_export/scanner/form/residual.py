"""What is seen of a sheet against a homography -> which marks are there, and how far marks and fields are off, px.

A corner of a mark is off by what the two edges that meet there are; a field, by what its boxes' lines are.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import CORNERS, Layout
from hwr_export.scanner.form.measured import Measured
from hwr_export.scanner.form.pieces import PLACES, Pieces, is_box
from hwr_export.statistics import median

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LEAST_INNER = 8  # edges inside a mark, by which it is known though it was not read
INNER_SHARE = 0.75  # of them, that are there
READ_SHARE = 0.4  # of those of a mark that was read
THERE_MM = 0.17
ON_LINE_MM = 0.1  # within which a line is where it should be
LEAST_SHARE = 0.5  # of all lines, that are found there
LEAST_OF_PLACE = 0.2  # of a field's lines
BY_CHANCE = 0.01  # probability that a field of few lines shows none of them, below which it is not there
LEAST_OF_SIDE = 4  # edges of a mark's side
LEAST_OF_LINES = 3  # lines of a field's boxes, to each of its sides


def marks_there(
    measured: Measured, pieces: Pieces, gains: Floats, per_mm: float, read: frozenset[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Return the corners in which the pattern of the form's mark is seen, or the part of it that is on the page.

    Args:
        read: corners whose marks were read, about there.

    Returns:
        Those, and the corners whose marks were read but are not where they should be.
    """
    near = max(1.0, THERE_MM * per_mm)
    found, astray = set[int](), set[int]()
    for corner in range(4):
        own = (pieces.group == -1 - corner) & measured.inside
        there = measured.seen & (np.abs(measured.offsets - gains[corner]) < near)
        share = float(there[own].mean()) if own.any() else 0.0
        if share > READ_SHARE if corner in read else share > INNER_SHARE and own.sum() >= LEAST_INNER:
            found.add(corner)
        elif corner in read:
            astray.add(corner)
    return frozenset(found), frozenset(astray)


def off_of_marks(measured: Measured, pieces: Pieces, gains: Floats, corners: frozenset[int]) -> tuple[float, str]:
    """Return how far the corner of a mark is off that is furthest, and which mark's; 0.0 where none is seen."""
    worst, name = 0.0, ""
    for corner in corners:
        sides = [
            _median(measured, pieces.group == 4 * corner + side, LEAST_OF_SIDE, gains[corner]) for side in range(4)
        ]
        for i, side in enumerate(sides):
            following = sides[(i + 1) % 4]
            if side is not None and following is not None and math.hypot(side, following) > worst:
                worst, name = math.hypot(side, following), f"the {CORNERS[corner]} mark"
    return worst, name


def off_of_fields(measured: Measured, pieces: Pieces, layout: Layout) -> tuple[tuple[float, str], int]:
    """Return how far the field is off that is furthest, its name; and how many fields are seen."""
    worst, name, count = 0.0, "", 0
    for number, place in enumerate(layout.places):
        own = pieces.group == PLACES + number
        away = []
        for axis in (0, 1):
            # Offsets are outwards: what moves a field adds to one side and takes from the other.
            high, low = (
                _median(measured, own & (sign * pieces.normals[:, axis] > 0.5), LEAST_OF_LINES) for sign in (1, -1)
            )
            if high is not None and low is not None:
                away.append((high - low) / 2)
        if len(away) == 2:
            count += 1
            if math.hypot(*away) > worst:
                worst, name = (math.hypot(*away)), f"the field {place.field.name!r}"
    return (worst, name), count


@dataclass(frozen=True)
class LinesFound:
    """How well a layout's boxes fit what is seen."""

    share: float  # of their lines, that are where they should be
    missing: str  # a field of which there is hardly one

    @property
    def all_there(self) -> bool:
        return self.share >= LEAST_SHARE and not self.missing


def lines_found(measured: Measured, pieces: Pieces, layout: Layout, per_mm: float) -> LinesFound:
    """Return how many of the boxes' lines are there."""
    there = on_line(measured, per_mm)
    share, missing = float(there[is_box(pieces, layout)].mean()), ""
    for number, place in enumerate(layout.places):
        own = (pieces.group == PLACES + number) & measured.inside
        if (1 - share) ** own.sum() < BY_CHANCE and there[own].mean() < LEAST_OF_PLACE:
            missing = place.field.name
            break
    return LinesFound(share, missing)


def on_line(measured: Measured, per_mm: float) -> Flags:
    """Tell which lines are where they should be, bool (N,)."""
    return np.asarray(measured.seen & (np.abs(measured.offsets) < ON_LINE_MM * per_mm))


def _median(measured: Measured, which: Flags, least: int, gain: float = 0.0) -> float | None:
    seen = which & measured.seen
    return median(measured.offsets[seen]) - gain if seen.sum() >= least else None
