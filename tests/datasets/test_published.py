"""MNIST, chars62 and EMNIST: what is published is read as published, and as torchvision reads it."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from hwr_export.datasets import EMNIST_LABELS, Dataset, find_emnist, find_mnist, load_dataset, load_mnist
from hwr_export.errors import DataError
from tests.datasets.test_idx import to_idx, write_pair


def test_mnist_is_mnist(mnist_test: Dataset) -> None:
    assert mnist_test.images.shape == (10000, 28, 28)
    assert np.bincount(mnist_test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_missing_data_names_the_three_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fetch mnist.*HWR_DATA.*--data-root") as caught:
        load_mnist("train", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(
        DataError, match=r"no dataset 'minst'; known: chars62, emnist-balanced, .*emnist-letters, hw62, mnist"
    ):
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
    with pytest.raises(DataError, match=r"label.s. 62 outside its 62 classes .0 to 61."):
        load_dataset("chars62", "test", chars62)
    (chars62 / "chars62" / "test-labels-idx1-ubyte.gz").write_bytes(gzip.compress(to_idx(np.zeros(61, np.uint8))))
    with pytest.raises(DataError, match="do not fit together"):
        load_dataset("chars62", "test", chars62)
    with pytest.raises(DataError, match="chars62's test part was not found"):
        load_dataset("chars62", "test", tmp_path / "nowhere")


def test_mnist_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in find_mnist().glob("*-ubyte*"):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (raw / path.name.removesuffix(".gz")).write_bytes(content)
    for split in ("train", "test"):
        ours, theirs = load_mnist(split), MNIST(str(tmp_path), train=split == "train", download=False)
        np.testing.assert_array_equal(ours.images, theirs.data.numpy())
        np.testing.assert_array_equal(ours.labels, theirs.targets.numpy())


@pytest.fixture
def emnist(tmp_path: Path, mnist_test: Dataset) -> Path:
    """Real digits under every label of every kind, transposed as EMNIST's files are."""
    raw = tmp_path / "emnist" / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for kind, labels in EMNIST_LABELS.items():
        first = 1 if kind == "letters" else 0
        for split, start in (("train", 0), ("test", 100)):
            numbers = np.arange(first, first + len(labels), dtype=np.uint8)
            images = mnist_test.images[start : start + len(numbers)].transpose(0, 2, 1)
            write_pair(raw, f"emnist-{kind}-{split}", images, numbers)
    return tmp_path


@pytest.mark.parametrize("kind", sorted(EMNIST_LABELS))
def test_emnist_is_what_torchvision_reads_turned_upright(kind: str, emnist: Path, mnist_test: Dataset) -> None:
    from torchvision.datasets import EMNIST

    for split, start in (("train", 0), ("test", 100)):
        ours = load_dataset(f"emnist-{kind}", split, emnist)
        theirs = EMNIST(str(emnist / "emnist"), split=kind, train=split == "train", download=False)
        np.testing.assert_array_equal(ours.images, theirs.data.numpy().transpose(0, 2, 1))
        np.testing.assert_array_equal(ours.images, mnist_test.images[start : start + len(ours)])
        named = [theirs.classes[target] for target in theirs.targets.tolist()]
        if kind == "letters":  # both cases of a letter are one class; torchvision names it by the small one
            named = [name.upper() for name in named]
        assert [ours.label_set[i] for i in ours.labels] == named


def test_emnist_letters_count_from_one(emnist: Path) -> None:
    data = load_dataset("emnist-letters", "train", emnist)
    assert (data.labels.min(), data.labels.max(), data.label_set[0], len(data.label_set)) == (0, 25, "A", 26)
    raw = find_emnist("letters", emnist)
    write_pair(raw, "emnist-letters-train", data.images, data.labels)  # counted from 0, as it must not be
    with pytest.raises(DataError, match=r"label.s. 0 outside its 26 classes .1 to 26."):
        load_dataset("emnist-letters", "train", emnist)


def test_missing_emnist_says_how_to_provide_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"EMNIST digits was not found .*fetch emnist.*gzip\.zip by hand.*HWR_DATA"):
        load_dataset("emnist-digits", "test", tmp_path)
