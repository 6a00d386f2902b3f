"""The script that prepares a device: what it would do, what it does below a prefix, and that twice is once."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "install_device.sh"
# In place of Python: makes an environment that holds itself, and notes what pip is asked for.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") echo "venv $3" >>"$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip") echo "$@" >>"$LOG" ;;
esac
"""


@pytest.fixture
def prepare(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    log = tmp_path / "log"
    log.touch()

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = ["bash", str(SCRIPT), *map(str, arguments)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON": str(python), "LOG": str(log)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    run.log = log
    return run


def test_it_is_a_script_that_bash_takes() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def test_a_dry_run_says_all_and_does_nothing(prepare, maker, tmp_path: Path) -> None:
    prefix = tmp_path / "image"
    done = prepare("--prefix", prefix, "--key", maker.trusted / "maker.pub", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"'{prefix}/opt/hwr-scan/bin/python' '-m' 'pip' 'install'" in done.stdout
    assert "'hwr-export[cpu,scan]'" in done.stdout
    assert not prefix.exists()
    assert prepare.log.read_text() == ""


def test_below_a_prefix_everything_is_there_and_twice_is_once(prepare, maker, tmp_path: Path) -> None:
    prefix = tmp_path / "image"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for _ in range(2):
        done = prepare(
            "--prefix", prefix, "--wheels", wheels, "--extras", "cpu,scan,forms", "--key", maker.trusted / "maker.pub"
        )
        assert done.returncode == 0, done.stderr
    venv, *pips = prepare.log.read_text().splitlines()
    assert venv == f"venv {prefix}/opt/hwr-scan"
    options = f"--upgrade --no-index --find-links {wheels} hwr-export[cpu,scan,forms]"
    assert [pip.endswith(options) for pip in pips] == [True, True]
    assert (prefix / "etc/hwr-scan/trusted/maker.pub").is_file()
    assert (prefix / "var/lib/hwr-scan/trusted").readlink() == Path("/etc/hwr-scan/trusted")
    assert (prefix / "var/lib/hwr-scan/incoming").is_dir()
    assert {p.name for p in (prefix / "etc/systemd/system").iterdir()} == {
        p.name for p in (ROOT / "scripts" / "systemd").iterdir()
    }


def test_what_cannot_be_done_is_said_before_anything_is(prepare, maker, tmp_path: Path) -> None:
    prefix = tmp_path / "image"
    for arguments, told in (
        (("--wheels", tmp_path / "none"), "there is no folder of wheels"),
        (("--key", maker.folder / "maker.pem"), "is a private key, which must never be on a device"),
        (("--key", tmp_path / "none.pub"), "is no key file"),
        (("--key",), "--key needs a value"),
        (("--all",), "there is no option --all"),
    ):
        done = prepare("--prefix", prefix, *arguments)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not prefix.exists()
