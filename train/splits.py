"""Labels, writers and contents of images -> which of them are held out: seeded, stratified, nothing on both sides.

Images of one writer stay together, and so do images of the same content, whoever wrote them.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from hwr_export.errors import DataError

DRAWS = 100  # of writers, at most, to find a stratified one
STRATIFIED = 0.25  # how far the share of any class may be from the fraction, relative to it


def contents(images: Iterable[npt.NDArray[np.uint8]]) -> list[bytes]:
    """Return what identifies each image's pixels, for exact comparison."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def hold_out(
    labels: npt.NDArray[np.int64],
    writers: npt.NDArray[np.int32] | None,
    content: Sequence[bytes],
    fraction: float,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.bool_], str]:
    """Choose about `fraction` of every class; return a mask, bool (N,), and how it was chosen in words.

    Raises:
        DataError: all images belong together, so that no two sides can be made of them.
    """
    groups = groups_of(writers, content)
    if writers is None:
        # One of each content is drawn, its copies go where it goes.
        first, group = np.unique(groups, return_index=True, return_inverse=True)[1:]
        return _by_class(labels[first], fraction, rng)[group], "stratified by class"
    if len(np.unique(groups)) < 2:
        raise DataError(
            f"the {len(labels)} images of {len(np.unique(writers))} writer(s) cannot be split so that no writer is on "
            "both sides; add writers, or leave the writer ids out"
        )
    return _by_writer(labels, groups, fraction, rng), "by writer"


def groups_of(writers: npt.NDArray[np.int32] | None, content: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return for each image the number of the group that must stay together, int64 (N,)."""
    ids = range(len(content)) if writers is None else writers.tolist()
    joined: dict[int, int] = {}  # group -> the group it became part of

    def root(group: int) -> int:
        while group in joined:
            group = joined[group]
        return group

    first: dict[bytes, int] = {}
    for one, group in zip(content, ids, strict=True):
        known, new = root(first.setdefault(one, group)), root(group)
        if known != new:
            joined[max(known, new)] = min(known, new)
    return np.asarray([root(group) for group in ids], dtype=np.int64)


def _by_class(labels: npt.NDArray[np.int64], fraction: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        wanted = max(1, round(fraction * len(members)))
        held_out[members[: min(wanted, len(members) - 1)]] = True
    return held_out


def _by_writer(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return the first draw of whole groups that is stratified, else the one that is nearest to it."""
    ids, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(ids), len(classes)), dtype=np.int64)
    np.add.at(counts, (group, label), 1)
    best, least = np.zeros(0, dtype=np.int64), np.inf
    for _ in range(DRAWS):
        order = rng.permutation(len(ids))
        enough = int(np.searchsorted(np.cumsum(counts.sum(axis=1)[order]), fraction * len(labels))) + 1
        drawn = order[: min(enough, len(ids) - 1)]
        off = float(np.abs(counts[drawn].sum(axis=0) / counts.sum(axis=0) - fraction).max())
        if off < least:
            best, least = drawn, off
        if least <= STRATIFIED * fraction:
            break
    return np.isin(group, best)
