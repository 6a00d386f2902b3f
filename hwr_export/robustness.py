"""Answers of two sides under every scanner condition -> may the one be worse anywhere? Part of the third layer.

Looking 22 times, at each of 21 conditions and at all together, finds a difference by luck: each refuses a file only at
the level divided by 22 (Bonferroni), so that an equal file is refused in 5 % of cases at the very most. Accepting needs
one test alone: of all conditions together, clustered by writer (or by image), against 0.1 point or the margin.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.corruptions import KINDS
from hwr_export.paired import CONFIDENCE, PairedDifference, against_margin, needed_n, paired_difference

# Accuracy that may go under all conditions together, a fraction, where the margin is finer: images that are hard to
# read flip more, and no sample of a size that can be run on every change resolves less.
FINEST = 0.001


@dataclass(frozen=True)
class Condition:
    """Two sides' answers to the same corrupted images; all (N,)."""

    kind: str
    strength: float
    eager: npt.NDArray[np.int64]
    exported: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Robustness:
    """Each condition's difference at the adjusted level, and that of all together, plain to accept and adjusted to
    refuse; `margin` a fraction."""

    conditions: tuple[tuple[Condition, PairedDifference], ...]
    together: PairedDifference
    together_adjusted: PairedDifference
    margin: float
    images: int

    @property
    def flips(self) -> int:
        return sum(int((c.eager != c.exported).sum()) for c, _ in self.conditions)

    @property
    def accepted(self) -> float:
        """The loss under all conditions together that must be excluded to accept."""
        return max(self.margin, FINEST)

    @property
    def needed_n(self) -> int | None:
        """Further images that would decide; each is judged under every condition."""
        needed = needed_n(self.together, self.accepted) if self.flips else 0
        return None if needed is None else -(-needed // len(self.conditions))

    def as_json(self) -> dict[str, Any]:
        failed, open_ = judge_robustness(self)
        return {
            "verdict": "FAIL" if failed else "UNDECIDED" if open_ else "PASS",
            "n": self.images,
            "margin_pt": 100 * self.margin,
            "accepted_pt": 100 * self.accepted,
            "delta_pt": 100 * self.together.difference,
            "ci_pt": [100 * self.together.lower, 100 * self.together.upper],
            "design_effect": self.together.design_effect,
            "flips": self.flips,
            "needed_n": self.needed_n,
            "confidence_to_refuse": self.conditions[0][1].confidence,
            "conditions": [
                {
                    "kind": c.kind,
                    "strength": c.strength,
                    "unit": KINDS[c.kind].unit,
                    "flips": int((c.eager != c.exported).sum()),
                    "delta_pt": 100 * found.difference,
                    "ci_pt": [100 * found.lower, 100 * found.upper],
                    "verdict": "FAIL" if against_margin(found, self.margin) == "FAIL" else "not worse",
                }
                for c, found in self.conditions
            ],
        }


def compare_conditions(
    conditions: list[Condition],
    labels: npt.NDArray[np.int64],
    writers: npt.NDArray[np.int32] | None,
    margin: float,
) -> Robustness:
    """Compare what two sides get right under every condition; labels int64 (N,), the same for all of them."""
    clusters = np.arange(len(labels)) if writers is None else writers
    adjusted = 1 - (1 - CONFIDENCE) / (len(conditions) + 1)
    right = [(c.exported == labels, c.eager == labels) for c in conditions]
    each = tuple(
        (c, paired_difference(new, old, writers, adjusted)) for c, (new, old) in zip(conditions, right, strict=True)
    )
    new, old = (np.concatenate(side) for side in zip(*right, strict=True))
    repeated = np.tile(clusters, len(conditions)).astype(np.int64)
    plain, strict = (paired_difference(new, old, repeated, level) for level in (CONFIDENCE, adjusted))
    return Robustness(each, plain, strict, margin, len(labels))


def judge_robustness(found: Robustness) -> tuple[list[str], list[str]]:
    """Return why the conditions refuse the file, and why they cannot tell; nothing of either if they accept it."""
    margin = f"the margin of {100 * found.margin:g}"
    failed = [
        f"under {c.kind} {c.strength:g} {KINDS[c.kind].unit} accuracy changes by {100 * d.difference:+.2f} points on "
        f"{found.images:,} images: worse than {margin} by the upper bound {100 * d.upper:+.2f}"
        for c, d in found.conditions
        if against_margin(d, found.margin) == "FAIL"
    ]
    text = f"under all scanner conditions together accuracy changes by {100 * found.together.difference:+.3f} points"
    upper = found.together_adjusted.upper
    if upper < -found.margin:
        failed.append(f"{text}: worse than {margin} by the upper bound {100 * upper:+.3f}")
    if failed or not found.flips or found.together.lower > -found.accepted:
        return failed, []
    more = (
        "no number of images would decide" if found.needed_n is None else f"about {found.needed_n:,} more would decide"
    )
    beyond = f"the lower bound {100 * found.together.lower:+.3f} is beyond {100 * found.accepted:g}"
    return [], [f"{text} on {found.images:,} images: {beyond}; {more} (--corrupted)"]
