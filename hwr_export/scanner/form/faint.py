"""Boxes that seem empty -> ink in them that is much paler than the rest: a pen that gave out, or a stain.

Which of both it is cannot be told. It is shown to the model, and its paleness tells how far it may be nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM, histogram
from hwr_export.scanner.form.strokes import Flags, Strokes
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
_PALEST = 0.14  # of the pen's darkness, below which nothing is looked for
_INSET_MM = 0.35  # from a box's lines, of which remainders are as pale
_ENOUGH_MM2 = 0.4  # ink that is looked at
_MIDDLE = 0.6  # quantile of pale ink's pixels that is the middle of a stroke


@dataclass(frozen=True)
class Faint:
    """Pale ink in a box."""

    number: int  # of the box, from 0
    left: int  # of the part of the strip that was looked at
    top: int
    ink: Grey
    level: float  # in the middle of its strokes


def find_faint(ink: Grey, strokes: Strokes, boxes: Floats, doubtful: Flags, pen: float, noise: float) -> list[Faint]:
    """Return what is in boxes that hold no ink, or too little to be sure of.

    Args:
        ink: uint8 (H, W), the strip's.
        boxes: float64 (N, 4): left, top, right, bottom of the boxes in the strip.
        doubtful: (N,), of which boxes that is so.
        pen: level of the page's pen.
        noise: standard deviation of the ink on bare paper.
    """
    if not doubtful.any():
        return []
    inset = _INSET_MM * PX_PER_MM
    inner = np.stack([np.ceil(boxes[:, :2] + inset), np.floor(boxes[:, 2:] - inset) + 1], axis=1).reshape(-1, 4)
    inner = np.clip(inner, 0, np.tile(ink.shape[::-1], 2)).astype(np.int64)
    least = max(_PALEST * pen, 3 * noise)
    found = []
    soft = cv2.GaussianBlur(ink, (3, 3), 0)
    for number in np.flatnonzero(doubtful).tolist():
        left, top, right, bottom = inner[number].tolist()
        here = np.s_[top:bottom, left:right]
        # What reaches over from other boxes is theirs.
        theirs = np.where(strokes.owner[here] == number + 1, 0, strokes.owner[here]).astype(np.uint8)
        free = cv2.dilate(theirs, np.ones((3, 3), np.uint8)) == 0
        part = np.where(free, soft[here], 0).astype(np.uint8)
        counts = histogram(part)[round(least) :]
        if counts.sum() >= _ENOUGH_MM2 * PX_PER_MM**2:
            level = round(least) + int(np.searchsorted(np.cumsum(counts), _MIDDLE * counts.sum()))
            found.append(Faint(number, left, top, part, float(level)))
    return found
