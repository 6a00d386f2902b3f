"""A form's layout -> short straight pieces of what is printed, by which a page is laid straight, in mm.

Edges run between black and white, in marks; lines are thin and dark on white: the boxes' outlines, the frame's rule.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import MARK_MODULES, Layout, Mark, Place
from hwr_export.scanner.form.sheet import LINE_MM, mark_modules

Floats = npt.NDArray[np.float64]

BOX_PIECE_MM = 8.0
BOX_REACH_MM = 0.55  # to either side of a box's line, within which nothing else is expected
FRAME_REACH_MM = 1.0
FRAME_PIECE_MM = 6.0
MOST_LINES = 1600  # pieces of boxes that are looked at; of forms with more, every second, third ... one


PLACES = 16  # groups before are the sides of marks: 4 * corner + top, right, bottom, left


@dataclass(frozen=True)
class Pieces:
    """N pieces. `normals` point from black to white of an edge, and out of the box of a line."""

    centres: Floats  # (N, 2)
    halves: Floats  # (N, 2), from a centre to one end of what is looked at
    normals: Floats  # (N, 2), of length one
    reach: Floats  # (N,), how far to either side a piece is looked for
    edge: npt.NDArray[np.bool_]  # (N,), an edge; else a line
    group: npt.NDArray[np.int64]  # (N,), SIDES of a mark, -1 - corner inside it; PLACES + index of a place

    @property
    def corner(self) -> npt.NDArray[np.int64]:
        """Int64 (N,): the corner of a mark's pieces, 4 or more of all others."""
        return np.where(self.group < 0, -1 - self.group, self.group // 4)

    def moved(self, motion: Floats) -> "Pieces":
        """Return the pieces after a motion of the sheet, float64 (3, 3), mm -> mm, that keeps lengths."""
        turn = motion[:2, :2].T
        centres = self.centres @ turn + motion[:2, 2]
        return Pieces(centres, self.halves @ turn, self.normals @ turn, self.reach, self.edge, self.group)

    def __len__(self) -> int:
        return len(self.reach)

    def __getitem__(self, which: npt.NDArray[np.bool_] | slice) -> "Pieces":
        return Pieces(*(part[which] for part in vars(self).values()))

    def __add__(self, other: "Pieces") -> "Pieces":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Pieces(*(np.concatenate(pair) for pair in pairs))


def mark_pieces(layout: Layout) -> Pieces:
    """Return the edges of all marks, a module long each."""
    found = [_of_mark(mark) for mark in layout.marks]
    return sum(found[1:], found[0])


def line_pieces(layout: Layout) -> Pieces:
    """Return the boxes' lines and the frame's."""
    found = [_of_place(place, PLACES + number) for number, place in enumerate(layout.places)]
    boxes = sum(found[1:], found[0])
    boxes = boxes[:: -(-len(boxes) // MOST_LINES)]
    if layout.frame is None:
        return boxes
    return boxes + _of_rects(
        layout.frame.corners[None], np.ones((1, 4), bool), FRAME_REACH_MM, FRAME_PIECE_MM, PLACES + len(found)
    )


def is_box(pieces: Pieces, layout: Layout) -> npt.NDArray[np.bool_]:
    """Tell which pieces are lines of boxes, bool (N,)."""
    return (pieces.group >= PLACES) & (pieces.group < PLACES + len(layout.places))


def _of_place(place: Place, number: int) -> Pieces:
    """Return the lines of a place's boxes, `number` being its group."""
    corners = np.stack([box.grown(-LINE_MM / 2).corners for box in place.boxes])
    # Lines that touch are one thick line, and a decimal point may stand in a narrow gap.
    alone = np.diff(corners[:, 0, 0]) - (corners[0, 1, 0] - corners[0, 0, 0]) >= 2.2 * BOX_REACH_MM
    sides = np.ones((len(corners), 4), dtype=bool)
    sides[:-1, 1] = sides[1:, 3] = alone
    return _of_rects(corners, sides, BOX_REACH_MM, BOX_PIECE_MM, number)


def _of_rects(corners: Floats, sides: npt.NDArray[np.bool_], reach: float, longest: float, group: int) -> Pieces:
    """Return the pieces of some sides (top, right, bottom, left) of rectangles of one size: (N, 4, 2), (N, 4)."""
    found = []
    for side in range(4):
        start, end = corners[sides[:, side], side], corners[sides[:, side], (side + 1) % 4]
        way = corners[0, (side + 1) % 4] - corners[0, side]
        length = float(np.abs(way).sum())
        count = max(1, round(length / longest))
        shares = (np.arange(count) + 0.5) / count
        centres = (start[:, None] + shares[:, None] * (end - start)[:, None]).reshape(-1, 2)
        number = len(centres)
        # Near a corner, and where a pen often goes from box to box, a line is not alone.
        halves = np.broadcast_to(0.35 / count * way, (number, 2))
        normals = np.broadcast_to(np.array([way[1], -way[0]]) / length, (number, 2))
        found.append(
            Pieces(
                centres, halves, normals, np.full(number, reach), np.zeros(number, dtype=bool), np.full(number, group)
            )
        )
    return sum(found[1:], found[0])


def _of_mark(mark: Mark) -> Pieces:
    """Return the edges between modules, a module long each."""
    module, corner = mark.rect.width / MARK_MODULES, mark.rect.corners[0]
    black = np.pad(mark_modules(mark.id), 1).astype(np.int64)  # modules are counted from the white around the mark
    found = []
    for axis in (0, 1):  # edges that lie, between a row and the next; edges that stand
        change = np.diff(black, axis=axis)
        rows, columns = np.nonzero(change)
        x, y = (columns - 0.5, rows) if axis == 0 else (columns, rows - 0.5)
        number = len(rows)
        along, across = np.array([[1.0, 0.0], [0.0, 1.0]])[[axis, 1 - axis]]
        normals = -change[rows, columns][:, None] * across  # from black to white
        at, most = (y, x)[axis], MARK_MODULES
        first, last = ((0, 2), (3, 1))[axis]  # top and bottom, left and right
        group = np.where(
            at == 0, 4 * mark.corner + first, np.where(at == most, 4 * mark.corner + last, -1 - mark.corner)
        )
        found.append(
            Pieces(
                corner + np.stack([x, y], axis=1) * module,
                np.broadcast_to(0.3 * module * along, (number, 2)),
                normals,
                np.full(number, 0.45 * module),
                np.ones(number, dtype=bool),
                group.astype(np.int64),
            )
        )
    return found[0] + found[1]
