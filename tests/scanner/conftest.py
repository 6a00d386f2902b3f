"""A device with the reference release, SANE's virtual scanners, and the service as a process of the test's own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.device.conftest import fill
from tests.scanner import devices


@pytest.fixture(scope="session")
def digits() -> list[list[np.ndarray]]:
    """Training images by digit."""
    return devices.training_digits()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A folder with a release in `root`."""
    fill(tmp_path / "root", "a", "1.0.0").switch_to("a")
    return tmp_path


@pytest.fixture
def sane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of SANE: two virtual scanners."""
    if shutil.which("scanimage") is None:
        pytest.fail("scanimage is not installed: apt install sane-utils libsane1")
    folder = devices.virtual_scanners(tmp_path / "sane.d")
    monkeypatch.setenv("SANE_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
def service(device: Path) -> Iterator[Callable[..., devices.Service]]:
    """Start the service with the given part of a configuration; the rest is the same for all tests."""
    started: list[devices.Service] = []

    def start(text: str, **popen: object) -> devices.Service:
        devices.write_config(device / "scan.toml", text)
        started.append(devices.Service(device / "scan.toml", **popen))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        for pipe in (each.process.stdin, each.process.stdout):
            if pipe:
                pipe.close()
