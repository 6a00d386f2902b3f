"""Labelled handwriting on disk -> arrays, for training, parity and benches. One file a source, torch-free.

Images are uint8 (N, H, W), white ink on black; labels int64 (N,); writers int32 (N,) where known.
Files with published hashes are checked before they are used.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hwr_export.datasets.chars62 import load_chars62
from hwr_export.datasets.emnist import EMNIST_LABELS, EMNIST_WAYS_TO_PROVIDE, find_emnist, load_emnist
from hwr_export.datasets.hw62 import HW62_WARNING, load_hw62
from hwr_export.datasets.idx import load_idx, parse_idx, read_idx_bytes
from hwr_export.datasets.images import load_image_parts, load_labelled
from hwr_export.datasets.mnist import MNIST_SHA256, WAYS_TO_PROVIDE, find_mnist, load_mnist
from hwr_export.datasets.roots import PARTS, Dataset, cache_root, content_sha256, data_roots, find_path
from hwr_export.errors import DataError

LOADERS: dict[str, Callable[[str, Path | None], Dataset]] = {
    "mnist": load_mnist,
    "chars62": load_chars62,
    **{f"emnist-{kind}": partial(load_emnist, kind) for kind in EMNIST_LABELS},
}
# Datasets to be warned by and never to learn from or to tune on: a test part alone.
WARNINGS: dict[str, Callable[[str, Path | None], Dataset]] = {"hw62": load_hw62}
# Datasets that come with a validation part of their own; of the others one is held out from training.
WITH_VALIDATION = {"chars62"}

__all__ = [
    "EMNIST_LABELS",
    "EMNIST_WAYS_TO_PROVIDE",
    "HW62_WARNING",
    "LOADERS",
    "MNIST_SHA256",
    "PARTS",
    "WARNINGS",
    "WAYS_TO_PROVIDE",
    "WITH_VALIDATION",
    "Dataset",
    "cache_root",
    "content_sha256",
    "data_roots",
    "find_emnist",
    "find_mnist",
    "find_path",
    "load_chars62",
    "load_dataset",
    "load_emnist",
    "load_hw62",
    "load_idx",
    "load_image_parts",
    "load_labelled",
    "load_mnist",
    "parse_idx",
    "read_idx_bytes",
]


def load_dataset(name: str, split: str, data: Path | None = None) -> Dataset:
    """Load a dataset by name.

    Raises:
        DataError: unknown name, or its files are missing or broken.
    """
    loaders = LOADERS | WARNINGS
    if name not in loaders:
        raise DataError(f"there is no dataset {name!r}; known: {', '.join(sorted(loaders))}")
    return loaders[name](split, data)
