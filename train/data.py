"""Recipe -> training, validation and test parts, disjoint in content and by writer, hashed.

Published parts stay as they are; what of the training part is in them too is taken out of it. Parts that the user
declared are refused when they overlap. Parts that are missing are held out: the test part first, then validation.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import (
    PARTS,
    WITH_VALIDATION,
    Dataset,
    content_sha256,
    find_path,
    load_dataset,
    load_idx,
    load_image_parts,
)
from hwr_export.errors import DataError
from train.recipe import DataRecipe
from train.splits import contents, hold_out

PUBLISHED, DECLARED = "as published with the dataset", "as declared"


@dataclass(frozen=True)
class Split:
    """Indices into one dataset, in which no test image is. `description` goes into the checkpoint."""

    data: Dataset
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    description: dict[str, Any]


def split_training_data(recipe: DataRecipe, root: Path | None) -> Split:
    """Load everything, hold out what has to be held out, and describe all three parts.

    Raises:
        DataError: data is missing or cannot be used, declared parts overlap, or a class has no image on one side.
    """
    removed: dict[str, int] = {}
    if recipe.published:
        parts, removed = _published_parts(recipe, root)
        given = test_split = PUBLISHED
    else:
        parts, test_split = _own_parts(recipe, root)
        given = DECLARED
    data = parts["train"]
    usable = _limited(data.labels, recipe)
    if "validation" in parts:
        data = _joined(data, parts["validation"])
        train, validation, method = usable, np.arange(len(parts["train"]), len(data)), given
    else:
        writers = None if data.writers is None else data.writers[usable]
        content = contents(data.images[i] for i in usable)
        rng = np.random.default_rng(recipe.split_seed)
        held_out, method = hold_out(data.labels[usable], writers, content, recipe.validation_fraction, rng)
        train, validation = usable[~held_out], usable[held_out]
    for side, indices in (("training", train), ("validation", validation)):
        absent = sorted(set(range(len(data.label_set))) - set(data.labels[indices].tolist()))
        if absent:
            raise DataError(
                f"the {side} part of {data.name} has no image of {', '.join(data.label_set[i] for i in absent)}; "
                "use more data or other fractions"
            )
    description = {
        "name": data.name,
        "sha256": data.sha256,
        "split": method,
        "test_split": test_split,
        "train": _identity(data.images[train], data.labels[train]),
        "validation": _identity(data.images[validation], data.labels[validation]),
        "test": _identity(parts["test"].images, parts["test"].labels),
        "overlap_removed": removed,
    }
    return Split(data, train, validation, description)


def load_test(recipe: DataRecipe, root: Path | None) -> Dataset:
    """Load the test part that a run with this recipe never saw, for its evaluation alone.

    Raises:
        DataError: data is missing or cannot be used, or declared parts overlap.
    """
    if recipe.published:
        return _only(load_dataset(recipe.name, "test", root), recipe.classes)
    return _own_parts(recipe, root)[0]["test"]


def normalisation(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and standard deviation of pixels / 255."""
    counts = np.bincount(images.reshape(-1), minlength=256)
    values = np.arange(256) / 255
    mean = float((counts * values).sum() / counts.sum())
    variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
    return round(mean, 6), round(max(variance, 1e-12) ** 0.5, 6)


def _published_parts(recipe: DataRecipe, root: Path | None) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Load the parts as published, less the images that a later part holds too; return how many those were."""
    name = recipe.name
    names = [part for part in PARTS if part != "validation" or name in WITH_VALIDATION]
    parts = {part: _only(load_dataset(name, part, root), recipe.classes) for part in names}
    removed = {}
    held_out: set[bytes] = set()
    for part, data in reversed(parts.items()):
        content = contents(data.images)
        if part != "test":
            fresh = np.asarray([one not in held_out for one in content])
            removed[part] = int((~fresh).sum())
            if removed[part]:
                parts[part] = _subset(data, fresh, part)
        held_out.update(content)
    return parts, removed


def _own_parts(recipe: DataRecipe, root: Path | None) -> tuple[dict[str, Dataset], str]:
    """Load the user's data in the parts it declares, with a test part held out where there is none, and say how."""
    parts = _declared_parts(recipe, root)
    if "train" not in parts:
        raise DataError(f"{recipe.path} declares {' and '.join(parts)} but no train part to learn from")
    _refuse_overlap(parts)
    if "test" in parts:
        return parts, DECLARED
    data = parts["train"]
    # A generator of its own, so that the test part depends on nothing that is drawn for training.
    rng = np.random.default_rng((recipe.split_seed, 1))
    held_out, method = hold_out(data.labels, data.writers, contents(data.images), recipe.test_fraction, rng)
    return parts | {"train": _subset(data, ~held_out, "train"), "test": _subset(data, held_out, "test")}, method


def _declared_parts(recipe: DataRecipe, root: Path | None) -> dict[str, Dataset]:
    assert recipe.path is not None
    path = find_path(recipe.path, root)
    if recipe.name == "idx":
        assert recipe.labels is not None
        return {part: _only(data, recipe.classes) for part, data in load_idx(path, recipe.labels).items()}
    if path.is_dir() != (recipe.name == "folder"):
        found = "folder" if path.is_dir() else "file"
        raise DataError(f"{path} is a {found}; `name: folder` takes a folder of images, `name: csv` a CSV file")
    parts = load_image_parts(path, recipe.labels, prepare=recipe.prepare)
    return {part: _only(data, recipe.classes) for part, data in parts.items()}


def _refuse_overlap(parts: dict[str, Dataset]) -> None:
    content = {part: set(contents(data.images)) for part, data in parts.items()}
    problems = []
    for one, other in combinations(parts, 2):
        both = len(content[one] & content[other])
        if both:
            problems.append(f"{both} image(s) are in both the {one} and the {other} part")
        writers = parts[one].writers, parts[other].writers
        if writers[0] is not None and writers[1] is not None:
            shared = len(np.intersect1d(*writers))
            if shared:
                problems.append(f"{shared} writer(s) are in both the {one} and the {other} part")
    if problems:
        name = next(iter(parts.values())).name
        raise DataError(f"the declared parts of {name} overlap: {'; '.join(problems)}; each belongs in one part only")


def _only(data: Dataset, classes: str | None) -> Dataset:
    """Keep the images of these characters and number them in this order.

    Raises:
        DataError: one of them is not in the dataset.
    """
    if classes is None:
        return data
    unknown = [c for c in classes if c not in data.label_set]
    if unknown:
        raise DataError(
            f"data.classes: {data.name} has no {', '.join(map(repr, unknown))}; its characters are {data.label_set!r}"
        )
    kept = _subset(data, np.isin(data.labels, [data.label_set.index(c) for c in classes]), data.split)
    numbers = np.asarray([classes.find(c) for c in data.label_set], dtype=np.int64)[kept.labels]
    return replace(kept, labels=numbers, label_set=classes, sha256=content_sha256(kept.images, numbers))


def _limited(labels: npt.NDArray[np.int64], recipe: DataRecipe) -> npt.NDArray[np.int64]:
    """Return the indices to use: the first of a published set, a draw of a user's own (may be in order of class)."""
    n = len(labels)
    rng = np.random.default_rng((recipe.split_seed, 2))
    if recipe.per_class is not None:
        drawn = [rng.permutation(np.flatnonzero(labels == c))[: recipe.per_class] for c in np.unique(labels)]
        return np.sort(np.concatenate(drawn))
    if recipe.limit is None or recipe.limit >= n:
        return np.arange(n)
    if recipe.published:
        return np.arange(recipe.limit)
    return np.sort(rng.choice(n, recipe.limit, replace=False))


def _subset(data: Dataset, mask: npt.NDArray[np.bool_], part: str) -> Dataset:
    images, labels = data.images[mask], data.labels[mask]
    writers = None if data.writers is None else data.writers[mask]
    sha256 = content_sha256(images, labels)
    return replace(data, split=part, images=images, labels=labels, writers=writers, sha256=sha256)


def _joined(train: Dataset, validation: Dataset) -> Dataset:
    """Make one dataset of two parts, so that a split is always two sets of indices."""
    writers = None
    if train.writers is not None and validation.writers is not None:
        writers = np.concatenate([train.writers, validation.writers])
    images = np.concatenate([train.images, validation.images])
    return replace(train, images=images, labels=np.concatenate([train.labels, validation.labels]), writers=writers)


def _identity(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {"n": len(labels), "sha256": content_sha256(images, labels)}
