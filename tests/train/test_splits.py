"""What is held out: a part of every class, never of a writer or of a content, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.datasets import Dataset
from hwr_export.errors import DataError
from train.splits import contents, groups_of, hold_out


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def collections(draw: st.DrawFn, by_writer: bool | None = None):
    """Labels, writers or None, contents: several images a class, some contents more than once, any writers."""
    n = draw(st.integers(6, 120))
    random = rng(draw(st.integers(0, 2**32)))
    labels = random.integers(0, draw(st.integers(1, 6)), n)
    kinds = draw(st.integers(3, 2 * n))  # few kinds: many copies
    content = [bytes([k % 256, k // 256]) for k in random.integers(0, kinds, n)]
    if by_writer is None:
        by_writer = draw(st.booleans())
    writers = random.integers(0, draw(st.integers(2, 40)), n).astype(np.int32) if by_writer else None
    return labels, writers, content


@given(collections(), st.floats(0.05, 0.6), st.integers(0, 2**32))
def test_both_sides_are_all_and_share_neither_writer_nor_content(collection, fraction: float, seed: int) -> None:
    labels, writers, content = collection
    if len(set(groups_of(writers, content))) < 2:
        return
    held_out, method = hold_out(labels, writers, content, fraction, rng(seed))
    assert held_out.dtype == bool
    assert held_out.shape == labels.shape
    known = np.asarray([int.from_bytes(c) for c in content])
    assert not set(known[held_out]) & set(known[~held_out])
    if writers is not None:
        assert method == "by writer"
        assert not set(writers[held_out]) & set(writers[~held_out])
        assert 0 < held_out.sum() < len(labels)
    again = hold_out(labels, writers, content, fraction, rng(seed))[0]
    np.testing.assert_array_equal(held_out, again)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.floats(0.02, 0.8), st.integers(0, 2**32))
def test_without_writers_every_class_gives_its_share(sizes: list[int], fraction: float, seed: int) -> None:
    labels = rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    content = [i.to_bytes(4) for i in range(len(labels))]
    held_out, method = hold_out(labels, None, content, fraction, rng(seed))
    assert method == "stratified by class"
    for label, size in enumerate(sizes):
        taken = int(held_out[labels == label].sum())
        assert 1 <= taken <= size - 1
        assert abs(taken - fraction * size) <= 1


@given(st.integers(10, 60), st.integers(1, 4), st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 2**32))
def test_writers_who_wrote_everything_give_every_class_its_share(
    writers: int, times: int, fraction: float, seed: int
) -> None:
    ids, labels = (a.reshape(-1) for a in np.meshgrid(np.arange(writers), np.tile(np.arange(5), times)))
    content = [i.to_bytes(4) for i in range(len(labels))]
    held_out = hold_out(labels, ids.astype(np.int32), content, fraction, rng(seed))[0]
    shares = np.bincount(labels[held_out], minlength=5) / np.bincount(labels)
    np.testing.assert_allclose(shares, fraction, atol=1 / writers + 1e-9)


def test_writers_of_one_class_each_are_drawn_until_every_class_is_there() -> None:
    labels = np.repeat(np.arange(4), 50)
    writers = np.repeat(np.arange(20), 10).astype(np.int32)  # five writers a class
    content = [i.to_bytes(4) for i in range(200)]
    for seed in range(20):
        held_out = hold_out(labels, writers, content, 0.2, rng(seed))[0]
        assert np.bincount(labels[held_out], minlength=4).min() >= 10


def test_another_seed_holds_out_others(mnist_test: Dataset) -> None:
    content = contents(mnist_test.images[:500])
    one, other = (hold_out(mnist_test.labels[:500], None, content, 0.2, rng(seed))[0] for seed in (0, 1))
    assert (one != other).any()
    assert one.sum() == other.sum()


@given(collections(by_writer=True))
def test_groups_are_the_connected_images(collection) -> None:
    _, writers, content = collection
    groups = groups_of(writers, content)
    # By definition: two images that share writer or content are in one group; join until nothing changes.
    expected = [{i} for i in range(len(content))]
    changed = True
    while changed:
        changed = False
        for i in range(len(content)):
            for j in range(i):
                if (writers[i] == writers[j] or content[i] == content[j]) and expected[i] is not expected[j]:
                    expected[i] |= expected[j]
                    for k in expected[j]:
                        expected[k] = expected[i]
                    changed = True
    assert len(set(groups.tolist())) == len({id(members) for members in expected})
    assert all(len({groups[i] for i in members}) == 1 for members in expected)


def test_one_writer_cannot_be_split() -> None:
    content = [bytes([i]) for i in range(10)]
    with pytest.raises(DataError, match=r"10 images of 1 writer.s. cannot be split so that no writer is on both sides"):
        hold_out(np.arange(10), np.zeros(10, np.int32), content, 0.1, rng(0))
    with pytest.raises(DataError, match=r"4 images of 2 writer.s. cannot be split"):  # who copied from each other
        hold_out(np.arange(4), np.array([0, 0, 1, 1], np.int32), [b"a", b"b", b"b", b"c"], 0.1, rng(0))


def test_contents_are_of_pixels(mnist_test: Dataset) -> None:
    changed = mnist_test.images[:2].copy()
    changed[1, 0, 0] ^= 1
    one, other = contents(mnist_test.images[:2]), contents(changed)
    assert one[0] == other[0]
    assert one[1] != other[1]
