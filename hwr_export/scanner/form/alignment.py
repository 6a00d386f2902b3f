"""A page and about where its sheet lies -> the homography that fits every piece of print that can be found.

Pieces are looked for where what is known already tells well enough where they lie; what they say then tells of more.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.blocks import block_centres, find_blocks
from hwr_export.scanner.form.fit import ASTRAY, Fit, fit
from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.measured import measure
from hwr_export.scanner.form.pieces import Pieces
from hwr_export.scanner.form.plausible import project
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MOST_ROUNDS = 8
SURE = 3.0  # standard deviations
REACH_SHARE = 0.4  # of a piece's reach, within which it is to lie, surely
BLOCKS_MM = 2.4  # how far off blocks may be: less than half of what is from box to box
LEAST_BLOCK_ROWS = 4
GUESSED_ASTRAY = 0.004  # by which lengths and angles of a guess are wrong


@dataclass(frozen=True)
class Alignment:
    """The homography that pieces give, and how sure it is."""

    homography: Floats  # (3, 3), mm -> px
    fitted: Fit

    def doubt_px(self, points_mm: Floats) -> Floats:
        """Return the standard deviation of where points lie: float64 (N, 2), mm -> float64 (N,), px."""
        return self.fitted.doubt_px(project(self.homography, points_mm))


def align(page: Grey, homography: Floats, pieces: Pieces, rounds: int = 3) -> Alignment | None:
    """Return the homography that fits the pieces, from one that is about right; None where they do not give one.

    Args:
        page: uint8 (H, W).
        homography: float64 (3, 3), mm -> px; a piece further off than its reach is not found.
    """
    aligned = None
    for _ in range(rounds):
        fitted = fit(measure(page, homography, pieces), per_mm(homography))
        if fitted is None:
            return None
        homography = _moved(homography, fitted)
        aligned = Alignment(homography, fitted)
    return aligned


def grow(page: Grey, homography: Floats, layout: Layout, pieces: Pieces, sure: Flags) -> Alignment | None:
    """Return the homography that fits the pieces, from one that is about right for those that are `sure`.

    Args:
        homography: float64 (3, 3), mm -> px; with no piece sure, right to a millimetre or two.
        sure: bool (N,).
    """
    aligned = None
    for _ in range(MOST_ROUNDS):
        if sure.any():
            aligned = align(page, homography, pieces[sure], 2)
            if aligned is None:
                return None
            known = _known(aligned, pieces)
            if not (known & ~sure).any() and not sure.all():
                aligned = _by_blocks(page, aligned, layout, pieces[sure])
                known = _known(aligned, pieces) if aligned else known
        else:
            aligned = _by_blocks(page, homography, layout, None)
            known = _known(aligned, pieces) if aligned else sure
        if aligned is None or not (known & ~sure).any():
            return aligned
        homography, sure = aligned.homography, sure | known
    return aligned


def per_mm(homography: Floats) -> float:
    """Return about how many pixels a millimetre has."""
    return float(np.sqrt(abs(np.linalg.det(homography[:2, :2]))))


def _known(aligned: Alignment, pieces: Pieces) -> Flags:
    doubt = SURE * aligned.doubt_px(pieces.centres)
    return np.asarray(doubt < REACH_SHARE * pieces.reach * per_mm(aligned.homography))


def _by_blocks(page: Grey, start: "Alignment | Floats", layout: Layout, pieces: Pieces | None) -> Alignment | None:
    """Return the homography with the help of fields as blocks, and of pieces that are sure."""
    centres = block_centres(layout)
    if isinstance(start, Alignment):
        homography = start.homography
        reach = SURE * start.doubt_px(centres) / per_mm(homography)
        reach = np.where(reach > BLOCKS_MM, 0.0, np.maximum(reach, 0.5))
    else:
        homography, reach = start, np.full(len(centres), BLOCKS_MM)
    measured = find_blocks(page, homography, layout, reach)
    if pieces is not None:
        measured = measured + measure(page, homography, pieces)
    astray = ASTRAY if isinstance(start, Alignment) else GUESSED_ASTRAY
    fitted = fit(measured, per_mm(homography), LEAST_BLOCK_ROWS, astray)
    return None if fitted is None else Alignment(_moved(homography, fitted), fitted)


def _moved(homography: Floats, fitted: Fit) -> Floats:
    moved = fitted.motion @ homography
    return np.asarray(moved / moved[2, 2])
