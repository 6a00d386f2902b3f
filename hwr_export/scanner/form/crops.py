"""A field's ink, shared out among characters -> each as the model takes it, by the framing of training."""

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.glyph import framed
from hwr_export.scanner.form.strokes import FOREIGN, NOBODY, Strokes
from hwr_export.scanner.page import Grey

_FLOOR = 0.2  # of a stroke's darkness, that is paper's grain, not its soft edge
_MIDDLE = 0.5  # of a pen's darkness, above which a pixel lies within a stroke
_TOP = 0.9  # quantile of the pixels within a stroke, that is as dark as ink gets; as `normalize` has it


def crops(
    ink: Grey, strokes: Strokes, level: float, shape: tuple[int, int]
) -> tuple[list[Grey | None], npt.NDArray[np.float64]]:
    """Return one image a character, uint8 (height, width), white on black, None without ink; and the levels of each."""
    # Edges are soft: the pixels around a stroke that nobody owns are still its own.
    owner = cv2.copyTo(strokes.owner, strokes.owner, cv2.dilate(strokes.owner, np.ones((3, 3), np.uint8)))
    clear, levels = _stretched(ink, owner, level, len(strokes.boxes))
    cut = []
    for i, (left, top, right, bottom) in enumerate(strokes.boxes.tolist()):
        here = np.s_[top:bottom, left:right]
        cut.append(clear[here] * (owner[here] == i + 1) if right > left else None)
    return [None if each is None else framed(each, *shape) for each in cut], levels


def _stretched(ink: Grey, owner: Grey, level: float, count: int) -> tuple[Grey, npt.NDArray[np.float64]]:
    """Return each character's ink from 0 to 255, and its level, 0 without ink.

    A thin stroke of a soft scan is made as white as a thick one.
    """
    owned = np.flatnonzero(owner)
    of, values = owner.ravel()[owned].astype(np.int64), ink.ravel()[owned].astype(np.int64)
    within = (values > _MIDDLE * level) & (of != FOREIGN)
    ordered = np.sort((of[within] * 256 + values[within]).astype(np.uint16), kind="stable")
    counts = np.bincount(ordered >> 8, minlength=count + 1)[: count + 1]
    last = np.cumsum(counts)
    levels = np.where(np.bincount(of, minlength=count + 1)[: count + 1] > 0, level, 0.0)
    there = counts > 0
    levels[there] = ordered[(last - counts + (_TOP * (counts - 1)).astype(np.int64))[there]] & 255
    levels[NOBODY] = 0.0
    top = np.zeros(256)
    top[: count + 1] = levels
    gain = 255 / np.maximum(1.0, (1 - _FLOOR) * top)
    clear = np.zeros_like(ink)
    clear.ravel()[owned] = np.clip(np.rint((values - _FLOOR * top[of]) * gain[of]), 0, 255).astype(np.uint8)
    return clear, levels[1:]
