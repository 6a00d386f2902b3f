"""Outputs of two sides -> how far apart they are, and how far rounding explains. First layer of a verdict.

The tolerance of a float file is derived from this very network's rounding noise and says how. An integer file moves
every number on purpose: there differences are reported, and decisions and the task decide.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.goldens import Goldens
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, OUTPUTS, PROBABILITIES
from hwr_export.statistics import softmax

NOISE_FACTOR = 10
# Rounding unit of a precision over that of float32; what is not here is reported, not gated.
UNIT_RATIO = {"fp32": 1, "fp16": 2**13, "bf16": 2**16}
# How far a file's probabilities may be from the softmax of its own logits: one step of 8 bits where it has integers.
SOFTMAX_SLACK = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1e-2}
INTEGER_SLACK = 1e-2


@dataclass(frozen=True)
class Tolerance:
    """Largest logit difference that rounding explains, why, and the noise it was derived from."""

    value: float
    reason: str
    noise: Mapping[str, float]


@dataclass(frozen=True)
class OutputNumbers:
    """One output of one file on one backend against the eager model's; differences are absolute, None if not finite."""

    shape: tuple[int, ...]
    dtype: str
    finite: bool
    max: float | None
    mean: float | None
    p99: float | None
    cosine_min: float | None


@dataclass(frozen=True)
class Numbers:
    """Every output's differences; `broken` are findings that no tolerance excuses."""

    outputs: dict[str, OutputNumbers]
    broken: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether there are answers to compare: every output has the shape it should have and is finite."""
        return all(o.finite for o in self.outputs.values())

    def as_json(self) -> dict[str, Any]:
        return {name: asdict(found) | {"shape": list(found.shape)} for name, found in self.outputs.items()}


def tolerance_from_goldens(
    goldens: Goldens, precision: str = "fp32", measured: Mapping[str, float] | None = None
) -> Tolerance:
    """Derive the logit tolerance of a float file (a precision in UNIT_RATIO) from the model's own rounding noise.

    The distance between the eager model in float32 and in float64 is what float32 arithmetic costs this network;
    `measured` adds what other orders of the same sums cost (other batches, other thread counts). Another runtime may
    cost as much again, and the largest of 10,000 images exceeds the largest of the goldens, hence a factor. fp16 rounds
    2^13 times as coarsely, bf16 2^16, each time where float32 rounds, so its noise is that many times as large.
    """
    ratio = UNIT_RATIO[precision]
    noise = {"float64": goldens.noise_floor, **(measured or {})}
    # A program that casts to float32 by itself shows no noise; four units of its largest logit stand in for it.
    noise["rounding_unit"] = float(2.0**-21 * np.abs(goldens.logits).max()) if ratio == 1 else 0.0
    largest = max(noise.values()) or float(2.0**-24 * np.abs(goldens.logits).max())
    where = max(noise, key=lambda name: noise[name])
    source = {
        "float64": "the distance between the eager model in float32 and float64",
        "batch": "the distance between batches of the eager model",
        "threads": "the distance between thread counts of the eager model",
        "rounding_unit": "four rounding units of the largest logit, above the eager model's distance to float64",
    }[where]
    scale = "" if ratio == 1 else f", x {ratio} as {precision} rounds"
    return Tolerance(
        NOISE_FACTOR * ratio * largest,
        f"{NOISE_FACTOR} x {largest:.2g}, {source} on {len(goldens)} goldens{scale}",
        noise,
    )


def compare_outputs(expected: Arrays, found: Arrays, temperature: float, precision: str = "fp32") -> Numbers:
    """Compare outputs, each (N, classes), image by image."""
    broken, outputs = [], {}
    for name in OUTPUTS:
        theirs, ours = expected[name], found[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            broken.append(f"{name} is {ours.dtype} {ours.shape}, expected {theirs.dtype} {theirs.shape}")
            outputs[name] = OutputNumbers(ours.shape, str(ours.dtype), False, None, None, None, None)
            continue
        outputs[name] = _output_numbers(theirs.astype(np.float64), ours)
        if not outputs[name].finite:
            broken.append(f"{name} holds NaN or infinity")
    numbers = Numbers(outputs, tuple(broken))
    if numbers.usable:
        slack = SOFTMAX_SLACK.get(precision, INTEGER_SLACK)
        apart = float(np.abs(softmax(found[LOGITS], temperature) - found[PROBABILITIES]).max())
        if apart > slack:
            worse = (
                f"probabilities are not the softmax of logits / {temperature:g}: up to {apart:.3g} apart, "
                f"expected {slack:g}"
            )
            return Numbers(outputs, (*broken, worse))
    return numbers


def judge_numbers(numbers: Numbers, tolerance: Tolerance | None) -> list[str]:
    """Return why the numbers alone refuse the file; nothing if they do not."""
    reasons = list(numbers.broken)
    found = numbers.outputs[LOGITS]
    if tolerance and found.finite and not (found.max or 0.0) <= tolerance.value:
        reasons.append(f"largest logit difference {found.max:.3g} is above {tolerance.value:.3g}")
    return reasons


def _output_numbers(theirs: npt.NDArray[np.float64], ours: npt.NDArray[Any]) -> OutputNumbers:
    kind = (tuple(ours.shape), str(ours.dtype))
    ours = ours.astype(np.float64)
    if not np.isfinite(ours).all():
        return OutputNumbers(*kind, False, None, None, None, None)
    difference = np.abs(theirs - ours)
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
    cosine = np.divide((theirs * ours).sum(axis=1), lengths, out=np.zeros(len(ours)), where=lengths > 0)
    return OutputNumbers(
        *kind,
        True,
        float(difference.max()),
        float(difference.mean()),
        float(np.quantile(difference, 0.99)),
        float(cosine.min()),
    )
