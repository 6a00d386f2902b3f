"""Answers of two sides -> which flipped, where, and how sure the eager model was. Second layer of a verdict."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.goldens import SYNTHETIC
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES

# Characters that people confuse too.
CONFUSABLE = ("17", "49", "35", "06", "0O", "1lI", "5S", "2Z")


@dataclass(frozen=True)
class Decisions:
    """Two sides' answers to the same images.

    `flips` images whose top class differs; the eager side's logit distance between its two best classes is the margin
    of each. `directions` counts them: right_to_wrong, wrong_to_right, wrong_to_wrong, and unlabelled where no label is
    known. `kl` is the divergence of the probabilities from the eager ones, nats an image: mean, p99, max.
    """

    n: int
    flips: int
    directions: dict[str, int]
    flip_margins: tuple[float, ...]
    kl: dict[str, float]
    worst_class: dict[str, Any] | None
    confusable: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        margins = np.array(self.flip_margins)
        return {
            "kl_nats": self.kl,
            "flip_margins": None
            if not len(margins)
            else {"min": float(margins.min()), "median": float(np.median(margins)), "max": float(margins.max())},
            "worst_class": self.worst_class,
            "confusable": self.confusable,
        }


def compare_decisions(expected: Arrays, found: Arrays, labels: npt.NDArray[np.int64], label_set: str) -> Decisions:
    """Compare the top classes of two sides, finite outputs (N, classes) each; labels int64 (N,), -1 where unknown."""
    theirs, ours = expected[LOGITS].argmax(axis=1), found[LOGITS].argmax(axis=1)
    flipped, known = theirs != ours, labels != SYNTHETIC
    was_right, is_right = (theirs == labels) & known, (ours == labels) & known
    top_two = np.sort(expected[LOGITS][flipped].astype(np.float64), axis=1)[:, -2:]
    divergence = _divergence(expected[PROBABILITIES], found[PROBABILITIES])
    return Decisions(
        n=len(labels),
        flips=int(flipped.sum()),
        directions={
            "right_to_wrong": int((flipped & was_right).sum()),
            "wrong_to_right": int((flipped & is_right).sum()),
            "wrong_to_wrong": int((flipped & known & ~was_right & ~is_right).sum()),
            "unlabelled": int((flipped & ~known).sum()),
        },
        flip_margins=tuple((top_two[:, 1] - top_two[:, 0]).tolist()),
        kl={
            "mean": float(divergence.mean()),
            "p99": float(np.quantile(divergence, 0.99)),
            "max": float(divergence.max()),
        },
        worst_class=_worst_class(theirs, ours, labels, label_set),
        confusable=_confusable(theirs, ours, labels, label_set),
    )


def _divergence(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return KL(expected || found) of each row, in nats."""
    tiny = 1e-30
    p, q = expected.astype(np.float64), np.maximum(found.astype(np.float64), tiny)
    return np.asarray(np.maximum(0.0, (p * (np.log(np.maximum(p, tiny)) - np.log(q))).sum(axis=1)))


def _worst_class(
    theirs: npt.NDArray[np.intp], ours: npt.NDArray[np.intp], labels: npt.NDArray[np.int64], label_set: str
) -> dict[str, Any] | None:
    """Return the class that loses most accuracy, of those that lose any; None if none does."""
    worst, loss = None, 0.0
    for number, label in enumerate(label_set):
        inside = labels == number
        if not inside.any():
            continue
        before, after = (float((side[inside] == number).mean()) for side in (theirs, ours))
        if before - after > loss:
            loss = before - after
            n, flips = int(inside.sum()), int((theirs[inside] != ours[inside]).sum())
            worst = {"label": label, "n": n, "flips": flips, "accuracy": after, "eager_accuracy": before}
    return worst


def _confusable(
    theirs: npt.NDArray[np.intp], ours: npt.NDArray[np.intp], labels: npt.NDArray[np.int64], label_set: str
) -> list[dict[str, Any]]:
    """Return for each group of look-alikes in the label set how often one was taken for another, and how many flips."""
    groups = []
    for group in CONFUSABLE:
        members = [label_set.index(c) for c in group if c in label_set]
        if len(members) < 2:
            continue
        a, b, true = (np.isin(side, members) for side in (theirs, ours, labels))
        groups.append(
            {
                "characters": "/".join(label_set[m] for m in members),
                "flips": int((a & b & (theirs != ours)).sum()),
                "errors": int((b & true & (ours != labels)).sum()),
                "eager_errors": int((a & true & (theirs != labels)).sum()),
            }
        )
    return groups
