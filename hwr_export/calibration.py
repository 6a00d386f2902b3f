"""Name of a dataset, or a user's own images -> the images that quantisation may look at, torch-free.

Two samples of training data, disjoint in content and drawn evenly over the classes: one to calibrate with, one held out
to choose with. What a published training part shares with its test part is left out; a user's own data that does is
refused, and so is any calibration image that is also in the evaluation set, however it came there.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import LOADERS, WITH_VALIDATION, Dataset, find_path, load_dataset, load_image_parts
from hwr_export.errors import DataError, UsageError
from hwr_export.files import sha256_bytes
from hwr_export.glyph import resized
from hwr_export.spec import ModelSpec

# How a range is found: the extremes; the one that loses least of the histogram; the one that holds nearly all; or it
# was learned with the weights and lies in the checkpoint.
Observer = Literal["min-max", "histogram", "percentile", "trained"]
TRAINED: Observer = "trained"
OBSERVERS: tuple[Observer, ...] = tuple(o for o in get_args(Observer) if o != TRAINED)
CALIBRATION, HELD_OUT = 512, 5000
MIN_HELD_OUT = 100


@dataclass(frozen=True)
class Sample:
    """Some images of one part of one dataset.

    `images` uint8 (N, H, W) as the model takes them, `labels` int64 (N,) in its class order, `hashes` sha256 of each
    image's pixels as they lie in the dataset.
    """

    name: str
    split: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """The sample's identity whatever its order: sha256 over the sorted hashes."""
        return sha256_bytes("\n".join(sorted(self.hashes)).encode())

    def description(self, label_set: str) -> dict[str, Any]:
        """Return what a report says of the sample."""
        counts = np.bincount(self.labels, minlength=len(label_set))
        return {
            "data": self.name,
            "split": self.split,
            "n": len(self),
            "sha256": self.sha256,
            "classes": int((counts > 0).sum()),
            "per_class": dict(zip(label_set, counts.tolist(), strict=True)),
        }


@dataclass(frozen=True)
class Samples:
    """What to calibrate with and what to choose with; `shared` training images are in the test part and left out."""

    calibration: Sample
    held_out: Sample
    shared: int


def draw_samples(
    spec: ModelSpec,
    recipe: dict[str, Any] | None,
    data: str | None = None,
    data_root: Path | None = None,
    count: int = CALIBRATION,
    held_out: int = HELD_OUT,
    seed: int = 0,
) -> Samples:
    """Draw both samples, of `count` and up to `held_out` images, from `data`, else from what the recipe trained on.

    Held out is the validation part where the dataset has one of its own, else what is left of the training part.

    Raises:
        UsageError: it is not known what to draw from, or more images were asked for than there are.
        DataError: the data is missing, has none of the model's characters, or its training and test parts overlap.
    """
    parts, published = _parts(spec, recipe, data, data_root)
    test = set(content_hashes(parts["test"].images))
    train = _known(parts["train"], spec.labels)
    hashes = content_hashes(train.images)
    free = np.asarray([h not in test for h in hashes], dtype=bool)
    shared = int((~free).sum())
    if shared and not published:
        raise DataError(
            f"{shared} training image(s) of {train.name} are also in its test part; each belongs in one part only, "
            "nothing was written"
        )
    _, first = np.unique(hashes, return_index=True)
    usable = np.sort(first[free[first]])
    if count < len(spec.labels) or count + MIN_HELD_OUT > len(usable):
        raise UsageError(
            f"--images takes {len(spec.labels)} (one a class) to {len(usable) - MIN_HELD_OUT} for {train.name}, "
            f"got {count}"
        )
    order = usable[even_order(train.labels[usable], seed)]
    calibration = _sample(train, order[:count], hashes, spec)
    if "validation" in parts:
        validation = _known(parts["validation"], spec.labels)
        rest, their = validation, content_hashes(validation.images)
        taken = set(calibration.hashes) | test
        others = np.flatnonzero([h not in taken for h in their])
        others = others[even_order(validation.labels[others], seed)]
    else:
        rest, their, others = train, hashes, order[count:]
    chooses = _sample(rest, others[:held_out], their, spec)
    refuse_evaluation_images(calibration, parts["test"])
    return Samples(calibration, chooses, shared)


def refuse_evaluation_images(calibration: Sample, evaluation: Dataset) -> None:
    """Stop where the model would be calibrated on what it is judged by.

    Raises:
        DataError: a calibration image is also in the evaluation set; the message says how many and shows one.
    """
    found = sorted(set(calibration.hashes) & set(content_hashes(evaluation.images)))
    if found:
        raise DataError(
            f"{len(found)} of {len(calibration)} calibration images are also in the {evaluation.split} part of "
            f"{evaluation.name}, which the model is judged by (the first has the sha256 {found[0][:12]}…); calibrate "
            "with images of the training part alone, nothing was written"
        )


def content_hashes(images: npt.NDArray[np.uint8]) -> list[str]:
    """Return the sha256 of each image's pixels."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def even_order(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Return a seeded order of which every beginning holds the classes as evenly as there are images of them."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        turn[members] = np.arange(len(members))
    return np.asarray(shuffled[np.argsort(turn, kind="stable")])


def _parts(
    spec: ModelSpec, recipe: dict[str, Any] | None, data: str | None, root: Path | None
) -> tuple[dict[str, Dataset], bool]:
    """Return the parts to draw from, and whether they were published together."""
    trained = {} if recipe is None else dict(recipe.get("data", {}))
    name = data or trained.get("path") or trained.get("name")
    if name is None:
        raise UsageError("the release does not say what data it was trained on; name it with --data")
    if name in LOADERS:
        wanted = ("train", "validation", "test") if name in WITH_VALIDATION else ("train", "test")
        return {part: load_dataset(name, part, root) for part in wanted}, True
    path = find_path(name, root)
    if not (path.is_dir() or path.suffix == ".csv"):
        raise UsageError(f"--data takes {', '.join(LOADERS)}, a folder of images or a CSV file; {path} is none of them")
    prepare: Literal["glyph", "as-is"] = "as-is" if trained.get("prepare") == "as-is" else "glyph"
    parts = load_image_parts(path, shape=spec.image_shape, prepare=prepare)
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(
            f"{path} declares no {' and no '.join(missing)} part, so that it is not known which images the model is "
            "judged by; declare the parts (folders train/ and test/, or the CSV's column split)"
        )
    return parts, False


def _known(data: Dataset, labels: str) -> Dataset:
    """Return the images whose character the model knows, numbered as it numbers them."""
    numbers = np.asarray([labels.find(c) for c in data.label_set], dtype=np.int64)[data.labels]
    if not (numbers >= 0).any():
        raise DataError(f"{data.name} shows none of the characters that the model knows ({labels!r}); name other data")
    known = numbers >= 0
    return Dataset(data.name, data.split, data.images[known], numbers[known], None, labels, data.sha256)


def _sample(data: Dataset, chosen: npt.NDArray[np.int64], hashes: Sequence[str], spec: ModelSpec) -> Sample:
    chosen = np.sort(chosen)
    images = data.images[chosen]
    if images.shape[1:] != spec.image_shape:
        images = np.stack([resized(image, *spec.image_shape) for image in images])
    return Sample(data.name, data.split, images, data.labels[chosen], tuple(hashes[i] for i in chosen))
