"""Samples of a latency -> percentiles with intervals, MLPerf's bound, and whether two costs differ. NumPy only.

Samples are microseconds, float64 (rounds, calls): a round is a block of consecutive calls, which resemble one another,
so whatever is resampled is rounds.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
Answer = Literal["FASTER", "SLOWER", "SAME", "AMBIGUOUS"]

PERCENTILES = (50, 90, 99)
CONFIDENCE = 0.95
BOUND_CONFIDENCE = 0.99
BOUND_PERCENTILES = (90, 99)
RESAMPLES = 4000
UNDISTURBED = 0.01  # of the calls are quicker


def percentile(samples: Samples, q: float, confidence: float = CONFIDENCE) -> dict[str, float] | None:
    """Return a percentile with its two-sided interval, `{"value", "low", "high"}`; None where n is too small for one.

    The interval lies between two order statistics, and so assumes nothing of the distribution but independent calls
    (David and Nagaraja 2003, 7.1).
    """
    ordered = np.sort(samples, axis=None)
    cdf = _binomial_cdfs(len(ordered), q / 100)
    tail = (1 - confidence) / 2
    below = np.flatnonzero(cdf <= tail)
    above = np.flatnonzero(cdf >= 1 - tail)
    if not len(below) or above[0] >= len(ordered):
        return None
    value = float(np.quantile(ordered, q / 100, method="median_unbiased"))
    # X_(l) with P(Bin <= l - 1) <= tail, and X_(u) with P(Bin <= u - 1) >= 1 - tail; orders count from 1.
    return {"value": value, "low": float(ordered[below[-1]]), "high": float(ordered[above[0]])}


def percentile_bound(samples: Samples, q: float, confidence: float = BOUND_CONFIDENCE) -> float | None:
    """Return the upper bound of a percentile by MLPerf's early stopping for a single stream; None where n is small.

    The smallest order statistic above the percentile with 99 % confidence (MLPerf Inference rules, early stopping).
    """
    ordered = np.sort(samples, axis=None)
    enough = np.flatnonzero(_binomial_cdfs(len(ordered), q / 100) >= confidence)
    return float(ordered[enough[0]]) if enough[0] < len(ordered) else None


def summary(samples: Samples) -> dict[str, Any]:
    """Return what a cell says of its samples: `n`, percentiles with intervals, MLPerf's bounds, in microseconds."""
    found: dict[str, Any] = {"n": int(samples.size)}
    for q in PERCENTILES:
        interval = percentile(samples, q)
        found[f"p{q}_us"] = None if interval is None else round(interval["value"], 2)
        found[f"p{q}_ci_us"] = None if interval is None else [round(interval["low"], 2), round(interval["high"], 2)]
    for q in BOUND_PERCENTILES:
        bound = percentile_bound(samples, q)
        found[f"p{q}_mlperf_bound_us"] = None if bound is None else round(bound, 2)
    return found


@dataclass(frozen=True)
class Interval:
    """A number above 0, and 95 % confidence bounds of it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio(Interval):
    """New time over old: below 1 is faster."""

    def answer(self, tolerance: float) -> Answer:
        """Judge by a tolerance, a fraction: a ratio within it is no difference, and only what is surely so is said."""
        least, most = 1 / (1 + tolerance), 1 + tolerance
        if least <= self.low and self.high <= most:
            return "SAME"
        if self.value > most and self.low > 1:
            return "SLOWER"
        if self.value < least and self.high < 1:
            return "FASTER"
        return "AMBIGUOUS"


def ratio(new: Samples, old: Samples, seed: int = 0) -> Ratio:
    """Compare two costs measured in turns by their rounds, float64 (rounds,): the ratio of the medians, bootstrapped.

    What disturbed the one disturbed the other; of runs made apart, take the quotient of what is undisturbed.
    """
    rng = np.random.default_rng(seed)
    value = float(np.median(new) / np.median(old))
    again = _resampled_medians(new, rng) / _resampled_medians(old, rng)
    low, high = np.quantile(again, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Ratio(value, float(low), float(high))


def undisturbed(samples: Samples, seed: int = 0) -> Interval:
    """Return what a call takes where nothing disturbs it: 1 % of the calls are quicker. Bootstrapped over rounds.

    Whatever else a machine does only ever adds to the time of a call, and comes and goes over minutes: of runs made
    apart the medians differ by a tenth, the quickest calls by a hundredth (Chen and Revels 2016; docs/latency.md).
    """
    rng = np.random.default_rng(seed)
    rounds = len(samples)
    chosen = samples[rng.integers(0, rounds, (RESAMPLES // 10, rounds))]
    again = np.quantile(chosen.reshape(len(chosen), -1), UNDISTURBED, axis=1)
    low, high = np.quantile(again, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(float(np.quantile(samples, UNDISTURBED)), float(low), float(high))


def quotient(new: Interval, old: Interval) -> Ratio:
    """Return new over old, which were measured apart: the logarithms' distances to their bounds add up in squares."""
    value = new.value / old.value
    down = np.hypot(np.log(new.value / new.low), np.log(old.high / old.value))
    up = np.hypot(np.log(new.high / new.value), np.log(old.value / old.low))
    return Ratio(value, float(value * np.exp(-down)), float(value * np.exp(up)))


def round_medians(samples: Samples) -> Samples:
    """Return the median of each round, (rounds,)."""
    return np.asarray(np.median(samples, axis=1))


def spread(medians: Samples) -> float:
    """Return by what fraction rounds differ: the range from the 10th to the 90th percentile over the median."""
    low, middle, high = np.quantile(medians, (0.1, 0.5, 0.9))
    return float((high - low) / middle)


# In quotes: NumPy imports its random module on first use, and what only starts and reads never does.
def _resampled_medians(rounds: Samples, rng: "np.random.Generator") -> Samples:
    chosen = rng.integers(0, len(rounds), (RESAMPLES, len(rounds)))
    return np.asarray(np.median(rounds[chosen], axis=1))


def _binomial_cdfs(n: int, p: float) -> Samples:
    """Return P(X <= k) of a binomial X for k = 0 ... n."""
    k = np.arange(1, n + 1)
    log_pmf = np.concatenate(([0.0], np.cumsum(np.log((n - k + 1) / k)))) + np.arange(n + 1) * np.log(p)
    log_pmf += (n - np.arange(n + 1)) * np.log1p(-p)
    return np.asarray(np.minimum(1.0, np.cumsum(np.exp(log_pmf))))
