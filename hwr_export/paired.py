"""Two models on the same images: the difference of their accuracy, its bounds, and what a margin makes of it.

Answers are bool (N,), right or not; clusters int (N,), who wrote each image. NumPy only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwr_export.statistics import IntArray, binomial_cdf, design_effect

CONFIDENCE = 0.95
LARGEST_N = 100_000_000  # images that nobody will collect: beyond it no number decides


@dataclass(frozen=True)
class PairedDifference:
    """Two models on the same images: accuracy of the new minus that of the old, and what backs it.

    `fixed` images only the new has right, `broken` only the old; `lower` and `upper` are one-sided bounds of the
    difference at `confidence`; `p_no_better` is the exact one-sided McNemar test of "the new is not better" (images
    independent); `design_effect` says by how much clusters inflate the variance.
    """

    n: int
    fixed: int
    broken: int
    difference: float
    lower: float
    upper: float
    p_no_better: float
    design_effect: float = 1.0
    confidence: float = CONFIDENCE


def paired_difference(
    new: npt.NDArray[np.bool_],
    old: npt.NDArray[np.bool_],
    clusters: IntArray | None = None,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Compare two models on the same images by which of them each has right.

    The bounds are Tango's score bounds (1998), which stay honest when few images or none tell the models apart; where
    images come in clusters (by writer), at the effective sample size n / design effect.

    Args:
        new: bool (N,), whether each image was answered right.
        old: bool (N,), whether each image was answered right.
        clusters: int (N,), or None for independent images.
        confidence: of each one-sided bound.
    """
    n = len(new)
    fixed, broken = int((new & ~old).sum()), int((old & ~new).sum())
    inflation = design_effect(new.astype(float) - old.astype(float), clusters)
    lower, upper = _bounds(fixed, broken, n / inflation, inflation, confidence)
    p = 1.0 if not fixed else 1 - binomial_cdf(fixed - 1, fixed + broken, 0.5)
    return PairedDifference(n, fixed, broken, (fixed - broken) / n, lower, upper, p, inflation, confidence)


def against_margin(found: PairedDifference, margin: float) -> Literal["PASS", "FAIL", "UNDECIDED"]:
    """Judge whether the new model may be worse by more than `margin`, a fraction.

    PASS: the lower bound excludes it. FAIL: the upper bound says that it is. UNDECIDED: neither.
    """
    if found.lower > -margin:
        return "PASS"
    return "FAIL" if found.upper < -margin else "UNDECIDED"


def needed_n(found: PairedDifference, margin: float) -> int | None:
    """Return how many further images like these would decide against a margin, if what was seen goes on.

    0 where it is decided already, None where no number would: the difference seen is the margin itself.
    """
    if against_margin(found, margin) != "UNDECIDED":
        return 0

    def decides(n: float) -> bool:
        times = n / found.n
        size = n / found.design_effect
        lower, upper = _bounds(found.fixed * times, found.broken * times, size, found.design_effect, found.confidence)
        return lower > -margin or upper < -margin

    low, high = found.n, found.n
    while not decides(high):
        low, high = high, 2 * high
        if high > LARGEST_N:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high - found.n


def _bounds(fixed: float, broken: float, size: float, inflation: float, confidence: float) -> tuple[float, float]:
    """Return the one-sided bounds at an effective size; `fixed` and `broken` are counts before it was shrunk."""
    b, c = fixed / inflation, broken / inflation
    difference = (b - c) / size
    z = NormalDist().inv_cdf(confidence)
    lower = _crossing(lambda d: _tango(b, c, size, d) - z, -1.0, difference)
    upper = _crossing(lambda d: _tango(b, c, size, d) + z, difference, 1.0)
    return lower, upper


def _tango(b: float, c: float, n: float, delta: float) -> float:
    """Tango's score statistic of a paired difference of proportions; it falls as `delta` grows."""
    linear = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    q = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    distance = b - c - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses zero in [low, high], by bisection."""
    for _ in range(80):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
