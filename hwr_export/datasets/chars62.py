"""chars62: 62 classes of characters, upright, drawn from EMNIST ByClass's test part; three parts of its own."""

from pathlib import Path

from hwr_export.datasets.idx import find_pair, read_pair
from hwr_export.datasets.roots import ENVIRONMENT_VARIABLE, Dataset, data_roots
from hwr_export.errors import DataError
from hwr_export.labels import ALPHANUMERIC


def load_chars62(split: str, data: Path | None = None) -> Dataset:
    """Load `train`, `validation` or `test`.

    Raises:
        DataError: not found or broken.
    """
    prefix = {"validation": "val"}.get(split, split)
    folders = [root / "chars62" for root in data_roots(data)]
    for folder in folders:
        if find_pair(folder, prefix) is not None:
            pair = read_pair(folder, prefix, len(ALPHANUMERIC))
            return Dataset("chars62", split, pair.images, pair.labels, None, ALPHANUMERIC, pair.sha256)
    raise DataError(
        f"chars62's {split} part was not found (looked in {', '.join(map(str, folders))}); set "
        f"{ENVIRONMENT_VARIABLE} or pass --data-root with a directory that holds chars62/*-ubyte.gz"
    )
