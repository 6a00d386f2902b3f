"""IDX files and directories of them."""

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwr_export.datasets import Dataset, load_idx, parse_idx
from hwr_export.errors import DataError


def to_idx(array: np.ndarray) -> bytes:
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_pair(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray, gz: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = to_idx(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(content) if gz else content)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)))
def test_idx_round_trip(array: np.ndarray) -> None:
    np.testing.assert_array_equal(parse_idx(to_idx(array), "made"), array)


@given(st.binary(max_size=64))
def test_any_bytes_give_an_array_or_a_sentence(data: bytes) -> None:
    with contextlib.suppress(DataError):
        assert parse_idx(data, "made").dtype == np.uint8


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"\1" + d[1:]])
def test_damaged_idx_is_refused(damage) -> None:
    with pytest.raises(DataError, match="made"):
        parse_idx(damage(to_idx(np.zeros((2, 3), np.uint8))), "made")


@pytest.fixture
def directory(tmp_path: Path, mnist_test: Dataset) -> Path:
    """Three parts of real digits, the test part as MNIST names it and gzipped, writers beside the training part."""
    folder = tmp_path / "digits"
    for prefix, start, end in (("train", 0, 200), ("val", 200, 250), ("t10k", 250, 300)):
        write_pair(folder, prefix, mnist_test.images[start:end], mnist_test.labels[start:end], gz=prefix == "t10k")
    np.save(folder / "writers-train.npy", np.repeat(np.arange(20), 10))
    return folder


def test_a_directory_of_pairs_is_its_three_parts(directory: Path, mnist_test: Dataset) -> None:
    parts = load_idx(directory, "0123456789")
    assert {part: len(data) for part, data in parts.items()} == {"train": 200, "validation": 50, "test": 50}
    np.testing.assert_array_equal(parts["test"].images, mnist_test.images[250:300])
    np.testing.assert_array_equal(parts["validation"].labels, mnist_test.labels[200:250])
    assert parts["train"].writers.tolist() == np.repeat(np.arange(20), 10).tolist()
    assert parts["test"].writers is None
    assert parts["train"].name == "idx:digits"


def test_parts_that_are_not_there_are_not_made_up(directory: Path) -> None:
    for path in [*directory.glob("val-*"), *directory.glob("t10k-*")]:
        path.unlink()
    assert set(load_idx(directory, "0123456789")) == {"train"}


def _without_training(folder: Path) -> None:
    next(folder.glob("train-labels*")).unlink()


def _with_two_test_parts(folder: Path) -> None:
    write_pair(folder, "test", np.zeros((1, 28, 28)), np.zeros(1))


def _of_another_size(folder: Path) -> None:
    write_pair(folder, "val", np.zeros((1, 20, 28)), np.zeros(1))


def _empty(folder: Path) -> None:
    write_pair(folder, "val", np.zeros((0, 28, 28)), np.zeros(0))


def _with_writers_as_words(folder: Path) -> None:
    np.save(folder / "writers-train.npy", np.full(200, "ann"))


def _with_writers_of_others(folder: Path) -> None:
    np.save(folder / "writers-train.npy", np.zeros(5, np.int32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_training, "no training pair: train-images-idx3-ubyte and train-labels-idx1-ubyte"),
        (_with_two_test_parts, "holds the test part twice, as test and as t10k"),
        (_of_another_size, r"different sizes: .*20, 28"),
        (_empty, "do not fit together"),
        (_with_writers_as_words, "writer ids of <U3, expected .200,. of integers"),
        (_with_writers_of_others, "holds .5,. writer ids"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(directory: Path, damage, message: str) -> None:
    damage(directory)
    with pytest.raises(DataError, match=message):
        load_idx(directory, "0123456789")


def test_labels_outside_the_set_and_no_directory_are_refused(directory: Path) -> None:
    with pytest.raises(DataError, match=r"label.s. 8, 9 outside its 8 classes .0 to 7."):
        load_idx(directory, "01234567")
    with pytest.raises(DataError, match="not a directory of IDX files"):
        load_idx(directory / "train-images-idx3-ubyte", "0123456789")
