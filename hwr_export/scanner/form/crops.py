"""A field's ink, shared out among characters -> each as the model takes it, by the framing of training."""

import cv2
import numpy as np

from hwr_export.glyph import framed
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
        clear, own = _stretched(ink[here] * (owner[here] == i + 1), level)
        images.append(framed(clear, *shape))
        levels.append(own)
    return images, levels


def _stretched(ink: Grey, level: float) -> tuple[Grey, float]:
    """Return ink from 0 to 255, and its level: a thin stroke of a soft scan is made as white as a thick one."""
    middle = ink[ink > _MIDDLE * level]
    if not len(middle):
        middle = ink.ravel()
    kth = int(_TOP * (len(middle) - 1))
    top = float(np.partition(middle, kth)[kth])
    floor = _FLOOR * top
    # A table: of ink of four pixels, `subtract` takes the number for four others.
    above = np.clip(np.rint(np.arange(256) - floor), 0, 255)
    table = np.clip(np.rint(above * (255 / max(1.0, top - floor))), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(ink, table), dtype=np.uint8), float(top)
