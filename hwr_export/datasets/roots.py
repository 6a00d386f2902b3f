"""What a dataset is once loaded, and where data lies.

The data root is the directory given, else `HWR_DATA`, else the user cache; nothing else knows where data is.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from hwr_export.errors import DataError

ENVIRONMENT_VARIABLE = "HWR_DATA"
# The parts of a dataset. `train` is whatever was declared neither validation nor test.
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """One part of one dataset.

    `images` uint8 (N, H, W), white ink on black, `labels` int64 (N,), `writers` int32 (N,) or None, `label_set` the
    characters in class order, `sha256` of image bytes followed by label bytes (of the files, where they are published).
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


def content_sha256(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> str:
    """Return the hex sha256 of the pixels followed by the labels as little-endian int64, in their order."""
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def cache_root() -> Path:
    """Return the directory that `fetch` fills when no other was named."""
    return Path(platformdirs.user_cache_dir("hwr-export")) / "data"


def framed_root() -> Path:
    """Return the directory of images that were framed before (`hwr_export.datasets.framing`)."""
    return Path(platformdirs.user_cache_dir("hwr-export")) / "framed"


def data_roots(data: Path | None = None) -> list[Path]:
    """Return the directories to search, best first: the one given alone, else `HWR_DATA`, then the user cache."""
    if data is not None:
        return [data]
    roots = []
    if os.environ.get(ENVIRONMENT_VARIABLE):
        roots.append(Path(os.environ[ENVIRONMENT_VARIABLE]))
    return [*roots, cache_root()]


def find_path(path: str, data: Path | None = None) -> Path:
    """Return the file or directory that `path` names, relative to the working directory, else to a data root.

    Raises:
        DataError: it is nowhere.
    """
    candidates = [base / Path(path).expanduser() for base in (Path(), *data_roots(data))]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(dict.fromkeys(map(str, candidates)))
    raise DataError(f"there is no {path} (looked for {looked}); correct the path, or set {ENVIRONMENT_VARIABLE}")
