"""Right and wrong of two sides on labelled images -> may the one be worse by more than the margin? Third layer.

Three rates are compared, paired image by image and clustered by writer where writers are known: accuracy; answers that
are read wrongly at the shipped rejection threshold; and answers that are read at all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.goldens import SYNTHETIC
from hwr_export.paired import PairedDifference, against_margin, needed_n, paired_difference
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.statistics import expected_calibration_error

# A blank costs a look, a wrong answer a wrong record: this many blanks weigh as much as one.
BLANKS_FOR_AN_ERROR = 10


@dataclass(frozen=True)
class Rate:
    """One rate, higher is better, exported minus eager; `margin` a fraction that it may lose."""

    name: str
    found: PairedDifference
    margin: float

    @property
    def verdict(self) -> str:
        return against_margin(self.found, self.margin)

    @property
    def needed_n(self) -> int | None:
        return needed_n(self.found, self.margin)


@dataclass(frozen=True)
class Task:
    """What the exported model does to the task, on `n` labelled images by `writers` people (None if unknown)."""

    n: int
    writers: int | None
    rates: tuple[Rate, ...]
    ece: tuple[float, float]
    threshold: float
    read: tuple[float, float]
    error_of_read: tuple[float, float]

    @property
    def accuracy(self) -> Rate:
        return self.rates[0]

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "writers": self.writers,
            "rates": {r.name: rate_json(r) | {"verdict": r.verdict} for r in self.rates},
            "ece": {"eager": self.ece[0], "exported": self.ece[1], "drift": self.ece[1] - self.ece[0]},
            "rejection": {
                "threshold": self.threshold,
                "eager": {"read": self.read[0], "error_of_read": self.error_of_read[0]},
                "exported": {"read": self.read[1], "error_of_read": self.error_of_read[1]},
            },
        }


def rate_json(rate: Rate) -> dict[str, Any]:
    """Return a rate in points: the difference, its one-sided 95 % bounds, the margin, and images still needed."""
    return {
        "delta_pt": 100 * rate.found.difference,
        "ci_pt": [100 * rate.found.lower, 100 * rate.found.upper],
        "margin_pt": 100 * rate.margin,
        "needed_n": rate.needed_n,
        "design_effect": rate.found.design_effect,
    }


def compare_task(
    expected: Arrays,
    found: Arrays,
    labels: npt.NDArray[np.int64],
    writers: npt.NDArray[np.int32] | None,
    reject_below: float,
    margin: float,
) -> Task | None:
    """Compare what two sides get right, finite outputs (N, classes) each; None where no image has a label."""
    known = labels != SYNTHETIC
    if not known.any():
        return None
    labels = labels[known]
    clusters = None if writers is None else writers[known]
    old, new = (_Side.of(side, labels, known, reject_below) for side in (expected, found))

    def rate(name: str, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], allowed: float) -> Rate:
        return Rate(name, paired_difference(after, before, clusters), allowed)

    return Task(
        n=len(labels),
        writers=None if clusters is None else len(np.unique(clusters)),
        rates=(
            rate("accuracy", old.right, new.right, margin),
            rate("not read wrongly", ~old.read | old.right, ~new.read | new.right, margin),
            rate("read correctly", old.read & old.right, new.read & new.right, BLANKS_FOR_AN_ERROR * margin),
        ),
        ece=(old.ece, new.ece),
        threshold=reject_below,
        read=(float(old.read.mean()), float(new.read.mean())),
        error_of_read=(old.error_of_read, new.error_of_read),
    )


@dataclass(frozen=True)
class _Side:
    """What one side does: `right` and `read` (accepted at the threshold), bool (N,)."""

    right: npt.NDArray[np.bool_]
    read: npt.NDArray[np.bool_]
    ece: float

    @classmethod
    def of(
        cls, outputs: Arrays, labels: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], reject_below: float
    ) -> "_Side":
        right, probabilities = outputs[LOGITS][known].argmax(axis=1) == labels, outputs[PROBABILITIES][known]
        return cls(right, probabilities.max(axis=1) >= reject_below, expected_calibration_error(probabilities, labels))

    @property
    def error_of_read(self) -> float:
        return float((~self.right[self.read]).mean()) if self.read.any() else 0.0


def judge_task(task: Task) -> tuple[list[str], list[str]]:
    """Return why the task refuses the file, and why it cannot tell; nothing of either if it accepts it."""
    failed, open_ = [], []
    for rate in task.rates:
        low, high = 100 * rate.found.lower, 100 * rate.found.upper
        text = f"{rate.name} changes by {100 * rate.found.difference:+.3f} points on {task.n:,} images"
        allowed = f"the margin of {100 * rate.margin:g}"
        if rate.verdict == "FAIL":
            failed.append(f"{text}: worse than {allowed} by the upper bound {high:+.3f} (95 %)")
        elif rate.verdict == "UNDECIDED":
            open_.append(f"{text}: the lower bound {low:+.3f} (95 %) is beyond {allowed}; {_more(rate.needed_n)}")
    return failed, open_


def _more(needed: int | None) -> str:
    if needed is None:
        return "no number of images would decide, the difference is the margin itself"
    return f"about {needed:,} more images like these would decide"
