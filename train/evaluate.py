"""Checkpoint (eager) or release (its ONNX file) + test split -> accuracy and calibration.

Reads the test data, chooses nothing.
"""

from pathlib import Path
from typing import Any

from hwr_export.checkpoint import load_checkpoint
from hwr_export.datasets import load_dataset
from hwr_export.errors import DataError
from hwr_export.release import MANIFEST, Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.spec import PROBABILITIES
from hwr_export.statistics import expected_calibration_error, wilson_interval


def evaluate(path: Path, dataset: str, data_root: Path | None) -> dict[str, Any]:
    """Return the machine-readable evaluation.

    Raises:
        DataError: the dataset is missing, or its labels or size are not the model's.
        CheckpointError: `path` is neither a release nor a checkpoint.
    """
    data = load_dataset(dataset, "test", data_root)
    runner = _runner(path)
    spec = runner.spec
    if data.label_set != spec.labels or data.images.shape[1:] != spec.image_shape:
        raise DataError(
            f"{dataset} has the labels {data.label_set!r}, the model {spec.labels!r}; they must be the same"
        )
    with runner:
        probabilities = runner.infer_all(data.images)[PROBABILITIES]
    correct = int((probabilities.argmax(axis=1) == data.labels).sum())
    accepted = probabilities.max(axis=1) >= spec.reject_below
    wrong_accepted = int((probabilities.argmax(axis=1) != data.labels)[accepted].sum())
    return {
        "schema": 1,
        "checkpoint": str(path),
        "backend": runner.backend,
        "parameters": spec.parameters,
        "data": dataset,
        "n": len(data),
        "accuracy": correct / len(data),
        "error_percent": round(100 * (1 - correct / len(data)), 6),
        "ci95": list(wilson_interval(correct, len(data))),
        "ece": expected_calibration_error(probabilities, data.labels),
        "rejected": float(1 - accepted.mean()),
        "error_accepted": wrong_accepted / max(1, int(accepted.sum())),
    }


def _runner(path: Path) -> Runner:
    if (path / MANIFEST).is_file():
        release = Release.open(path)
        return reader_runner(release.read(release.onnx("fp32")), release.spec)
    from hwr_export.runners.eager import EagerRunner

    checkpoint = load_checkpoint(path)
    return EagerRunner(checkpoint, checkpoint.info.spec())
