import numpy as np
import pytest

from hwr_export.goldens import Goldens
from hwr_export.numbers import Tolerance, compare_outputs, judge_numbers, tolerance_from_goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.statistics import softmax

TOLERANCE = Tolerance(1e-4, "made", {})
T = 1.5


def outputs(n: int = 200, move: float = 0.0) -> Arrays:
    logits = np.random.default_rng(0).normal(0, 3, (n, 10)).astype(np.float32)
    logits[0, 0] += move
    return {LOGITS: logits, PROBABILITIES: softmax(logits, T).astype(np.float32)}


def load(release: Release) -> Goldens:
    return Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)


def test_equal_outputs_are_equal() -> None:
    found = compare_outputs(outputs(), outputs(), T)
    assert judge_numbers(found, TOLERANCE) == []
    logits = found.as_json()[LOGITS]
    assert (logits["shape"], logits["dtype"], logits["max"], logits["mean"]) == ([200, 10], "float32", 0.0, 0.0)
    assert logits["cosine_min"] == pytest.approx(1)


def test_differences_are_measured() -> None:
    found = compare_outputs(outputs(), outputs(move=2.0), T)
    logits = found.outputs[LOGITS]
    assert logits.max == pytest.approx(2)
    assert logits.mean == pytest.approx(2 / 2000)
    assert logits.p99 == 0
    assert logits.cosine_min < 1
    assert judge_numbers(found, TOLERANCE) == ["largest logit difference 2 is above 0.0001"]
    assert judge_numbers(found, None) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda o: o | {LOGITS: o[LOGITS][:, :9]}, "expected float32 (200, 10)"),
        (lambda o: o | {LOGITS: o[LOGITS].astype(np.float64)}, "logits is float64"),
        (lambda o: o | {LOGITS: o[LOGITS] * np.inf}, "logits holds NaN or infinity"),
        (lambda o: o | {PROBABILITIES: o[PROBABILITIES] * np.nan}, "probabilities holds NaN"),
        (lambda o: o | {PROBABILITIES: np.roll(o[PROBABILITIES], 1, axis=1)}, "not the softmax of logits / 1.5"),
        (lambda o: o | {PROBABILITIES: o[PROBABILITIES] * 2}, "not the softmax"),
        (lambda o: o | {PROBABILITIES: softmax(o[LOGITS]).astype(np.float32)}, "not the softmax"),
    ],
)
@pytest.mark.parametrize("tolerance", [TOLERANCE, None])
def test_outputs_of_the_wrong_kind_fail_at_any_precision(spoil, reason: str, tolerance: Tolerance | None) -> None:
    precision = "fp32" if tolerance else "int8"
    found = compare_outputs(outputs(), spoil(outputs()), T, precision)
    assert any(reason in r for r in judge_numbers(found, tolerance))


def test_the_tolerance_comes_from_the_models_own_noise(release: Release) -> None:
    goldens = load(release)
    tolerance = tolerance_from_goldens(goldens)
    assert tolerance.value >= 10 * goldens.noise_floor > 0
    assert tolerance.value < 1e-2
    assert tolerance.noise["float64"] == goldens.noise_floor
    noisier = tolerance_from_goldens(goldens, measured={"batch": 1.0, "threads": 0.5})
    assert noisier.value == 10
    assert "batches of the eager model on 256 goldens" in noisier.reason


def test_half_precision_rounds_as_the_derivation_says(release: Release) -> None:
    import torch

    from hwr_export.checkpoint import load_checkpoint

    goldens = load(release)
    half = load_checkpoint(release.path).module.half()
    with torch.inference_mode():
        logits = half(torch.tensor(goldens.preprocessed).half()).float().numpy()
    noise = np.abs(logits - goldens.logits_float64).max()
    tolerance = tolerance_from_goldens(goldens, "fp16")
    assert tolerance.value / 100 < noise < tolerance.value / 2
    assert "x 8192 as fp16 rounds" in tolerance.reason
