"""A field's ink, shared out among characters -> each as the model takes it, by the framing of training."""

import cv2
import numpy as np

from hwr_export.glyph import framed
from hwr_export.scanner.form.strips import histogram
from hwr_export.scanner.form.strokes import Strokes
from hwr_export.scanner.page import Grey

_FLOOR = 0.2  # of a stroke's darkness, that is paper's grain, not its soft edge
_MIDDLE = 0.5  # of a pen's darkness, above which a pixel lies within a stroke
_TOP = 0.9  # quantile of the pixels within a stroke, that is as dark as ink gets; as `normalize` has it


def crops(ink: Grey, strokes: Strokes, level: float, shape: tuple[int, int]) -> tuple[list[Grey | None], list[float]]:
    """Return one image a character, uint8 (height, width), white on black, and its level; None and 0 without ink."""
    # Edges are soft: the pixels around a stroke that nobody owns are still its own.
    owner = cv2.copyTo(strokes.owner, strokes.owner, cv2.dilate(strokes.owner, np.ones((3, 3), np.uint8)))
    images: list[Grey | None] = []
    levels = []
    for i, (left, top, right, bottom) in enumerate(strokes.boxes.tolist()):
        if right <= left:
            images.append(None)
            levels.append(0.0)
            continue
        here = np.s_[top:bottom, left:right]
        mine = cv2.copyTo(ink[here], cv2.inRange(owner[here], i + 1.0, i + 1.0))
        clear, own = _stretched(mine, level)
        images.append(framed(clear, *shape))
        levels.append(own)
    return images, levels


def _stretched(ink: Grey, level: float) -> tuple[Grey, float]:
    """Return ink from 0 to 255, and its level: a thin stroke of a soft scan is made as white as a thick one."""
    share = np.cumsum(histogram(ink)[round(_MIDDLE * level) :])
    top = round(_MIDDLE * level) + int(np.searchsorted(share, _TOP * share[-1]))
    floor = _FLOOR * top
    clear = cv2.convertScaleAbs(cv2.subtract(ink, floor), alpha=255 / max(1.0, top - floor))
    return np.asarray(clear, dtype=np.uint8), float(top)
