"""What stands in a box -> whether it is struck out: blackened, scribbled over, or a dash in the place of a character."""

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM
from hwr_export.scanner.form.strokes import Flags, Strokes

Floats = npt.NDArray[np.float64]

_BROAD_MM = 2.2  # what is narrower cannot hide a character
_OVER_MM = 0.8  # by which a line through a character sticks out of its box


def struck_out(strokes: Strokes, boxes: Floats) -> Flags:
    """Return of each box whether what stands in it is struck out, (N,).

    Args:
        boxes: float64 (N, 4), left, top, right, bottom in the strip.
    """
    found = strokes.struck.copy()
    for i in np.flatnonzero(strokes.area > 0).tolist():
        left, top, right, bottom = strokes.boxes[i].tolist()
        mine = strokes.owner[top:bottom, left:right] == i + 1
        found[i] |= _scribble(mine) or _dash(mine, (left, top), boxes[i])
    return found


def _scribble(mine: Flags) -> bool:
    """Return whether there is far more ink than a character takes.

    The length of all strokes is half their outline, and that is counted where lines and columns cross it (Crofton).
    """
    height, width = mine.shape
    if min(height, width) < _BROAD_MM * PX_PER_MM:
        return False
    density = float(mine.mean())
    if density < 0.4:
        return False
    crossings = int((mine[1:] != mine[:-1]).sum()) + int((mine[:, 1:] != mine[:, :-1]).sum())
    length = np.pi / 8 * crossings / max(height, width)
    return bool(density > 0.85 or density * length > 3.5)


def _dash(mine: Flags, corner: tuple[int, int], box: Floats) -> bool:
    """Return whether it is a dash, or a line through a character that sticks out on both sides of its box."""
    left, top, right, bottom = box.tolist()
    height, width = mine.shape
    middle = corner[1] + height / 2
    if height < 0.22 * width and width > 0.45 * (right - left):
        return bool(abs(middle - (top + bottom) / 2) < 0.3 * (bottom - top))
    over = _OVER_MM * PX_PER_MM
    if corner[0] > left - over or corner[0] + width < right + over:
        return False
    first, last = round(top + 0.25 * (bottom - top)) - corner[1], round(bottom - 0.25 * (bottom - top)) - corner[1]
    rows = mine[max(0, first) : max(0, last)]
    if len(rows) < 3:
        return False
    near = rows[1:-1] | rows[:-2] | rows[2:]
    return bool((near.mean(axis=1) > 0.95).any())
