"""Release + data -> the eager answers that files are compared with: test images, goldens, scanner conditions.

Where torch is not there the goldens alone carry them. What rounding costs the eager model is measured here too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from hwr_export.corruptions import conditions
from hwr_export.datasets import Dataset, load_dataset
from hwr_export.errors import ParityError, UsageError
from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.runners import Arrays
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES, ModelSpec

if TYPE_CHECKING:
    from hwr_export.runners.eager import EagerRunner

Kind = Literal["eager", "goldens"]

NOISE_IMAGES = 64


@dataclass(frozen=True)
class Reference:
    """The eager answers to compare with: `images` uint8 (N, H, W), `labels` int64 (N,), outputs of the eager model;
    `writers` int32 (N,) where known."""

    name: str
    sha256: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    outputs: Arrays
    writers: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class CorruptedImages:
    """Test images under one scanner condition, uint8 (N, H, W), and the eager model's answers to them, int64 (N,)."""

    kind: str
    strength: float
    images: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baseline:
    """All that a file is compared with. `chosen` are the indices of the test images that `corrupted` were made of."""

    kind: Kind
    reference: Reference
    golden: Reference
    goldens: Goldens
    noise: dict[str, float]
    chosen: npt.NDArray[np.int64]
    corrupted: tuple[CorruptedImages, ...]


def make_baseline(
    release: Release,
    kind: Kind,
    data: str,
    data_root: Path | None,
    corrupted: int,
    say: Callable[[str], None] = lambda _: None,
) -> Baseline:
    """Run the eager model on a dataset's test part, or take its answers from the goldens.

    Args:
        corrupted: how many of the test images are also seen under every scanner condition.

    Raises:
        ReleaseError: the goldens are missing or changed.
        DataError: the dataset is missing.
        UsageError: torch is missing, or the dataset does not fit the release.
    """
    entry = release.entry(GOLDENS)
    if entry is None:
        raise ParityError(f"{release.path} has no {GOLDENS}; run `hwr-export onnx` again")
    goldens = Goldens.from_bytes(release.read(entry), str(release.path / GOLDENS))
    outputs: Arrays = {LOGITS: goldens.logits, PROBABILITIES: goldens.probabilities}
    golden = Reference("goldens", entry.sha256, goldens.images, goldens.labels, outputs)
    nothing = np.zeros(0, dtype=np.int64)
    if kind == "goldens":
        return Baseline(kind, golden, golden, goldens, {}, nothing, ())
    dataset = _fitting_dataset(release.spec, data, data_root)
    try:
        from hwr_export.runners.eager import EagerRunner
    except ModuleNotFoundError as err:
        raise UsageError(
            f"the eager baseline needs {err.name}: pip install 'hwr-export[export]', or compare with the eager answers "
            "in the goldens: --baseline goldens"
        ) from err
    say(f"running the eager model on {len(dataset):,} images of {dataset.name}")
    with EagerRunner.from_release(release.path, release.spec) as eager:
        reference = Reference(
            dataset.name,
            dataset.sha256,
            dataset.images,
            dataset.labels,
            eager.infer_all(dataset.images),
            dataset.writers,
        )
        noise = measure_noise(eager, goldens)
        chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[:corrupted])
        say(f"running it on {len(chosen):,} of them under scanner conditions")
        seen = tuple(
            CorruptedImages(name, strength, images, eager.infer_all(images)[LOGITS].argmax(axis=1))
            for name, strength, images in conditions(dataset.images[chosen])
        )
    return Baseline(kind, reference, golden, goldens, noise, chosen, seen)


def measure_noise(eager: "EagerRunner", goldens: Goldens) -> dict[str, float]:
    """Return the largest logit differences of the eager model between batch 1 and N, and between 1 and 2 threads."""
    images = goldens.images[:NOISE_IMAGES]
    together = eager.infer_all(images)[LOGITS]
    alone = np.concatenate([eager.infer({INPUT: images[i : i + 1]})[LOGITS] for i in range(len(images))])
    with eager.threads_set_to(2):
        spread = eager.infer_all(images)[LOGITS]
    return {"batch": float(np.abs(alone - together).max()), "threads": float(np.abs(spread - together).max())}


def _fitting_dataset(spec: ModelSpec, name: str, data_root: Path | None) -> Dataset:
    data = load_dataset(name, "test", data_root)
    if data.label_set != spec.labels or data.images.shape[1:] != spec.image_shape:
        raise UsageError(
            f"{name} has the labels {data.label_set!r} at {data.images.shape[1]} x {data.images.shape[2]}, the "
            f"release {spec.labels!r} at {spec.image_shape[0]} x {spec.image_shape[1]}; use --baseline goldens"
        )
    return data
