"""The systemd unit is valid and leaves the service little to harm the system with."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

UNIT = ROOT / "scripts" / "systemd" / "hwr-scan.service"
EXPOSURE = 1.5  # systemd's own scale: 0 none, 10 all


@pytest.fixture
def analyze():
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is not installed: apt install systemd")

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_the_unit_is_valid(analyze, tmp_path: Path) -> None:
    program = re.search(r"^ExecStart=(\S+)", UNIT.read_text(), re.MULTILINE)[1]
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace(program, sys.executable))
    verified = analyze("verify", installed)
    assert (verified.returncode, verified.stderr) == (0, "")
    installed.write_text(installed.read_text().replace("WatchdogSec=", "WatchdogMinutes="))
    assert "WatchdogMinutes" in analyze("verify", installed).stderr


def test_the_unit_is_hardened(analyze) -> None:
    found = analyze("security", "--offline=true", f"--threshold={round(EXPOSURE * 10)}", UNIT)
    assert found.returncode == 0, found.stdout
    assert analyze("security", "--offline=true", "--threshold=1", UNIT).returncode != 0


def test_the_service_has_the_directories_it_writes_to_by_default() -> None:
    text = UNIT.read_text()
    assert "StateDirectory=hwr-scan\n" in text
    assert "RuntimeDirectory=hwr-scan\n" in text
    assert "run --config /etc/hwr-scan/scan.toml\n" in text
