"""EMNIST (Cohen et al. 2017) as torchvision lays it out, turned upright: the files hold every image transposed.

`byclass` has 62 classes; `bymerge` and `balanced` 47, `letters` 26: there a capital stands for its small form too
wherever the two are written alike (`letters`: always).
"""

from pathlib import Path

import numpy as np

from hwr_export.datasets.idx import find_pair, read_pair
from hwr_export.datasets.roots import ENVIRONMENT_VARIABLE, Dataset, data_roots
from hwr_export.errors import DataError
from hwr_export.labels import ALPHANUMERIC, DIGITS

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MERGED = DIGITS + CAPITALS + "abdefghnqrt"
EMNIST_LABELS = {
    "byclass": ALPHANUMERIC,
    "bymerge": MERGED,
    "balanced": MERGED,
    "letters": CAPITALS,
    "digits": DIGITS,
}
FIRST_LABEL = {"letters": 1}  # the others count their classes from 0
EMNIST_WAYS_TO_PROVIDE = (
    "run `python -m train fetch emnist` where the network can be reached, or download "
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip by hand and put its emnist-*-ubyte.gz files into "
    f"emnist/EMNIST/raw below the directory that {ENVIRONMENT_VARIABLE} or --data-root names"
)


def find_emnist(kind: str, data: Path | None = None) -> Path:
    """Return the directory that holds the four IDX files of one kind of EMNIST.

    Raises:
        DataError: none of the roots has them; the message says how to provide them.
    """
    looked = []
    for root in data_roots(data):
        for folder in (root / "emnist" / "EMNIST" / "raw", root / "EMNIST" / "raw", root):
            looked.append(folder)
            if all(find_pair(folder, f"emnist-{kind}-{split}") for split in ("train", "test")):
                return folder
    raise DataError(f"EMNIST {kind} was not found (looked in {', '.join(map(str, looked))}); {EMNIST_WAYS_TO_PROVIDE}")


def load_emnist(kind: str, split: str, data: Path | None = None) -> Dataset:
    """Load the `train` or `test` split of one kind of EMNIST, upright.

    Raises:
        DataError: not found or broken.
    """
    labels = EMNIST_LABELS[kind]
    pair = read_pair(find_emnist(kind, data), f"emnist-{kind}-{split}", len(labels), FIRST_LABEL.get(kind, 0))
    upright = np.ascontiguousarray(pair.images.transpose(0, 2, 1))
    return Dataset(f"emnist-{kind}", split, upright, pair.labels, None, labels, pair.sha256)
