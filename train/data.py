"""Dataset -> seeded training and validation splits, hashed. Writers never sit on both sides where ids exist."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import Dataset, load_dataset
from hwr_export.errors import DataError
from hwr_export.files import sha256_bytes
from train.recipe import DataRecipe


@dataclass(frozen=True)
class Split:
    """Indices into one dataset. `description` goes into the checkpoint."""

    data: Dataset
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    description: dict[str, Any]


def split_training_data(recipe: DataRecipe, seed: int, root: Path | None) -> Split:
    """Load the training split and hold out a validation part of it.

    Raises:
        DataError: data is missing, or a class has no image on one side.
    """
    data = load_dataset(recipe.name, "train", root)
    n = min(recipe.limit or len(data), len(data))
    rng = np.random.default_rng(seed)
    if data.writers is not None:
        held_out = _by_writer(data.writers[:n], recipe.validation_fraction, rng)
        method = "by writer"
    else:
        held_out = _by_class(data.labels[:n], recipe.validation_fraction, rng)
        method = "stratified by class"
    train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    for side, indices in (("training", train), ("validation", validation)):
        absent = sorted(set(range(len(data.label_set))) - set(data.labels[indices].tolist()))
        if absent:
            raise DataError(
                f"the {side} part has no image of {', '.join(data.label_set[i] for i in absent)}; "
                "use more data or another validation_fraction"
            )
    description = {
        "name": data.name,
        "sha256": data.sha256,
        "split": method,
        "train": {"n": len(train), "sha256": sha256_bytes(train.tobytes())},
        "validation": {"n": len(validation), "sha256": sha256_bytes(validation.tobytes())},
    }
    return Split(data, train, validation, description)


def normalisation(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and standard deviation of pixels / 255."""
    counts = np.bincount(images.reshape(-1), minlength=256)
    values = np.arange(256) / 255
    mean = float((counts * values).sum() / counts.sum())
    variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
    return round(mean, 6), round(max(variance, 1e-12) ** 0.5, 6)


def _by_writer(writers: npt.NDArray[np.int32], fraction: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    ids, counts = np.unique(writers, return_counts=True)
    order = rng.permutation(len(ids))
    enough = int(np.searchsorted(np.cumsum(counts[order]), fraction * len(writers))) + 1
    return np.isin(writers, ids[order[:enough]])


def _by_class(labels: npt.NDArray[np.int64], fraction: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(fraction * len(members)))]] = True
    return held_out
