"""hw62: photographs of single characters, 62 classes, the label in the file name; a test part alone.

Every image passes the normalisation of `hwr-export read`; one without ink becomes an image of zeros, so that it counts.
"""

import re
from pathlib import Path

import numpy as np

from hwr_export.datasets.roots import ENVIRONMENT_VARIABLE, Dataset, content_sha256, data_roots
from hwr_export.errors import DataError, ImageError
from hwr_export.glyph import load_grey, normalize
from hwr_export.labels import ALPHANUMERIC

HW62_WARNING = "hw62 is a warning from another country's hands and another camera, never a target to tune on"
SHAPE = (28, 28)
NAME = re.compile(r"(?:CAP_([A-Z])|SMALL_([a-z])|DIGIT_([0-9]))_[0-9]+\.(?:png|PNG)")


def load_hw62(split: str, data: Path | None = None) -> Dataset:
    """Load the `test` part, images in order of file name.

    Raises:
        DataError: another part, not found, a file named after no class, or one that is no image.
    """
    if split != "test":
        raise DataError(f"hw62 has a test part alone, there is no {split} part; it is not to be learned from")
    folder = _find(data)
    images, labels = [], []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        found = NAME.fullmatch(path.name)
        if found is None:
            raise DataError(f"{path} is not named as hw62's images are: CAP_A_0.png, SMALL_a_3.png or DIGIT_7_12.png")
        try:
            image = normalize(load_grey(path), *SHAPE)
        except ImageError as err:
            raise DataError(f"hw62 cannot be used: {err}") from err
        images.append(np.zeros(SHAPE, np.uint8) if image is None else image)
        labels.append(ALPHANUMERIC.index(next(filter(None, found.groups()))))
    if not images:
        raise DataError(f"{folder} holds no images")
    stacked, numbers = np.stack(images), np.asarray(labels, dtype=np.int64)
    return Dataset("hw62", split, stacked, numbers, None, ALPHANUMERIC, content_sha256(stacked, numbers))


def _find(data: Path | None) -> Path:
    folders = [root / "hw62" / "images" for root in data_roots(data)]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DataError(
        f"hw62 was not found (looked in {', '.join(map(str, folders))}); set {ENVIRONMENT_VARIABLE} or pass "
        "--data-root with a directory that holds hw62/images/*.png"
    )
