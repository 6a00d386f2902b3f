"""What is found out about the GPU of a machine."""

from pathlib import Path

import pytest

from hwr_export.engine import device as device_module
from hwr_export.engine.device import find_device
from tests.engine.test_api import VERSIONS
from tests.machine import Machine


def test_a_jetson_tells_its_release_and_power_mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, tmp_path, VERSIONS[0])
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: 15W'\necho 0\n")
    tool.chmod(0o755)
    release_file = tmp_path / "nv_tegra_release"
    release_file.write_text("# R36 (release), REVISION: 4.3\nmore\n")
    monkeypatch.setattr(device_module, "L4T", release_file)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_device()
    assert (found.l4t, found.power_mode, found.driver) == ("# R36 (release), REVISION: 4.3", "15W", "540.4.0")
    tool.write_text("#!/bin/sh\necho 'this asks for root' >&2\nexit 1\n")
    machine.driver.write_text("no version here\n")
    found = find_device()
    assert (found.power_mode, found.driver) == (None, "CUDA 12.6")
