"""Dataset -> seeded training and validation splits, hashed. Writers never sit on both sides where ids exist."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import WITH_VALIDATION, Dataset, load_dataset
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
    if recipe.name in WITH_VALIDATION:
        return _given_split(data, load_dataset(recipe.name, "validation", root), recipe.limit)
    n = min(recipe.limit or len(data), len(data))
    rng = np.random.default_rng(seed)
    if data.writers is not None:
        held_out = _by_writer(data.writers[:n], recipe.validation_fraction, rng)
        method = "by writer"
    else:
        held_out = _by_class(data.labels[:n], recipe.validation_fraction, rng)
        method = "stratified by class"
    return _split(data, np.flatnonzero(~held_out), np.flatnonzero(held_out), method)


def _given_split(train: Dataset, validation: Dataset, limit: int | None) -> Split:
    """Join a dataset's own two parts into one, so that a split is always two sets of indices."""
    n = min(limit or len(train), len(train))
    joined = replace(
        train,
        images=np.concatenate([train.images, validation.images]),
        labels=np.concatenate([train.labels, validation.labels]),
    )
    held_out = np.arange(len(train), len(train) + len(validation))
    return _split(joined, np.arange(n), held_out, "as published with the dataset")


def _split(data: Dataset, train: npt.NDArray[np.int64], validation: npt.NDArray[np.int64], method: str) -> Split:
    """Check that no image is on both sides and no class missing from one, and describe the split."""
    both = _contents(data.images[train]) & _contents(data.images[validation])
    if both:
        raise DataError(f"{len(both)} image(s) of {data.name} are in both the training and the validation part")
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


def _contents(images: npt.NDArray[np.uint8]) -> set[bytes]:
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images}


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
