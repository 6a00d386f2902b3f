"""Release + data -> may the ONNX file replace the eager model? One cell a backend and precision, written as evidence.

Never skips: what cannot be loaded or run is a FAIL with its reason. Without the eager baseline (no torch) the goldens
carry the eager answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwr_export.card import write_card
from hwr_export.datasets import load_dataset
from hwr_export.errors import ParityError, RunnerError, UsageError
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.release import GOLDENS, PARITY, ManifestFile, Release
from hwr_export.runners import ONNX_BACKENDS, Arrays, Runner, installed, onnx_runner
from hwr_export.spec import INPUT, LOGITS, OUTPUTS, PROBABILITIES
from hwr_export.statistics import rate_upper_bound
from hwr_export.verdict import Comparison, Tolerance, Verdict, judge, overall, tolerance_from_goldens

Baseline = Literal["eager", "goldens"]


@dataclass(frozen=True)
class ParityConfig:
    """`data` names a dataset whose test split is read; with the baseline `goldens` it is not read."""

    data: str = "mnist"
    data_root: Path | None = None
    baseline: Baseline = "eager"
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The eager answers to compare with: `images` uint8 (N, H, W), `labels` int64 (N,), outputs of the eager model."""

    name: str
    sha256: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    outputs: Arrays


def parity(release: Release, config: ParityConfig, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Compare every ONNX file of a release on every installed backend, write `parity.json`, return its document.

    Raises:
        UsageError: a backend or the baseline that was asked for is not installed.
        ReleaseError: the goldens are missing or changed.
        DataError: the dataset is missing.
        ParityError: the release holds nothing to compare.
    """
    release.require_writable()
    backends = choose_backends(config.backends)
    models = release.by_role("onnx")
    if not models:
        raise ParityError(f"{release.path} has no ONNX file to compare; run `hwr-export onnx`")
    goldens_file = release.entry(GOLDENS)
    if goldens_file is None:
        raise ParityError(f"{release.path} has no {GOLDENS}; run `hwr-export onnx` again")
    goldens = Goldens.from_bytes(release.read(goldens_file), str(release.path / GOLDENS))
    reference = _reference(release, config, goldens, say)
    tolerance = tolerance_from_goldens(goldens)

    cells = []
    for model in models:
        for backend in backends:
            say(f"comparing {model.path} on {backend} with {len(reference.images):,} answers of the eager model")
            cells.append(_cell(release, model, backend, reference, goldens, tolerance))
    document = {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "data": {"name": reference.name, "n": len(reference.images), "sha256": reference.sha256},
        "baseline": config.baseline,
        "verdict": overall([cell["verdict"] for cell in cells]),
        "cells": cells,
    }
    with release.change() as change:
        change.write(PARITY, json_bytes(document), "parity", [*(m.sha256 for m in models), goldens_file.sha256])
        write_card(change)
    return document


def choose_backends(wanted: Sequence[str]) -> list[str]:
    """Return the backends asked for, or all that are installed.

    Raises:
        UsageError: one is unknown or not installed, or there is none.
    """
    for backend in wanted:
        if backend not in ONNX_BACKENDS:
            raise UsageError(f"there is no backend {backend!r}; known: {', '.join(ONNX_BACKENDS)}")
        if not installed(backend):
            raise UsageError(f"{backend} is not installed: pip install 'hwr-export[{ONNX_BACKENDS[backend][2]}]'")
    chosen = list(wanted) or [b for b in ONNX_BACKENDS if installed(b)]
    if not chosen:
        raise UsageError("no backend is installed to compare with: pip install 'hwr-export[cpu]'")
    return chosen


def compare(reference: Reference, outputs: Arrays, tolerance: Tolerance, broken: Sequence[str] = ()) -> Comparison:
    """Compare outputs with the reference's, image by image."""
    theirs, ours = np.asarray(reference.outputs[LOGITS]), np.asarray(outputs[LOGITS])
    broken = list(broken)
    for name in OUTPUTS:
        expected, found = reference.outputs[name], outputs[name]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            broken.append(f"{name} is {found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}")
            return Comparison(len(theirs), len(theirs), (), float("inf"), tolerance, tuple(broken))
        if not np.isfinite(found.astype(np.float64)).all():
            broken.append(f"{name} holds NaN or infinity")
    flipped = theirs.argmax(1) != ours.argmax(1)
    top_two = np.sort(theirs[flipped], axis=1)[:, -2:]
    probabilities = outputs[PROBABILITIES]
    if (probabilities.argmax(1) != ours.argmax(1)).any() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        broken.append("probabilities are not the softmax of logits")
    return Comparison(
        n=len(theirs),
        flips=int(flipped.sum()),
        flip_margins=tuple((top_two[:, 1] - top_two[:, 0]).tolist()),
        max_abs_logit_diff=float(np.abs(theirs - ours).max()),
        tolerance=tolerance,
        broken=tuple(broken),
    )


def try_batches(
    runner: Runner, images: npt.NDArray[np.uint8], tolerance: Tolerance
) -> tuple[dict[str, str], list[str]]:
    """Run batches of 1, 2, 7 and max, which must answer alike, and max + 1, which must be refused."""
    largest = runner.spec.max_batch
    pool = np.resize(images, (largest + 1, *images.shape[1:]))
    expected = np.concatenate([runner.infer({INPUT: pool[i : i + 1]})[LOGITS] for i in range(largest)])
    results, problems = {}, []
    for size in sorted({1, 2, min(7, largest), largest}):
        found = runner.infer({INPUT: pool[:size]})[LOGITS]
        difference = float(np.abs(found - expected[:size]).max()) if found.shape == expected[:size].shape else np.inf
        if difference <= tolerance.value:
            results[str(size)] = "ok"
        else:
            results[str(size)] = f"differs by {difference:.3g} from the same images one by one"
            problems.append(f"a batch of {size} {results[str(size)]}")
    try:
        runner.infer({INPUT: pool})
    except RunnerError:
        results[str(largest + 1)] = "refused"
    else:
        results[str(largest + 1)] = "not refused"
        problems.append(f"a batch of {largest + 1} was not refused")
    return results, problems


def _reference(release: Release, config: ParityConfig, goldens: Goldens, say: Callable[[str], None]) -> Reference:
    if config.baseline == "goldens":
        return _golden_reference(release, goldens)
    data = load_dataset(config.data, "test", config.data_root)
    spec = release.spec
    if data.label_set != spec.labels or data.images.shape[1:] != spec.image_shape:
        raise UsageError(
            f"{config.data} has the labels {data.label_set!r} at {data.images.shape[1]} x {data.images.shape[2]}, the "
            f"release {spec.labels!r} at {spec.image_shape[0]} x {spec.image_shape[1]}; use --baseline goldens"
        )
    try:
        from hwr_export.runners.eager import EagerRunner
    except ModuleNotFoundError as err:
        raise UsageError(
            f"the eager baseline needs {err.name}: pip install 'hwr-export[export]', or compare with the eager answers "
            "in the goldens: --baseline goldens"
        ) from err
    say(f"running the eager model on {len(data):,} images of {data.name}")
    with EagerRunner.from_release(release.path, spec) as eager:
        return Reference(data.name, data.sha256, data.images, data.labels, eager.infer_all(data.images))


def _golden_reference(release: Release, goldens: Goldens) -> Reference:
    entry = release.entry(GOLDENS)
    outputs = {LOGITS: goldens.logits, PROBABILITIES: goldens.probabilities}
    return Reference("goldens", entry.sha256 if entry else "", goldens.images, goldens.labels, dict(outputs))


def _cell(
    release: Release, model: ManifestFile, backend: str, reference: Reference, goldens: Goldens, tolerance: Tolerance
) -> dict[str, Any]:
    data = release.read_unverified(model)
    broken = []
    if sha256_bytes(data) != model.sha256:
        broken.append(f"{model.path} is not the file the manifest vouches for (sha256 {sha256_bytes(data)[:12]}…)")
    cell: dict[str, Any] = {"backend": backend, "precision": model.precision}
    try:
        with onnx_runner(backend, data, release.spec) as runner:
            cell["backend_version"] = runner.version()
            return cell | _measured(runner, reference, _golden_reference(release, goldens), tolerance, broken)
    except RunnerError as err:
        verdict: Verdict = "FAIL"
        return cell | {
            "verdict": verdict,
            "n": 0,
            "agreement": 0,
            "agreement_rate": 0.0,
            "accuracy": None,
            "eager_accuracy": _accuracy(reference.outputs[LOGITS], reference.labels),
            "max_abs_logit_diff": None,
            "mean_abs_logit_diff": None,
            "tolerance": tolerance.value,
            "tolerance_reason": tolerance.reason,
            "reasons": [*broken, str(err)],
        }


def _measured(
    runner: Runner, reference: Reference, golden: Reference, tolerance: Tolerance, broken: list[str]
) -> dict[str, Any]:
    batches, batch_problems = try_batches(runner, reference.images, tolerance)
    outputs = runner.infer_all(reference.images)
    golden_result = compare(golden, runner.infer_all(golden.images), tolerance)
    golden_verdict, golden_reasons = judge(golden_result)
    if golden_verdict == "FAIL":
        broken = [*broken, *(f"goldens: {reason}" for reason in golden_reasons)]
    result = compare(reference, outputs, tolerance, [*broken, *batch_problems])
    verdict, reasons = judge(result)
    agreement = result.n - result.flips
    comparable = outputs[LOGITS].shape == reference.outputs[LOGITS].shape
    difference = np.abs(outputs[LOGITS] - reference.outputs[LOGITS]) if comparable else None
    return {
        "verdict": verdict,
        "n": result.n,
        "agreement": agreement,
        "agreement_rate": agreement / result.n,
        "flip_rate_upper95": rate_upper_bound(result.flips, result.n),
        "accuracy": _accuracy(outputs[LOGITS], reference.labels) if comparable else None,
        "eager_accuracy": _accuracy(reference.outputs[LOGITS], reference.labels),
        "max_abs_logit_diff": _finite(result.max_abs_logit_diff),
        "mean_abs_logit_diff": None if difference is None else _finite(float(difference.mean())),
        "tolerance": tolerance.value,
        "tolerance_reason": tolerance.reason,
        "goldens": {
            "n": golden_result.n,
            "agreement": golden_result.n - golden_result.flips,
            "max_abs_logit_diff": _finite(golden_result.max_abs_logit_diff),
        },
        "batches": batches,
        "reasons": reasons,
    }


def _accuracy(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float | None:
    known = labels != SYNTHETIC
    return float((logits[known].argmax(1) == labels[known]).mean()) if known.any() else None


def _finite(value: float) -> float | None:
    """JSON has no NaN; the reasons say what happened."""
    return value if np.isfinite(value) else None
