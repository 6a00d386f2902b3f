"""Checkpoint (eager) or release (its ONNX file) + test part -> everything `evaluate` reports, machine-readable.

Reads test data, chooses nothing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from rich.console import Console

from hwr_export.checkpoint import CHECKPOINT_JSON, CheckpointInfo, load_checkpoint, read_info
from hwr_export.datasets import HW62_WARNING, WARNINGS, Dataset, content_sha256, load_dataset
from hwr_export.errors import DataError, UsageError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.labels import merged_cases
from hwr_export.release import MANIFEST, Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.statistics import (
    area_under_risk_coverage,
    clustered_interval,
    confidence_at_rejection,
    expected_calibration_error,
    reliability,
    risk_at_rejection,
    risk_coverage_curve,
    softmax,
    wilson_interval,
)
from train.charts import CONFUSION, RISK_COVERAGE, confusion_png, risk_coverage_png
from train.counted_garbage import real_letters, synthetic_garbage
from train.data import load_test
from train.recipe import DataRecipe

EVALUATION = "evaluation.json"
REJECTIONS = (0.01, 0.02, 0.03, 0.05)
GARBAGE_REJECTION = 0.03  # share of the characters given up for the second threshold that garbage is counted at
MANY_CLASSES = 10  # above it, whether the right one is among the best three says something

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def evaluate(path: Path, dataset: str | None, data_root: Path | None, console: Console) -> dict[str, Any]:
    """Return the machine-readable evaluation; remarks go to the console.

    Args:
        dataset: whose test part is read; None reads the test part that the model was held away from in training.

    Raises:
        DataError: the data is missing, not what the model was trained beside, or has none of its characters.
        UsageError: no dataset was named and the model does not say what it was trained on.
        CheckpointError: `path` is neither a release nor a checkpoint.
    """
    info = _provenance(path)
    data, left_out = _known_to(info.labels, _test_part(info, dataset, data_root))
    runner = open_runner(path)
    spec = runner.spec
    if data.images.shape[1:] != spec.image_shape:
        raise DataError(f"{data.name} has images of {data.images.shape[1:]} pixels, the model takes {spec.image_shape}")
    warning = HW62_WARNING if data.name in WARNINGS else None
    if warning:
        console.print(f"{warning}.")
    if left_out:
        console.print(f"left out {left_out:,} images of {data.name} whose character the model does not know")
    with runner:
        outputs = runner.infer_all(data.images)
        confidence = outputs[PROBABILITIES].max(axis=1)
        garbage = _garbage(runner, confidence_at_rejection(confidence, GARBAGE_REJECTION), data_root, console)
    answers = outputs[PROBABILITIES].argmax(axis=1)
    correct = answers == data.labels
    accepted = confidence >= spec.reject_below
    hits = int(correct.sum())
    before, after = softmax(outputs[LOGITS]), outputs[PROBABILITIES]
    counts = np.zeros((len(spec.labels), len(spec.labels)), dtype=np.int64)
    np.add.at(counts, (data.labels, answers), 1)
    coverage, risk = risk_coverage_curve(confidence, correct)
    synthetic = [kind for kind in garbage["kinds"].values() if kind["synthetic"]]
    return {
        "schema": 1,
        "checkpoint": str(path),
        "weights_sha256": info.weights.sha256,
        "backend": runner.backend,
        "parameters": spec.parameters,
        "data": data.name,
        "data_sha256": content_sha256(data.images, data.labels),
        "warning": warning,
        "n": len(data),
        "left_out": left_out,
        "without_ink": int((~data.images.any(axis=(1, 2))).sum()),
        "accuracy": hits / len(data),
        "error_percent": round(100 * (1 - hits / len(data)), 6),
        "ci95": _interval(correct, data.writers),
        "ci95_clustered_by": None if data.writers is None else "writer",
        **_more_accuracies(after, data, spec.labels),
        "ece": expected_calibration_error(after, data.labels),
        "ece_before_temperature": expected_calibration_error(before, data.labels),
        "temperature": spec.temperature,
        "reject_below": spec.reject_below,
        "rejected": float(1 - accepted.mean()),
        "error_accepted": float((~correct[accepted]).mean()) if accepted.any() else 0.0,
        "error_at_rejection": {f"{100 * r:g} %": risk_at_rejection(confidence, correct, r) for r in REJECTIONS},
        "at_rejection": {f"{100 * r:g} %": _at_rejection(confidence, correct, r) for r in REJECTIONS},
        "aurc": area_under_risk_coverage(confidence, correct),
        "garbage_accepted": float(
            np.average([k["accepted"]["shipped"] for k in synthetic], weights=[k["n"] for k in synthetic])
        ),
        "garbage": garbage,
        "per_class": _per_class(counts, spec.labels),
        "risk_coverage": {"coverage": coverage.tolist(), "risk": risk.tolist()},
        "reliability": {
            when: [{"confidence": c, "accuracy": a, "n": n} for c, a, n in reliability(p, data.labels)]
            for when, p in (("before", before), ("after", after))
        },
        "labels": spec.labels,
        "confusion": counts.tolist(),
    }


def check_out(out: Path) -> None:
    """Refuse a place that `write_evaluation` could not write to, before anything is measured.

    Raises:
        UsageError: it is not a directory, or a release.
    """
    if (out / MANIFEST).is_file():
        raise UsageError(f"{out} is a release, which holds what its manifest names and nothing else; choose another -o")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} exists and is not a directory; choose another -o")


def write_evaluation(result: dict[str, Any], out: Path) -> list[Path]:
    """Write the evaluation and its pictures into a directory and return the files."""
    check_out(out)
    files = {
        CONFUSION: confusion_png(result),
        RISK_COVERAGE: risk_coverage_png(result),
        EVALUATION: json_bytes(result),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def open_runner(path: Path) -> Runner:
    """Return a runner of a release's ONNX file, or of a checkpoint's eager model."""
    if (path / MANIFEST).is_file():
        release = Release.open(path)
        return reader_runner(release.read(release.onnx("fp32")), release.spec)
    from hwr_export.runners.eager import EagerRunner

    checkpoint = load_checkpoint(path)
    return EagerRunner(checkpoint, checkpoint.info.spec())


def _provenance(path: Path) -> CheckpointInfo:
    return read_info(path / CHECKPOINT_JSON if path.is_dir() else path)


def _test_part(info: CheckpointInfo, dataset: str | None, data_root: Path | None) -> Dataset:
    if dataset is not None:
        return load_dataset(dataset, "test", data_root)
    if info.recipe is None:
        raise UsageError(f"{info.name} does not say what data it was trained on; name those to evaluate on with --data")
    try:
        recipe = DataRecipe.model_validate(info.recipe["data"])
    except ValidationError as err:
        raise UsageError(f"{info.name} was trained on data that this version does not know; pass --data") from err
    data = load_test(recipe, data_root)
    recorded = (info.data or {}).get("test")  # checkpoints of the first version do not record it
    if recorded is not None and recorded["sha256"] != content_sha256(data.images, data.labels):
        raise DataError(
            f"the test part of {data.name} is not the one that {info.name} was held away from in training "
            f"(expected sha256 {recorded['sha256'][:12]}…); give the data it was trained with"
        )
    return data


def _known_to(labels: str, data: Dataset) -> tuple[Dataset, int]:
    """Keep the images whose character the model knows, numbered as it numbers them; return how many were left out."""
    numbers = np.asarray([labels.find(c) for c in data.label_set], dtype=np.int64)[data.labels]
    known = numbers >= 0
    if not known.any():
        raise DataError(
            f"{data.name} shows none of the characters that the model knows ({labels!r}); its own are "
            f"{data.label_set!r}"
        )
    writers = None if data.writers is None else data.writers[known]
    kept = replace(data, images=data.images[known], labels=numbers[known], writers=writers, label_set=labels)
    return kept, int((~known).sum())


def _interval(correct: Bools, writers: npt.NDArray[np.int32] | None) -> list[float]:
    if writers is not None:
        return list(clustered_interval(correct, writers))
    return list(wilson_interval(int(correct.sum()), len(correct)))


def _more_accuracies(probabilities: Floats, data: Dataset, labels: str) -> dict[str, Any]:
    """Return top-3 accuracy and the accuracy with look-alike cases as one class; None where they say nothing."""
    found: dict[str, Any] = dict.fromkeys(("top3_accuracy", "top3_ci95", "merged_accuracy", "merged_ci95"))
    if len(labels) > MANY_CLASSES:
        best = np.argpartition(-probabilities, 2, axis=1)[:, :3]
        right = (best == data.labels[:, None]).any(axis=1)
        found |= {"top3_accuracy": float(right.mean()), "top3_ci95": _interval(right, data.writers)}
    merged = np.asarray(merged_cases(labels))
    if (merged != np.arange(len(labels))).any():
        # A decision among fewer classes: what the two cases of a letter have together counts, not the likelier case.
        together = np.zeros_like(probabilities)
        np.add.at(together.T, merged, probabilities.T)
        right = together.argmax(axis=1) == merged[data.labels]
        found |= {"merged_accuracy": float(right.mean()), "merged_ci95": _interval(right, data.writers)}
    return found


def _at_rejection(confidence: Floats, correct: Bools, rejected: float) -> dict[str, Any]:
    n = len(correct)
    kept = n - round(rejected * n)
    error = risk_at_rejection(confidence, correct, rejected)
    return {
        "confidence": confidence_at_rejection(confidence, rejected),
        "rejected": n - kept,
        "accepted": kept,
        "wrong": round(error * kept),
        "error": error,
    }


def _garbage(runner: Runner, at_rejection: float, data_root: Path | None, console: Console) -> dict[str, Any]:
    """Count what is no character and accepted all the same, kind by kind, at two thresholds."""
    labels, shape = runner.spec.labels, runner.spec.image_shape
    synthetic = synthetic_garbage(*shape, labels)
    letters = {}
    if not any(c.isalpha() for c in labels):
        letters = real_letters(shape, data_root)
        if not letters:
            console.print("chars62 was not found: how many letters are taken for digits was not measured")
    thresholds = {"shipped": runner.spec.reject_below, f"{100 * GARBAGE_REJECTION:g} %": at_rejection}
    kinds = {}
    for kind, images in (synthetic | letters).items():
        probabilities = runner.infer_all(images)[PROBABILITIES]
        confidence = probabilities.max(axis=1)
        kinds[kind] = {
            "n": len(images),
            "synthetic": kind in synthetic,
            "accepted": {name: float((confidence >= t).mean()) for name, t in thresholds.items()},
            "most_often": labels[np.bincount(probabilities.argmax(axis=1)).argmax()],
        }
    return {"thresholds": thresholds, "kinds": kinds}


def _per_class(counts: npt.NDArray[np.int64], labels: str) -> dict[str, dict[str, Any]]:
    """Return n, accuracy and the class most often taken for it, of every class that has images."""
    found = {}
    for i, label in enumerate(labels):
        n = int(counts[i].sum())
        if n:
            wrong = counts[i].copy()
            wrong[i] = 0
            most = int(wrong.max())
            found[label] = {
                "n": n,
                "accuracy": float(counts[i, i] / n),
                "taken_for": labels[wrong.argmax()] if most else None,
                "taken_for_n": most,
            }
    return found
