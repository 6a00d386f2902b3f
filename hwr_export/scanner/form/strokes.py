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
    rows: Ints  # of every pixel of a piece
    columns: Ints
    of: npt.NDArray[np.int32]  # the piece that such a pixel belongs to


@dataclass(frozen=True)
class Strokes:
    """Ink that is shared out among a field's characters, or its boxes: owner 1 is the first of them."""

    owner: Grey  # uint8 (H, W)
    boxes: Ints  # (N, 4): left, top, right, bottom of each one's ink, the latter two excluded; 0 where it has none
    area: Ints  # (N,): pixels
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
    # Of OpenCV's ways of counting, Wu's is the quickest for few pieces.
    count, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_WU)
    inked = np.flatnonzero(mask.view(np.bool_))
    rows, columns = np.divmod(inked, mask.shape[1])
    of = labels.ravel()[inked]
    core = np.bincount(of[looked_at.ravel()[inked] > _CORE * level], minlength=count)
    left, top, width, height, area = stats.astype(np.int64).T
    real = (area >= _SPECK_MM2 * PX_PER_MM**2) & (core > 1)
    real[0] = False
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    return Pieces(labels, boxes, area, real, rows, columns, of)


def strokes_of(pieces: Pieces, owner: Grey, count: int, struck: Flags, stray: bool) -> Strokes:
    """Return what there is of each of `count` characters, by the owners of pixels."""
    found = owner[pieces.rows, pieces.columns]
    owned = (found != NOBODY) & (found != FOREIGN)
    rows, columns, found = pieces.rows[owned], pieces.columns[owned], found[owned].astype(np.int64) - 1
    area = np.bincount(found, minlength=count)
    boxes = np.zeros((count, 4), dtype=np.int64)
    boxes[area > 0, :2] = max(owner.shape)
    for axis, values in enumerate((columns, rows)):
        np.minimum.at(boxes[:, axis], found, values)
        np.maximum.at(boxes[:, axis + 2], found, values + 1)
    return Strokes(owner, boxes, area, struck, stray)


def whole(pieces: Pieces) -> Strokes:
    """Return all pieces as one character's."""
    owner = np.where(pieces.real[pieces.labels], 1, NOBODY).astype(np.uint8)
    return strokes_of(pieces, owner, 1, np.zeros(1, dtype=np.bool_), False)
