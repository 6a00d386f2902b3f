"""A field's ink -> pieces that hang together, without specks; and what they are once each belongs to a character."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM
from hwr_export.scanner.page import Grey

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
EDGE = 0.27  # of a pen's darkness, above which a pixel is part of a stroke
_CORE = 0.45  # of a pen's darkness, that a stroke has in its middle
_SPECK_MM2 = 0.09  # less ink in one piece is dust
NOBODY, FOREIGN = 0, 255  # owners that are no character of the field


@dataclass(frozen=True)
class Pieces:
    """Connected ink. Piece 0 is the paper."""

    labels: npt.NDArray[np.int32]  # (H, W): number of the piece
    boxes: Ints  # (pieces, 4): left, top, right, bottom, the latter two excluded
    area: Ints  # (pieces,): pixels
    real: Flags  # (pieces,): larger and darker than dust
    inked: Ints  # every pixel of a piece, as an index into all pixels
    rows: Ints  # of it
    columns: Ints
    of: Ints  # the piece that such a pixel belongs to


@dataclass(frozen=True)
class Strokes:
    """Ink that is shared out among a field's characters, or its boxes: owner 1 is the first of them."""

    owner: Grey  # uint8 (H, W)
    boxes: Ints  # (N, 4): left, top, right, bottom of each one's ink, the latter two excluded; 0 where it has none
    area: Ints  # (N,): pixels
    largest: Ints  # (N,): pixels of its largest piece
    extent: Ints  # (N,): longer side of that piece's box
    struck: Flags  # (N,): a line goes through it and its neighbours
    stray: bool  # there is ink of which it cannot be told whose it is


def find_pieces(ink: Grey, level: float, noise: float) -> Pieces:
    """Return the ink in pieces.

    Args:
        ink: uint8 (H, W), 0 on paper.
        level: of it in the middle of a stroke.
        noise: its standard deviation on bare paper.
    """
    least = EDGE * level
    looked_at = ink
    if least < 5 * noise:
        looked_at = np.asarray(cv2.GaussianBlur(ink, (3, 3), 0), dtype=np.uint8)
        least = max(least, 3 * noise)
    mask = cv2.threshold(looked_at, least, 1, cv2.THRESH_BINARY)[1]
    count, labels = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    inked = np.flatnonzero(mask.view(np.bool_))
    rows, columns = np.divmod(inked, mask.shape[1])
    of = labels.ravel()[inked].astype(np.int64)
    core = np.bincount(of[looked_at.ravel()[inked] > _CORE * level], minlength=count)
    area = np.bincount(of, minlength=count)
    real = (area >= _SPECK_MM2 * PX_PER_MM**2) & (core > 1)
    real[0] = False
    boxes = _bounds(of, count, rows, columns, (mask.shape[0], mask.shape[1]))
    return Pieces(labels, boxes, area, real, inked, rows, columns, of)


def _bounds(of: Ints, count: int, rows: Ints, columns: Ints, shape: tuple[int, int]) -> Ints:
    """Return the box around the pixels of each of `count` things, int64 (count, 4); 0 where there are none."""
    sides = []
    for places, length in ((columns, shape[1]), (rows, shape[0])):
        there = np.bincount(of * np.int64(length) + places, minlength=count * length).reshape(count, length) > 0
        first = there.argmax(axis=1)
        last = length - there[:, ::-1].argmax(axis=1)
        sides.append((first, np.where(there.any(axis=1), last, 0)))
    return np.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], axis=1)


def owner_of(pieces: Pieces, owners: Ints) -> Grey:
    """Return the owner of each pixel, uint8 (H, W), by the owner of each piece."""
    owner = np.zeros(pieces.labels.shape, dtype=np.uint8)
    owner.ravel()[pieces.inked] = owners[pieces.of]
    return owner


def strokes_of(pieces: Pieces, owner: Grey, count: int, struck: Flags, stray: bool) -> Strokes:
    """Return what there is of each of `count` characters, by the owners of pixels."""
    found = owner.ravel()[pieces.inked]
    owned = (found != NOBODY) & (found != FOREIGN)
    rows, columns, found = pieces.rows[owned], pieces.columns[owned], found[owned].astype(np.int64) - 1
    boxes = _bounds(found, count, rows, columns, (owner.shape[0], owner.shape[1]))
    # Of a character in many specks, what counts is the largest: they may be dust, all of them.
    shared = np.bincount(pieces.of[owned] * np.int64(count) + found, minlength=len(pieces.area) * count)
    shared = shared.reshape(len(pieces.area), count)
    main = shared.argmax(axis=0)
    low, high = np.maximum(boxes[:, :2], pieces.boxes[main, :2]), np.minimum(boxes[:, 2:], pieces.boxes[main, 2:])
    extent = np.maximum((high - low).max(axis=1), 0)
    return Strokes(owner, boxes, shared.sum(axis=0), shared.max(axis=0), extent, struck, stray)


def whole(pieces: Pieces) -> Strokes:
    """Return all pieces as one character's."""
    return strokes_of(pieces, owner_of(pieces, pieces.real.astype(np.int64)), 1, np.zeros(1, dtype=np.bool_), False)
