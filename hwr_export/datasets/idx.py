"""IDX files (format: the MNIST page, "FILE FORMATS"), gzipped or not -> arrays; a directory of pairs -> datasets.

A pair is `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`. Writer ids lie beside, in `writers-PART.npy`.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwr_export.datasets.roots import Dataset
from hwr_export.errors import DataError
from hwr_export.files import sha256_bytes

PREFIXES = {"train": ("train",), "validation": ("val", "validation"), "test": ("test", "t10k")}


@dataclass(frozen=True)
class Pair:
    """Images uint8 (N, H, W) with labels int64 (N,); `sha256` of the two files' bytes, unpacked."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    sha256: str


def load_idx(folder: Path, labels: str) -> dict[str, Dataset]:
    """Load the parts that lie in a directory as IDX pairs; class i is the i-th character of `labels`.

    Raises:
        DataError: no training pair, a part given twice, or files that are broken or do not fit together.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory of IDX files")
    parts = {}
    for part, prefixes in PREFIXES.items():
        found = [prefix for prefix in prefixes if find_pair(folder, prefix) is not None]
        if len(found) > 1:
            raise DataError(f"{folder} holds the {part} part twice, as {' and as '.join(found)}; remove one")
        if found:
            pair = read_pair(folder, found[0], len(labels))
            writers = read_writers(folder, part, len(pair.labels))
            parts[part] = Dataset(f"idx:{folder.name}", part, pair.images, pair.labels, writers, labels, pair.sha256)
    if "train" not in parts:
        names = " and ".join(pair_names("train"))
        raise DataError(f"{folder} holds no training pair: {names}, gzipped or not, are expected there")
    shapes = {part: data.images.shape[1:] for part, data in parts.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"the parts in {folder} have images of different sizes: {shapes}")
    return parts


def pair_names(prefix: str) -> tuple[str, str]:
    """Return the names of a pair's two files."""
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def find_pair(folder: Path, prefix: str) -> tuple[Path, Path] | None:
    """Return the two files of a pair, None where one is missing."""
    images, labels = (idx_file(folder, name) for name in pair_names(prefix))
    return None if images is None or labels is None else (images, labels)


def read_pair(folder: Path, prefix: str, classes: int, first: int = 0) -> Pair:
    """Read a pair whose labels run from `first`; they come out running from 0.

    Raises:
        DataError: a file is missing or broken, the two do not fit together, or a label is outside the set.
    """
    paths = find_pair(folder, prefix)
    if paths is None:
        raise DataError(f"{folder} does not hold {' and '.join(pair_names(prefix))}")
    image_bytes, label_bytes = (read_idx_bytes(path) for path in paths)
    images, labels = (parse_idx(data, str(path)) for data, path in zip((image_bytes, label_bytes), paths, strict=True))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not images.size:
        raise DataError(
            f"{paths[0]} and {paths[1].name} have the shapes {images.shape} and {labels.shape}, which do not fit "
            "together; (N, height, width) and (N,) are expected"
        )
    outside = np.unique(labels[(labels < first) | (labels >= first + classes)]).tolist()
    if outside:
        raise DataError(
            f"{paths[1]} has the label(s) {', '.join(map(str, outside[:5]))} outside its {classes} classes "
            f"({first} to {first + classes - 1})"
        )
    return Pair(images, labels.astype(np.int64) - first, sha256_bytes(image_bytes + label_bytes))


def read_writers(folder: Path, part: str, n: int) -> npt.NDArray[np.int32] | None:
    """Read the writer ids of `n` images from `writers-PART.npy`, None where there is no such file.

    Raises:
        DataError: not a NumPy file, or not one integer an image.
    """
    path = folder / f"writers-{part}.npy"
    if not path.is_file():
        return None
    try:
        writers = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise DataError(f"{path} is not a NumPy array file: {err}") from err
    if writers.shape != (n,) or not np.issubdtype(writers.dtype, np.integer):
        raise DataError(f"{path} holds {writers.shape} writer ids of {writers.dtype}, expected ({n},) of integers")
    return np.asarray(writers, dtype=np.int32)


def parse_idx(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode an IDX file of unsigned bytes.

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


def idx_file(folder: Path, name: str) -> Path | None:
    """Return the file of that name, or its gzipped form, or None."""
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
