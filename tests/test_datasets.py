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
    with pytest.raises(DataError, match="no dataset 'minst'; known: chars62, mnist"):
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


@pytest.fixture
def chars62(tmp_path: Path) -> Path:
    """A made chars62, so that the tests need only MNIST."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "chars62"
    folder.mkdir()
    for prefix, each in (("train", 3), ("val", 1), ("test", 1)):
        labels = np.repeat(np.arange(62), each).astype(np.uint8)
        images = rng.integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(to_idx(array)))
    return tmp_path


def test_chars62_has_its_three_parts(chars62: Path) -> None:
    sizes = [len(load_dataset("chars62", split, chars62)) for split in ("train", "validation", "test")]
    assert sizes == [186, 62, 62]
    data = load_dataset("chars62", "test", chars62)
    assert [data.label_set[i] for i in (0, 9, 10, 35, 36, 61)] == list("09AZaz")


def test_chars62_that_does_not_fit_or_is_missing_is_refused(chars62: Path, tmp_path: Path) -> None:
    (chars62 / "chars62" / "test-labels-idx1-ubyte.gz").write_bytes(gzip.compress(to_idx(np.full(62, 62, np.uint8))))
    with pytest.raises(DataError, match="do not fit together"):
        load_dataset("chars62", "test", chars62)
    with pytest.raises(DataError, match="chars62's test part was not found"):
        load_dataset("chars62", "test", tmp_path / "nowhere")
