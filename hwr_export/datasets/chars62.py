"""chars62: 62 classes of characters, upright, drawn from EMNIST ByClass's test part; three parts of its own.

EMNIST lets a character fill 24 of 28 pixels, MNIST 20. Every image passes the normalisation of `hwr-export read`, so
that a model learns, is judged and is calibrated on characters framed as it will meet them.
"""

from pathlib import Path

from hwr_export.datasets.framing import normalized
from hwr_export.datasets.idx import find_pair, read_pair
from hwr_export.datasets.roots import ENVIRONMENT_VARIABLE, Dataset, content_sha256, data_roots
from hwr_export.errors import DataError
from hwr_export.labels import ALPHANUMERIC

ZOOM = 2  # a character on a scan has more pixels than 20: shrinking it leaves strokes sharper than shrinking 24 pixels


def load_chars62(split: str, data: Path | None = None) -> Dataset:
    """Load `train`, `validation` or `test`; an image without ink becomes one of zeros.

    Raises:
        DataError: not found or broken.
    """
    prefix = {"validation": "val"}.get(split, split)
    folders = [root / "chars62" for root in data_roots(data)]
    for folder in folders:
        if find_pair(folder, prefix) is not None:
            pair = read_pair(folder, prefix, len(ALPHANUMERIC))
            height, width = pair.images.shape[1:]
            images = normalized(pair.images, height, width, zoom=ZOOM)
            sha256 = content_sha256(images, pair.labels)
            return Dataset("chars62", split, images, pair.labels, None, ALPHANUMERIC, sha256)
    raise DataError(
        f"chars62's {split} part was not found (looked in {', '.join(map(str, folders))}); set "
        f"{ENVIRONMENT_VARIABLE} or pass --data-root with a directory that holds chars62/*-ubyte.gz"
    )
