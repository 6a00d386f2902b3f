import contextlib
import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwr_export.datasets import Dataset, find_mnist, load_dataset, load_mnist, parse_idx
from hwr_export.errors import DataError


def to_idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


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


def test_mnist_is_mnist(mnist_test: Dataset) -> None:
    assert mnist_test.images.shape == (10000, 28, 28)
    assert np.bincount(mnist_test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_missing_data_names_the_three_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fetch mnist.*HWR_DATA.*--data-root") as caught:
        load_mnist("train", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(DataError, match="no dataset 'minst'; known: mnist"):
        load_dataset("minst", "test")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in find_mnist().iterdir():
        shutil.copy(path, raw / path.name)
    return tmp_path


def test_gzipped_files_are_found_and_a_changed_one_is_refused(copied: Path) -> None:
    raw = copied / "mnist" / "MNIST" / "raw"
    labels = next(raw.glob("t10k-labels-idx1-ubyte*"))
    content = gzip.decompress(labels.read_bytes()) if labels.suffix == ".gz" else labels.read_bytes()
    labels.unlink()
    packed = raw / "t10k-labels-idx1-ubyte.gz"
    packed.write_bytes(gzip.compress(content))
    assert len(load_mnist("test", copied)) == 10000

    packed.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    with pytest.raises(DataError, match="not the published MNIST file"):
        load_mnist("test", copied)
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be unpacked"):
        load_mnist("test", copied)


def test_writers_of_another_length_are_refused(copied: Path) -> None:
    np.save(copied / "mnist" / "writers-test.npy", np.zeros(5, np.int32))
    with pytest.raises(DataError, match="writer ids"):
        load_mnist("test", copied)
