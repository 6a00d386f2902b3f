"""The ink of a page's fields -> how dark the pen is in each, and how likely it is that a box is empty or ticked.

A pen that has faded on the whole page is as dark as another; a mark much paler than the page's pen is none.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM, histogram
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
CERTAIN = 1e-4  # probability of an error that is not told from none
_UNKNOWN = 140.0  # level of a pen that has written nothing here
_LEAST = 20.0  # level below which nothing is a pen's
_ENOUGH_MM2 = 1.0  # ink that tells how dark a pen is
_MIDDLE = 0.75  # quantile of ink's pixels that is the middle of a stroke
_PALE = 0.45  # of the page's pen; a field's pen is not paler
_PALER = 0.6  # of the page's pen, below which ink may be a stain


def pen_levels(inks: Sequence[Grey], noises: Sequence[float]) -> tuple[list[float], float]:
    """Return the level in the middle of strokes, of each field and of the page."""
    noise = float(np.median(noises)) if len(noises) else 1.0
    counts = [histogram(ink) for ink in inks]
    page = _level(np.sum(counts, axis=0), noise, _UNKNOWN) if counts else _UNKNOWN
    levels = [_level(count, max(noise, own), page) for count, own in zip(counts, noises, strict=True)]
    return [min(max(level, _PALE * page), 1.5 * page) for level in levels], page


def _level(counts: npt.NDArray[np.int64], noise: float, otherwise: float) -> float:
    least = min(round(max(_LEAST, 6 * noise)), len(counts) - 1)
    ink = np.cumsum(counts[least:])
    if ink[-1] < _ENOUGH_MM2 * PX_PER_MM**2:
        return otherwise
    # Soft edges are half of a thin stroke: the middle is sought among what is darker than half of the darkest.
    darkest = least + int(np.searchsorted(ink, 0.95 * ink[-1]))
    half = np.cumsum(counts[max(least, darkest // 2) :])
    return float(max(least, darkest // 2) + np.searchsorted(half, _MIDDLE * half[-1]))


def blank_probability(area_mm2: Floats, extent_mm: Floats, contrast: Floats) -> Floats:
    """Return the probability that boxes are empty, float64 (N,).

    Args:
        area_mm2: of the largest stroke in each.
        extent_mm: the longer side of its bounding box.
        contrast: of the ink against the page's pen, 1 where alike.
    """
    return 1 - _written(area_mm2, extent_mm, contrast, 0.4, 1.5)


def tick_probability(area_mm2: float, extent_mm: float, contrast: float) -> float:
    """Return the probability that a checkbox is ticked, by the ink within it that is its own."""
    area, extent, dark = (np.array([v]) for v in (area_mm2, extent_mm, contrast))
    return float(_written(area, extent, dark, 0.45, 1.2)[0])


def _written(area_mm2: Floats, extent_mm: Floats, contrast: Floats, area_even: float, extent_even: float) -> Floats:
    """Return the probability that ink was written there, even where area and extent are as given."""
    evidence = 5 * np.log(np.maximum(area_mm2, 1e-3) / area_even)
    evidence = evidence + 4 * np.log(np.maximum(extent_mm, 1e-2) / extent_even)
    evidence = np.minimum(evidence, 9.3) - 30 * np.maximum(0.0, _PALER - contrast)
    return np.asarray(np.clip(1 / (1 + np.exp(-evidence)), CERTAIN, 1 - CERTAIN), dtype=np.float64)
