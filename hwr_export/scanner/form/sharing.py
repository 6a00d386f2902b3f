"""The pieces of ink in and around a row of boxes -> which box each belongs to: the one that most of it lies in.

What joins two boxes is cut between them where it is thin, and called doubtful where it is not.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM
from hwr_export.scanner.form.strokes import FOREIGN, NOBODY, Flags, Ints, Pieces, Strokes, owner_of, strokes_of
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
_REACHES = 0.45  # of a box's width, that a stroke of another character may reach into it
_REACHES_EMPTY = 0.2  # the same, where nothing else is in the box
_TALL = 0.45  # of a box's height, that ink at the edge of an empty box may be a character's
_MINOR = 0.3  # of a piece's ink, that may lie in the boxes beside the one that it belongs to
_THIN_MM = 1.1  # ink in a column, at which characters that touch are cut apart
_BESIDE_MM = 0.8  # from a box to ink outside of it that may still belong to it
_STRAY_MM2 = 0.5  # ink outside of the boxes that is not passed over
_STRAIGHT = 0.93  # of the columns between boxes, in which a line is where it would be if straight
_STRUCK = 0.6  # of a box's width that a line goes through
_WOBBLE_MM = 0.3  # by which a line drawn by hand departs from straight


@dataclass
class _Sharing:
    """What is decided so far."""

    pieces: Pieces
    boxes: Floats  # (N, 4), the field's
    owners: Ints  # (pieces,)
    struck: Flags  # (N,)
    cut: list[tuple[int, list[tuple[int, int]]]] = field(default_factory=list)  # piece: owner up to a column, and so on
    stray: bool = False


def share_out(pieces: Pieces, boxes: Floats, others: Floats) -> Strokes:
    """Return which box each stroke belongs to.

    Args:
        boxes: float64 (N, 4), N < 255, the field's in one row from the left: left, top, right, bottom in the strip.
        others: float64 (M, 4), boxes of other fields within the strip.
    """
    count = len(boxes)
    sharing = _Sharing(pieces, boxes, np.zeros(len(pieces.area), dtype=np.int64), np.zeros(count, dtype=np.bool_))
    inside = _inside(pieces, boxes, others)
    boxed = np.flatnonzero(pieces.real & (inside[:, 1:].sum(axis=1) > 0))
    # What lies in one box alone says of what joins boxes whether one of them would be empty without it.
    joins = (inside[boxed, 1:-1] > 0).sum(axis=1) > 1
    for piece in [*boxed[~joins].tolist(), *boxed[joins].tolist()]:
        _settle(sharing, piece, inside[piece])
    for piece in np.flatnonzero(pieces.real & (inside[:, 1:].sum(axis=1) == 0)).tolist():
        _beside(sharing, piece)
    owner = owner_of(pieces, sharing.owners)
    for piece, parts in sharing.cut:
        _cut(pieces, owner, piece, parts)
    return strokes_of(pieces, owner, count, sharing.struck, sharing.stray)


def _inside(pieces: Pieces, boxes: Floats, others: Floats) -> Ints:
    """Return how many pixels of each piece lie outside, in each box with half the gaps, in others: (pieces, N+2)."""
    count = len(boxes)
    middles = (boxes[1:, 0] + boxes[:-1, 2]) / 2
    height, width = pieces.labels.shape
    down, across = np.arange(height), np.arange(width)
    of_column = np.searchsorted(middles, across) + 1
    of_column[(across < boxes[0, 0]) | (across > boxes[-1, 2])] = 0
    within = (down >= boxes[0, 1]) & (down <= boxes[0, 3])
    row, column = pieces.rows, pieces.columns
    slots = of_column[column] * within[row]
    for left, top, right, bottom in others.tolist():
        slots[(column >= left) & (column <= right) & (row >= top) & (row <= bottom)] = count + 1
    found = np.bincount(pieces.of * np.int64(count + 2) + slots, minlength=len(pieces.area) * (count + 2))
    return found.reshape(-1, count + 2)


def _settle(sharing: _Sharing, piece: int, inside: Ints) -> None:
    own, foreign, total = inside[1:-1], int(inside[-1]), int(inside.sum())
    if foreign > own.sum() or (_at_border(sharing.pieces, piece) and own.sum() < total / 2):
        sharing.owners[piece] = FOREIGN
        return
    slots = np.flatnonzero(own)
    if len(slots) == 1:
        sharing.owners[piece] = slots[0] + 1
        return
    first, last = int(slots[0]), int(slots[-1])
    through = _line_through(sharing, piece, first, last)
    if through is not None:
        reach = np.minimum(through[1], sharing.boxes[:, 2]) - np.maximum(through[0], sharing.boxes[:, 0])
        sharing.struck |= reach > _STRUCK * (sharing.boxes[:, 2] - sharing.boxes[:, 0])
        _split(sharing, piece, list(range(first, last + 1)))
        return
    # A stroke that only reaches over is at an end of the piece, and does not go deep.
    most = int(own.argmax())
    if first < most and own[first] < _MINOR * total:
        first += _reaches_over(sharing, piece, first, first + 1)
    if last > most and own[last] < _MINOR * total:
        last -= _reaches_over(sharing, piece, last, last - 1)
    if first == last:
        sharing.owners[piece] = first + 1
    else:
        _split(sharing, piece, list(range(first, last + 1)))


def _reaches_over(sharing: _Sharing, piece: int, slot: int, beside: int) -> bool:
    """Return whether what a piece has in a box, `slot`, is a stroke of the character in the box beside it."""
    pieces, box = sharing.pieces, sharing.boxes[slot]
    left, top, right, bottom = pieces.boxes[piece].tolist()
    depth = (right - box[0] if beside < slot else box[2] - left) / (box[2] - box[0])
    if (sharing.owners == slot + 1).any():
        return bool(depth < _REACHES)
    if depth >= _REACHES_EMPTY:
        return False
    middle = round(float(sharing.boxes[max(slot, beside), 0] + sharing.boxes[min(slot, beside), 2]) / 2)
    part = np.s_[top:bottom, middle:right] if beside < slot else np.s_[top:bottom, left:middle]
    rows = np.flatnonzero((pieces.labels[part] == piece).any(axis=1))
    if len(rows) and np.ptp(rows) > _TALL * (box[3] - box[1]):
        # As tall as a character at the edge of a box that has no other.
        sharing.stray = True
        return _thinnest(sharing, piece, min(slot, beside))[1] > _THIN_MM / 2 * PX_PER_MM
    return True


def _thinnest(sharing: _Sharing, piece: int, slot: int) -> tuple[int, int]:
    """Return the column near the gap behind a box where a piece has the least ink, and how much that is in pixels."""
    left, top, right, bottom = sharing.pieces.boxes[piece].tolist()
    low, high = float(sharing.boxes[slot, 2]), float(sharing.boxes[slot + 1, 0])
    first, last = max(left, int(low - PX_PER_MM / 2)), min(right, int(high + PX_PER_MM / 2) + 1)
    ink = (sharing.pieces.labels[top:bottom, first:last] == piece).sum(axis=0)
    # Of columns alike, the one nearest to the middle of the gap.
    at = int((ink + np.abs(np.arange(first, last) - (low + high) / 2) / PX_PER_MM).argmin())
    return first + at, int(ink[at])


def _split(sharing: _Sharing, piece: int, slots: list[int]) -> None:
    """Cut a piece between boxes."""
    parts = []
    for slot in slots[:-1]:
        at, ink = _thinnest(sharing, piece, slot)
        sharing.stray |= ink > _THIN_MM * PX_PER_MM and not sharing.struck[slot]
        parts.append((slot + 1, at))
    sharing.cut.append((piece, [*parts, (slots[-1] + 1, int(sharing.pieces.boxes[piece, 2]))]))


def _cut(pieces: Pieces, owner: Grey, piece: int, parts: list[tuple[int, int]]) -> None:
    left, top, right, bottom = pieces.boxes[piece].tolist()
    mine = pieces.labels[top:bottom, left:right] == piece
    start = left
    for number, stop in parts:
        part = slice(start - left, stop - left)
        owner[top:bottom, start:stop][mine[:, part]] = number
        start = stop


def _beside(sharing: _Sharing, piece: int) -> None:
    """Give a piece outside of all boxes to the character it is near to, else call it stray."""
    pieces = sharing.pieces
    left, top, right, bottom = pieces.boxes[piece].tolist()
    if _at_border(pieces, piece):
        sharing.owners[piece] = FOREIGN
        return
    boxes = sharing.boxes
    across = np.maximum(0, np.maximum(boxes[:, 0] - right, left - boxes[:, 2]))
    down = np.maximum(0, np.maximum(boxes[:, 1] - bottom, top - boxes[:, 3]))
    distance = np.hypot(across, down)
    nearest = int(distance.argmin())
    if distance[nearest] <= _BESIDE_MM * PX_PER_MM and (sharing.owners == nearest + 1).any():
        sharing.owners[piece] = nearest + 1
    elif pieces.area[piece] >= _STRAY_MM2 * PX_PER_MM**2:
        sharing.stray = True
        sharing.owners[piece] = NOBODY


def _at_border(pieces: Pieces, piece: int) -> bool:
    left, top, right, bottom = pieces.boxes[piece].tolist()
    height, width = pieces.labels.shape
    return bool(left == 0 or top == 0 or right == width or bottom == height)


def _line_through(sharing: _Sharing, piece: int, first: int, last: int) -> tuple[int, int] | None:
    """Return from where to where a straight line goes through boxes, three at least or both of two whole; else None."""
    pieces, boxes = sharing.pieces, sharing.boxes
    left, top, right, bottom = pieces.boxes[piece].tolist()
    if last - first >= 2:
        start, stop = (boxes[first, 2] + boxes[first + 1, 0]) / 2, (boxes[last - 1, 2] + boxes[last, 0]) / 2
    else:
        start, stop = boxes[first, 0] + 2, boxes[last, 2] - 2
    start, stop = round(float(start)), round(float(stop))
    if start < left or stop >= right:
        return None
    # At its edges the piece may be more than the line: every stroke there is tried with every other.
    mine = pieces.labels[top:bottom, left:right] == piece
    wobble = round(_WOBBLE_MM * PX_PER_MM)
    columns = np.arange(right - left)
    for a in _middles(mine[:, start - left]):
        for b in _middles(mine[:, stop - left]):
            rows = np.round(a + (b - a) * (columns - (start - left)) / (stop - start)).astype(int)
            near = np.clip(rows + np.arange(-wobble, wobble + 1)[:, None], 0, bottom - top - 1)
            there = mine[near, columns].any(axis=0) & (rows >= 0) & (rows < bottom - top)
            between = there[start - left : stop - left + 1]
            if between.mean() >= _STRAIGHT and _goes_through(sharing, top + (a + b) / 2):
                gaps = np.flatnonzero(~there)
                before, behind = gaps[gaps < start - left], gaps[gaps > stop - left]
                begin = int(before[-1]) + 1 if len(before) else 0
                return left + begin, left + (int(behind[0]) if len(behind) else right - left)
    return None


def _goes_through(sharing: _Sharing, row: float) -> bool:
    """Return whether a height is in the middle of the boxes, where bars of characters seldom meet by chance."""
    top, bottom = sharing.boxes[0, 1], sharing.boxes[0, 3]
    return bool(top + 0.15 * (bottom - top) < row < bottom - 0.15 * (bottom - top))


def _middles(column: Flags) -> list[float]:
    """Return the middles of the runs in a column."""
    edges = np.flatnonzero(np.diff(column.astype(np.int8), prepend=0, append=0))
    return [float(a + b - 1) / 2 for a, b in zip(edges[::2], edges[1::2], strict=True)]
