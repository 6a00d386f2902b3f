"""The pieces of ink on one long box -> characters from left to right: pieces above one another are one character.

A piece wider than a character can be is cut where it is thin, and called doubtful where it is not: joined-up
handwriting is not read.
"""

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM
from hwr_export.scanner.form.strokes import NOBODY, Pieces, Strokes, strokes_of

Floats = npt.NDArray[np.float64]
MOST = 250  # characters on one line
_ABOVE = 0.5  # of the narrower piece's width, that lies above or below another piece of the same character
_WIDEST = 1.35  # of the line's height of writing, that one character may be wide
_THIN_MM = 1.1  # ink in a column, at which characters that touch are cut apart
_LEAST_HEIGHT = 0.4  # of the box's height, that writing has
_FRAGMENT = 0.45  # of the height of writing, that a character has
_BESIDE_MM = 1.0  # from a character to a fragment of it
_STRAY_MM2 = 0.5


def segment(pieces: Pieces, box: Floats, others: Floats) -> Strokes:
    """Return the characters on a line.

    Args:
        box: float64 (4,), the line's box: left, top, right, bottom in the strip.
        others: float64 (M, 4), boxes of other fields within the strip.
    """
    stray = False
    on_line = []
    for piece in np.flatnonzero(pieces.real).tolist():
        left, top, right, bottom = pieces.boxes[piece].tolist()
        x, y = (left + right) / 2, (top + bottom) / 2
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            on_line.append(piece)
        elif not _within(x, y, others) and not _at_border(pieces, piece):
            stray |= bool(pieces.area[piece] >= _STRAY_MM2 * PX_PER_MM**2)
    owner = np.zeros(pieces.labels.shape, dtype=np.uint8)
    if not on_line:
        return strokes_of(pieces, owner, 0, np.zeros(0, dtype=np.bool_), stray)
    groups = _grouped(pieces, on_line)
    heights = np.array([_extent(pieces, group)[3] - _extent(pieces, group)[1] for group in groups])
    height = max(float(np.percentile(heights, 75)), _LEAST_HEIGHT * float(box[3] - box[1]))
    groups, lone = _joined(pieces, groups, _FRAGMENT * height)
    stray |= lone
    widest = _WIDEST * height
    number = 0
    for group in groups[:MOST]:
        left, _, right, _ = _extent(pieces, group)
        cuts, plain = _cuts(pieces, group, widest) if right - left > widest else ([], True)
        stray |= not plain
        for a, b in zip([left, *cuts], [*cuts, right], strict=True):
            number = min(number + 1, MOST)
            part = owner[:, a:b]
            part[np.isin(pieces.labels[:, a:b], group)] = number
    stray |= len(groups) > MOST
    owner[pieces.labels == NOBODY] = NOBODY
    return strokes_of(pieces, owner, number, np.zeros(number, dtype=np.bool_), stray)


def _grouped(pieces: Pieces, chosen: list[int]) -> list[list[int]]:
    """Join pieces that lie above one another, from the left."""
    groups: list[list[int]] = []
    for piece in sorted(chosen, key=lambda p: int(pieces.boxes[p, 0])):
        left, _, right, _ = pieces.boxes[piece].tolist()
        if groups:
            before_left, _, before_right, _ = _extent(pieces, groups[-1])
            shared = min(right, before_right) - max(left, before_left)
            if shared > _ABOVE * min(right - left, before_right - before_left):
                groups[-1].append(piece)
                continue
        groups.append([piece])
    return groups


def _joined(pieces: Pieces, groups: list[list[int]], least: float) -> tuple[list[list[int]], bool]:
    """Give fragments to the character beside them, and tell whether any had none."""
    extents = np.array([_extent(pieces, group) for group in groups])
    low = extents[:, 3] - extents[:, 1] < least
    found = {i: list(group) for i, group in enumerate(groups) if not low[i]}
    lone = False
    for i in np.flatnonzero(low).tolist():
        away = {j: max(extents[i, 0] - extents[j, 2], extents[j, 0] - extents[i, 2]) for j in found}
        nearest = min(away, key=lambda j: int(away[j]), default=None)
        if nearest is not None and away[nearest] < _BESIDE_MM * PX_PER_MM:
            found[nearest] += groups[i]
        else:
            lone = True
    return [found[i] for i in sorted(found)], lone


def _extent(pieces: Pieces, group: list[int]) -> tuple[int, int, int, int]:
    boxes = pieces.boxes[group]
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def _cuts(pieces: Pieces, group: list[int], widest: float) -> tuple[list[int], bool]:
    """Return the columns at which to cut a group into as many characters as it is wide, and whether that is plain."""
    left, top, right, bottom = _extent(pieces, group)
    ink = np.isin(pieces.labels[top:bottom, left:right], group).sum(axis=0)
    count = max(2, round((right - left) / (0.65 * widest)))
    each = (right - left) / count
    cuts, plain = [], True
    for i in range(1, count):
        low, high = round((i - 0.35) * each), round((i + 0.35) * each)
        at = low + int(ink[low:high].argmin())
        plain &= bool(ink[at] <= _THIN_MM * PX_PER_MM)
        cuts.append(left + at)
    return (cuts, plain) if plain else ([], False)


def _within(x: float, y: float, boxes: Floats) -> bool:
    return bool(((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])).any())


def _at_border(pieces: Pieces, piece: int) -> bool:
    left, top, right, bottom = pieces.boxes[piece].tolist()
    height, width = pieces.labels.shape
    return bool(left == 0 or top == 0 or right == width or bottom == height)
