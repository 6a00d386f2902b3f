"""What stands in a box -> whether it is struck out: blackened, scribbled over, a dash in a character's place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM
from hwr_export.scanner.form.strokes import Flags, Strokes

Floats = npt.NDArray[np.float64]

_USUAL_BOX_MM = 4.5  # width of a box; in a smaller one, the same pen takes more room
_BROAD = 0.5  # of a box's sides; what is narrower hides no character
_FULL = 0.6  # share of a box that only blackening covers
_BUSY = 1.5  # that share, times the length of all strokes against the longer side
_OFTEN, _MUCH = 2.6, 0.5  # times what characters of the page cover, and share, that are too much together
_ORDINARY, _FEW = 0.22, 8  # what characters cover, and of how few that is not measured
_FLAT, _LONG = 0.35, 0.45  # of a dash: its height against its width, and its width against the box
_OVER_MM = 0.8  # by which a line through a character sticks out of its box


def struck_out(strokes: Strokes, boxes: Floats, usual: float) -> Flags:
    """Return of each box whether what stands in it is struck out, (N,).

    Args:
        boxes: float64 (N, 4), left, top, right, bottom in the strip.
        usual: share of a box that a character of the page covers, as `covered` has it.
    """
    found = strokes.struck.copy()
    shares = covered(strokes, boxes)
    for i in np.flatnonzero(strokes.area > 0).tolist():
        left, top, right, bottom = strokes.boxes[i].tolist()
        mine = strokes.owner[top:bottom, left:right] == i + 1
        found[i] |= _scribble(mine, boxes[i], float(shares[i]), usual) or (
            strokes.extent[i] > _LONG * (boxes[i, 2] - boxes[i, 0]) and _dash(mine, (left, top), boxes[i])
        )
    return found


def covered(strokes: Strokes, boxes: Floats) -> Floats:
    """Return what share of its box each character's ink would cover, float64 (N,)."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    return np.asarray(strokes.area / (width * height) / np.maximum(1, _USUAL_BOX_MM * PX_PER_MM / width))


def usual(shares: Sequence[Floats]) -> float:
    """Return what characters usually cover, by all of a page's fields; a pen's usual share where there are few."""
    written = np.concatenate([share[share > 0] for share in shares]) if shares else np.zeros(0)
    return float(np.median(written)) if len(written) >= _FEW else _ORDINARY


def _scribble(mine: Flags, box: Floats, share: float, usual: float) -> bool:
    """Return whether there is far more ink than a character takes.

    The length of all strokes is half their outline, and that is counted where lines and columns cross it (Crofton).
    """
    if share < _MUCH or (np.array(mine.shape) < _BROAD * (box[2:] - box[:2])[::-1]).any():
        return False
    if share > _FULL or share > max(_MUCH, _OFTEN * usual):
        return True
    crossings = int((mine[1:] != mine[:-1]).sum()) + int((mine[:, 1:] != mine[:, :-1]).sum())
    outline = crossings + int(mine[[0, -1]].sum()) + int(mine[:, [0, -1]].sum())
    return bool(share * np.pi / 8 * outline / max(mine.shape) > _BUSY)


def _dash(mine: Flags, corner: tuple[int, int], box: Floats) -> bool:
    """Return whether it is a dash, or a line through a character that sticks out on both sides of its box."""
    left, top, right, bottom = box.tolist()
    height, width = mine.shape
    middle = corner[1] + height / 2
    if height < _FLAT * width and width > _LONG * (right - left):
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
