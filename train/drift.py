"""Checkpoint -> a reference of what its images look like; reference + image files -> drift or none.

The reference is of the validation part: like the training data, but not fitted. Both sides go through the normalisation
that `hwr-export read` applies, so what it undoes (size, polarity, position on the paper) is no drift.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.checkpoint import CHECKPOINT_JSON, CheckpointInfo, load_checkpoint, read_info
from hwr_export.datasets.images import IMAGE_SUFFIXES
from hwr_export.drift import Reference, image_statistics, judge, make_reference, model_statistics
from hwr_export.errors import CheckpointError, DataError, UsageError
from hwr_export.files import write_atomic
from hwr_export.glyph import load_grey, normalize
from hwr_export.runners import Runner
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import PROBABILITIES
from train.data import split_training_data
from train.evaluate import open_runner
from train.recipe import DataRecipe


def write_reference(path: Path, out: Path, data_root: Path | None) -> Reference:
    """Write the reference of a checkpoint's validation part.

    Raises:
        CheckpointError: no checkpoint, or one that `fit` did not make, whose validation part nobody knows.
        DataError: the data is missing, or not what the checkpoint was trained on.
        UsageError: too few writers in the validation part.
    """
    checkpoint = load_checkpoint(path)
    info = checkpoint.info
    if info.recipe is None or info.data is None:
        raise CheckpointError(f"{path} does not say what it was trained on; a reference needs a checkpoint of `fit`")
    split = split_training_data(DataRecipe.model_validate(info.recipe["data"]), data_root)
    if split.description["validation"] != info.data["validation"]:
        raise DataError(
            f"the validation part of {split.data.name} is not the one that {info.name} was trained beside (sha256 "
            f"{split.description['validation']['sha256'][:12]}…, expected {info.data['validation']['sha256'][:12]}…); "
            "give the data root it was trained with, or train it again if an earlier version did"
        )
    crops, kept = _crops((split.data.images[i] for i in split.validation), *info.spec().image_shape)
    writers = None if split.data.writers is None else split.data.writers[split.validation][kept]
    with EagerRunner(checkpoint, info.spec()) as runner:
        values = _statistics(crops, runner)
    reference = make_reference(values, writers, _about(info))
    write_atomic(out, reference.to_bytes())
    return reference


def drift(
    reference_path: Path, images: Sequence[Path], model: Path | None, writers: int | None, alpha: float
) -> dict[str, Any]:
    """Judge image files, and the files in folders, against a reference.

    Raises:
        DataError: the reference is missing or broken.
        ImageError: a file is no image.
        UsageError: too few images with ink, or a model other than the reference's.
    """
    try:
        data = reference_path.read_bytes()
    except OSError as err:
        raise DataError(f"there is no drift reference {reference_path} ({err.strerror})") from err
    reference = Reference.from_bytes(data, str(reference_path))
    runner = None if model is None else _same_model(reference, model)
    paths = _files(images)
    crops, kept = _crops((load_grey(path) for path in paths), *reference.about["image_shape"])
    if runner is None:
        values = _statistics(crops, None)
    else:
        with runner:
            values = _statistics(crops, runner)
    return {**judge(reference, values, writers, alpha), "blank": len(paths) - len(kept)}


def _about(info: CheckpointInfo) -> dict[str, Any]:
    data = info.data or {}
    return {
        "checkpoint": info.name,
        "weights_sha256": info.weights.sha256,
        "data": data.get("name"),
        "validation_sha256": data.get("validation", {}).get("sha256"),
        "image_shape": list(info.spec().image_shape),
    }


def _same_model(reference: Reference, model: Path) -> Runner:
    info = read_info(model / CHECKPOINT_JSON if model.is_dir() else model)
    if info.weights.sha256 != reference.about["weights_sha256"]:
        raise UsageError(
            f"{model} has other weights ({info.weights.sha256[:12]}…) than the model of the reference "
            f"({reference.about['checkpoint']}, {reference.about['weights_sha256'][:12]}…), so their confidences "
            "cannot be compared; make a reference of this checkpoint, or leave --model out"
        )
    return open_runner(model)


def _files(given: Sequence[Path]) -> list[Path]:
    found = []
    for path in given:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            found.append(path)
    return found


def _crops(
    greys: Iterable[npt.NDArray[np.uint8]], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the crops (N, H, W) of those that have ink, and which these are."""
    found = [(i, crop) for i, grey in enumerate(greys) if (crop := normalize(grey, height, width)) is not None]
    crops = np.array([crop for _, crop in found], dtype=np.uint8).reshape(-1, height, width)
    return crops, np.array([i for i, _ in found], dtype=np.int64)


def _statistics(crops: npt.NDArray[np.uint8], runner: Runner | None) -> npt.NDArray[np.float64]:
    values = image_statistics(crops)
    if runner is None or not len(crops):
        return values
    return np.concatenate([values, model_statistics(runner.infer_all(crops)[PROBABILITIES])], axis=1)
