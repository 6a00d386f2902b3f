"""Numbers of a comparison -> PASS, FAIL or UNDECIDED, each with its reasons. No I/O, no backend, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwr_export.goldens import Goldens
from hwr_export.statistics import rate_upper_bound

Verdict = Literal["PASS", "FAIL", "UNDECIDED"]
EXIT_CODE: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "UNDECIDED": 3}

NOISE_FACTOR = 10
MIN_IMAGES = 100


@dataclass(frozen=True)
class Tolerance:
    """Largest logit difference that rounding explains, and why."""

    value: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What was measured of one file on one backend.

    `flips` are images whose top class differs; `flip_margins` the eager model's top-two logit margin of each.
    `broken` are findings that no number excuses: a hash, a crash, a wrong shape, a batch that was not refused.
    """

    n: int
    flips: int
    flip_margins: tuple[float, ...]
    max_abs_logit_diff: float
    tolerance: Tolerance
    broken: tuple[str, ...] = ()


def tolerance_from_goldens(goldens: Goldens) -> Tolerance:
    """Derive the tolerance for a float32 file from the model's own rounding noise.

    The distance between the eager model in float32 and in float64 is what float32 arithmetic costs this network.
    Another order of the same operations may cost as much again, and the largest of 10,000 images exceeds the largest
    of the goldens, hence a factor; a defect moves logits by orders of magnitude more.
    """
    eps_floor = float(2.0**-21 * np.abs(goldens.logits).max())
    noise = max(goldens.noise_floor, eps_floor)
    return Tolerance(
        NOISE_FACTOR * noise,
        f"{NOISE_FACTOR} x {noise:.2g}, the distance between the eager model in float32 and float64 "
        f"on {len(goldens)} goldens",
    )


def judge(comparison: Comparison) -> tuple[Verdict, list[str]]:
    """Decide one cell.

    FAIL: anything broken, a difference beyond the tolerance, or a flip that rounding does not explain. UNDECIDED: flips
    between classes that the eager model itself holds within rounding of each other, or too few images to say anything.
    """
    reasons = list(comparison.broken)
    tolerance = comparison.tolerance.value
    if not comparison.max_abs_logit_diff <= tolerance:  # NaN fails too
        reasons.append(f"largest logit difference {comparison.max_abs_logit_diff:.3g} is above {tolerance:.3g}")
    clear = [m for m in comparison.flip_margins if m > 2 * tolerance]
    if clear:
        reasons.append(
            f"{comparison.flips} of {comparison.n} images change their answer, {len(clear)} of them where the eager "
            f"model was sure (logit margin up to {max(clear):.3g})"
        )
    if reasons:
        return "FAIL", reasons
    if comparison.flips:
        return "UNDECIDED", [
            (
                f"{comparison.flips} of {comparison.n} images change their answer, all where the eager model's two "
                "best classes are within rounding of each other"
            )
        ]
    if comparison.n < MIN_IMAGES:
        bound = 100 * rate_upper_bound(0, comparison.n)
        return "UNDECIDED", [
            (
                f"only {comparison.n} images: no flip among them bounds the flip rate at {bound:.1f} % (95 %); "
                f"compare at least {MIN_IMAGES}"
            )
        ]
    return "PASS", []


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """FAIL if any failed, else UNDECIDED if any (or none was reached), else PASS."""
    if "FAIL" in verdicts:
        return "FAIL"
    if "UNDECIDED" in verdicts or not verdicts:
        return "UNDECIDED"
    return "PASS"
