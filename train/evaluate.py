"""Checkpoint (eager) or release (its ONNX file) + test split -> accuracy and calibration.

Reads the test data, chooses nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hwr_export.checkpoint import load_checkpoint
from hwr_export.datasets import Dataset, load_dataset
from hwr_export.errors import DataError
from hwr_export.release import MANIFEST, Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.spec import PROBABILITIES
from hwr_export.statistics import (
    area_under_risk_coverage,
    clustered_interval,
    expected_calibration_error,
    risk_at_rejection,
    wilson_interval,
)


def evaluate(path: Path, dataset: str, data_root: Path | None) -> dict[str, Any]:
    """Return the machine-readable evaluation.

    Raises:
        DataError: the dataset is missing, or its labels or size are not the model's.
        CheckpointError: `path` is neither a release nor a checkpoint.
    """
    data = load_dataset(dataset, "test", data_root)
    runner = open_runner(path)
    spec = runner.spec
    if data.label_set != spec.labels or data.images.shape[1:] != spec.image_shape:
        raise DataError(
            f"{dataset} has the labels {data.label_set!r}, the model {spec.labels!r}; they must be the same"
        )
    with runner:
        probabilities = runner.infer_all(data.images)[PROBABILITIES]
        garbage = runner.infer_all(garbage_images(*spec.image_shape))[PROBABILITIES]
    correct = probabilities.argmax(axis=1) == data.labels
    confidence = probabilities.max(axis=1)
    accepted = confidence >= spec.reject_below
    hits = int(correct.sum())
    interval = wilson_interval(hits, len(data)) if data.writers is None else clustered_interval(correct, data.writers)
    return {
        "schema": 1,
        "checkpoint": str(path),
        "backend": runner.backend,
        "parameters": spec.parameters,
        "data": dataset,
        "n": len(data),
        "accuracy": hits / len(data),
        "error_percent": round(100 * (1 - hits / len(data)), 6),
        "ci95": list(interval),
        "ci95_clustered_by": None if data.writers is None else "writer",
        "ece": expected_calibration_error(probabilities, data.labels),
        "rejected": float(1 - accepted.mean()),
        "error_accepted": float((~correct[accepted]).mean()) if accepted.any() else 0.0,
        "error_at_rejection": {
            f"{100 * r:g} %": risk_at_rejection(confidence, correct, r) for r in (0.01, 0.02, 0.03, 0.05)
        },
        "aurc": area_under_risk_coverage(confidence, correct),
        "garbage_accepted": float((garbage.max(axis=1) >= spec.reject_below).mean()),
        "per_class": _per_class(data, correct, spec.labels),
    }


def garbage_images(height: int, width: int, each: int = 250, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return what is no character, uint8 (4 * each, H, W): noise, blobs of smooth noise, a straight stroke, specks."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (each, height, width))
    small = [Image.fromarray(rng.integers(0, 256, (5, 5)).astype(np.uint8)) for _ in range(each)]
    blobs = np.stack([np.asarray(s.resize((width, height), Image.Resampling.BICUBIC)) for s in small])
    strokes = np.stack([_stroke(height, width, rng) for _ in range(each)])
    specks = (rng.random((each, height, width)) < 0.03) * rng.integers(128, 256, (each, height, width))
    return np.concatenate([noise, blobs, strokes, specks]).astype(np.uint8)


def _stroke(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A slanted line off the centre, as a ruled box or a slip of the pen leaves it."""
    image = Image.new("L", (width, height))
    x, y = rng.uniform(0, width, 2), rng.uniform(0, height, 2)
    ImageDraw.Draw(image).line((x[0], y[0], x[1], y[1]), fill=255, width=int(rng.integers(1, 4)))
    return np.asarray(image)


def _per_class(data: Dataset, correct: npt.NDArray[np.bool_], labels: str) -> dict[str, dict[str, float]]:
    found = {}
    for i, label in enumerate(labels):
        of_class = data.labels == i
        if of_class.any():
            found[label] = {"n": int(of_class.sum()), "accuracy": float(correct[of_class].mean())}
    return found


def open_runner(path: Path) -> Runner:
    """Return a runner of a release's ONNX file, or of a checkpoint's eager model."""
    if (path / MANIFEST).is_file():
        release = Release.open(path)
        return reader_runner(release.read(release.onnx("fp32")), release.spec)
    from hwr_export.runners.eager import EagerRunner

    checkpoint = load_checkpoint(path)
    return EagerRunner(checkpoint, checkpoint.info.spec())
