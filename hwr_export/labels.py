"""Class index <-> character.

A label set is the string of its characters in class order: `"0123456789"` is class 0 = "0".
It is pinned by the sha256 of its UTF-8 bytes, so that a reordered set is never taken for the same one.
"""

import hashlib

from hwr_export.errors import UsageError

DIGITS = "0123456789"
ALPHANUMERIC = DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxyz"
# Letters whose two cases are written alike: one class each in EMNIST's ByMerge (Cohen et al. 2017).
LOOK_ALIKE_CASES = "CIJKLMOPSUVWXYZ"


def check_labels(labels: str) -> str:
    """Return `labels` if it is a usable label set.

    Raises:
        UsageError: fewer than two classes, or one character standing for two classes.
    """
    if len(labels) < 2:
        raise UsageError(f"a label set needs at least two characters, one a class; got {labels!r}")
    doubles = sorted({c for c in labels if labels.count(c) > 1})
    if doubles:
        raise UsageError(
            f"the label set {labels!r} names {', '.join(map(repr, doubles))} more than once; "
            "each character stands for exactly one class"
        )
    return labels


def labels_sha256(labels: str) -> str:
    """Return the hex sha256 of the label set in class order."""
    return hashlib.sha256(labels.encode()).hexdigest()


def merged_cases(labels: str) -> list[int]:
    """Return for each class the class it counts as where a look-alike small letter is its capital."""
    return [
        labels.index(c.upper()) if c.upper() in LOOK_ALIKE_CASES and c.upper() in labels else i
        for i, c in enumerate(labels)
    ]
