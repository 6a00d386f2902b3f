"""Answers of two sides under every scanner condition -> may the one be worse anywhere? Part of the third layer.

Looking at 21 conditions finds a difference by luck: a single condition refuses a file only at the level divided by
their number (Bonferroni), so that all of them together refuse an equal file in 5 % of cases at the very most. Accepting
needs one test alone, of all conditions together, clustered by writer (or by image), against the same margin.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.corruptions import KINDS
from hwr_export.paired import CONFIDENCE, PairedDifference, against_margin, needed_n, paired_difference


@dataclass(frozen=True)
class Condition:
    """Two sides' answers to the same corrupted images; all (N,)."""

    kind: str
    strength: float
    eager: npt.NDArray[np.int64]
    exported: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Robustness:
    """Each condition's difference at the adjusted level, and that of all together."""

    conditions: tuple[tuple[Condition, PairedDifference], ...]
    together: PairedDifference
    margin: float
    images: int

    @property
    def flips(self) -> int:
        return sum(int((c.eager != c.exported).sum()) for c, _ in self.conditions)

    @property
    def needed_n(self) -> int | None:
        """Further images that would decide; each is judged under every condition."""
        needed = needed_n(self.together, self.margin) if self.flips else 0
        return None if needed is None else -(-needed // len(self.conditions))

    def as_json(self) -> dict[str, Any]:
        failed, open_ = judge_robustness(self)
        return {
            "verdict": "FAIL" if failed else "UNDECIDED" if open_ else "PASS",
            "n": self.images,
            "margin_pt": 100 * self.margin,
            "delta_pt": 100 * self.together.difference,
            "ci_pt": [100 * self.together.lower, 100 * self.together.upper],
            "design_effect": self.together.design_effect,
            "flips": self.flips,
            "needed_n": self.needed_n,
            "confidence_of_one": self.conditions[0][1].confidence,
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
    adjusted = 1 - (1 - CONFIDENCE) / len(conditions)
    each = tuple((c, paired_difference(c.exported == labels, c.eager == labels, writers, adjusted)) for c in conditions)
    together = paired_difference(
        np.concatenate([c.exported == labels for c in conditions]),
        np.concatenate([c.eager == labels for c in conditions]),
        np.tile(clusters, len(conditions)),
    )
    return Robustness(each, together, margin, len(labels))


def judge_robustness(found: Robustness) -> tuple[list[str], list[str]]:
    """Return why the conditions refuse the file, and why they cannot tell; nothing of either if they accept it."""
    margin = f"the margin of {100 * found.margin:g}"
    failed = [
        f"under {c.kind} {c.strength:g} {KINDS[c.kind].unit} accuracy changes by {100 * d.difference:+.2f} points on "
        f"{found.images:,} images: worse than {margin} by the upper bound {100 * d.upper:+.2f}"
        for c, d in found.conditions
        if against_margin(d, found.margin) == "FAIL"
    ]
    verdict = against_margin(found.together, found.margin)
    text = f"under all scanner conditions together accuracy changes by {100 * found.together.difference:+.3f} points"
    if verdict == "FAIL":
        failed.append(f"{text}: worse than {margin} by the upper bound {100 * found.together.upper:+.3f}")
    if failed or verdict == "PASS" or not found.flips:
        return failed, []
    more = (
        "no number of images would decide" if found.needed_n is None else f"about {found.needed_n:,} more would decide"
    )
    lower = f"{100 * found.together.lower:+.3f}"
    return [], [f"{text} on {found.images:,} images: the lower bound {lower} is beyond {margin}; {more} (--corrupted)"]
