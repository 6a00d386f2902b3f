"""Only what is signed, newer and right gets into a slot, and what does not leaves the device as it was."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwr_export.device import install as module
from hwr_export.device.documents import SlotState
from hwr_export.device.slots import Root
from hwr_export.device.start import start
from hwr_export.files import json_bytes, sha256_file
from hwr_export.release import GOLDENS, MANIFEST, PARITY, Release
from tests.conftest import change_weight, one_json
from tests.device.conftest import REFERENCE, Maker
from tests.device.test_start import spoil
from tests.engine.test_api import VERSIONS
from tests.machine import Machine


def names(root: Path) -> list[str]:
    """Return every file below a directory with its size, locks aside."""
    return sorted(
        f"{p.relative_to(root)} {p.lstat().st_size} {p.lstat().st_mtime_ns}"
        for p in root.rglob("*")
        if p.is_file() and p.name != "lock"
    )


@pytest.fixture
def installed(root: Path, maker: Maker, scan: Callable) -> Root:
    """A device with 1.1.0 in slot b, and 1.0.0 before it in slot a."""
    for version in ("1.0.0", "1.1.0"):
        done = scan("install", maker.archive(version), "--root", root)
        assert done.exit_code == 0, done.output
    return Root(root)


def test_an_archive_becomes_the_release_of_the_next_start(root: Path, maker: Maker, scan: Callable) -> None:
    done = scan("install", maker.archive("1.0.0"), "--root", root)
    assert done.exit_code == 0, done.output
    assert done.stdout == "digits 1.0.0 is in slot a: the service reads with it from its next start on.\n"
    assert done.stderr.splitlines() == [
        "digits-1.0.0.hwr: digits 1.0.0, signed by maker.pub",
        "unpacking",
        "self-test of model.fp32.onnx on onnxruntime",
    ]
    with start(root) as active:
        assert (active.slot, active.version, active.notes) == ("a", "1.0.0", ())
    done = scan("install", maker.archive("1.10.0"), "--root", root, "--json")
    document = one_json(done.stdout)
    assert (document["result"], document["slot"]) == ("installed", "b")
    assert (document["release"]["version"], document["previous"]["version"]) == ("1.10.0", "1.0.0")
    with start(root) as active:
        assert (active.slot, active.version) == ("b", "1.10.0")
    assert Root(root).left_overs() == []


def test_the_same_again_changes_nothing_and_says_so(installed: Root, maker: Maker, scan: Callable) -> None:
    before = names(installed.path)
    done = scan("install", maker.archive("1.1.0"), "--root", installed.path)
    assert (done.exit_code, done.stdout) == (0, "digits 1.1.0 is active already, in slot b; nothing was changed.\n")
    assert names(installed.path) == before


def test_another_precision_of_the_same_is_installed_and_kept_by_the_next(
    installed: Root, maker: Maker, scan: Callable
) -> None:
    done = scan("install", maker.archive("1.1.0"), "--root", installed.path, "--precision", "int8-cpu")
    assert done.exit_code == 0, done.output
    done = scan("install", maker.archive("1.2.0"), "--root", installed.path)
    assert done.exit_code == 0, done.output
    record = installed.record(installed.current())
    assert (record.version, record.precision, record.file) == ("1.2.0", "int8-cpu", "model.int8-cpu.onnx")


def refused(scan: Callable, root: Path, *arguments: object) -> str:
    """Return why an install was refused, and see that it changed nothing."""
    before = names(root)
    done = scan("install", *arguments, "--root", root)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert names(root) == before
    return done.stderr


def test_what_nobody_trusted_has_signed_is_refused(
    installed: Root, maker: Maker, scan: Callable, tmp_path: Path
) -> None:
    unsigned = shutil.copy(maker.archive("1.2.0"), tmp_path)
    told = refused(scan, installed.path, unsigned)
    assert "is not signed" in told
    assert "--allow-unsigned installs it all the same" in told
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    assert "trusts nobody" in refused(scan, installed.path, maker.archive("1.2.0"), "--trusted", strangers)
    other = maker.archive("1.3.0")
    shutil.copy(other.with_name(f"{other.name}.sig"), tmp_path / "digits-1.2.0.hwr.sig")
    # With a wrong signature beside it, it is not just unsigned.
    told = refused(scan, installed.path, unsigned, "--allow-unsigned")
    assert "is not the file that maker.pub signed" in told
    (tmp_path / "digits-1.2.0.hwr.sig").unlink()
    done = scan("install", unsigned, "--root", installed.path, "--allow-unsigned", "--json")
    assert done.exit_code == 0, done.output
    assert one_json(done.stdout)["release"]["signer"] is None
    assert "nobody" in scan("status", "--root", installed.path).stdout


def test_a_changed_archive_is_refused_by_the_name_of_the_file(
    installed: Root, maker: Maker, scan: Callable, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(maker.archive("1.2.0"), tmp_path))
    data = archive.read_bytes()
    model = (installed.release("a") / "model.fp32.onnx").read_bytes()
    where = data.index(model) + 1000
    archive.write_bytes(data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :])
    assert "model.fp32.onnx is not what was packed" in refused(scan, installed.path, archive, "--allow-unsigned")


def test_an_older_version_is_refused_unless_asked_for(installed: Root, maker: Maker, scan: Callable) -> None:
    old = maker.archive("1.0.0")
    told = refused(scan, installed.path, old)
    assert "is 1.0.0, older than 1.1.0, which is active; --allow-downgrade installs it all the same" in told
    assert scan("install", old, "--root", installed.path, "--allow-downgrade").exit_code == 0
    assert installed.record(installed.current()).version == "1.0.0"


def test_other_files_under_the_same_version_are_refused(
    installed: Root, maker: Maker, scan: Callable, tmp_path: Path
) -> None:
    release = tmp_path / "other"
    shutil.copytree(REFERENCE, release, ignore=shutil.ignore_patterns("engines"))
    with Release.open(release).change() as change:
        change.write("MODEL_CARD.md", b"another card", "card")
    told = refused(scan, installed.path, maker.archive("1.1.0", release))
    assert "is 1.1.0, which is active with other files; give what was changed a version of its own" in told


def test_a_release_that_fails_its_goldens_here_never_gets_into_a_slot(
    installed: Root, maker: Maker, scan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is signed and whole; on this device its model answers otherwise."""
    extract = module.extract

    def on_a_device_that_computes_otherwise(*arguments: object) -> None:
        extract(*arguments)
        change_weight(arguments[1] / "model.fp32.onnx")
        release = arguments[1]
        manifest = json.loads((release / MANIFEST).read_text())
        for file in manifest["files"]:
            file["sha256"], file["made_from"] = sha256_file(release / file["path"]), []
        models = [f["sha256"] for f in manifest["files"] if f["role"] == "onnx"]
        next(f for f in manifest["files"] if f["path"] == PARITY)["made_from"] = models
        (release / MANIFEST).write_bytes(json_bytes(manifest))

    monkeypatch.setattr(module, "extract", on_a_device_that_computes_otherwise)
    told = refused(scan, installed.path, maker.archive("1.2.0"))
    assert "model.fp32.onnx on onnxruntime does not pass its goldens: largest logit difference" in told
    with start(installed.path) as active:
        assert active.version == "1.1.0"


def test_what_was_given_up_here_is_not_tried_every_night(installed: Root, maker: Maker, scan: Callable) -> None:
    archive = maker.archive("1.1.0")
    record = installed.record("b")
    failed = SlotState(installation=record.installation, failures=2, reason="it failed", given_up=True)
    installed.keep("b", failed)
    installed.switch_to("a")
    told = refused(scan, installed.path, archive)
    assert "digits 1.1.0 was installed in slot b and given up (it failed)" in told
    assert scan("gc", "--root", installed.path).exit_code == 0
    assert scan("install", archive, "--root", installed.path).exit_code == 0


def test_a_damaged_release_is_mended_by_installing_it_again(installed: Root, maker: Maker, scan: Callable) -> None:
    spoil(installed.release("b") / GOLDENS)
    done = scan("install", maker.archive("1.1.0"), "--root", installed.path)
    assert done.exit_code == 0, done.output
    assert "goldens.npz is changed" in done.stderr
    with start(installed.path) as active:
        assert (active.version, active.notes) == ("1.1.0", ())


def test_two_installs_at_once_are_told_apart(installed: Root, maker: Maker, scan: Callable) -> None:
    with (installed.path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = refused(scan, installed.path, maker.archive("1.2.0"))
        assert "another `hwr-scan` is installing, rolling back or tidying up" in told
        assert scan("rollback", "--root", installed.path).exit_code == 1
        with start(installed.path) as active:  # a start is not held up
            assert active.version == "1.1.0"


def test_a_plan_cannot_be_built_without_a_gpu(installed: Root, maker: Maker, scan: Callable) -> None:
    before = names(installed.path)
    done = scan("install", maker.archive("1.2.0"), "--root", installed.path, "--target", "native")
    assert done.exit_code in (1, 2)
    assert "there is no NVIDIA GPU that works" in done.stderr or "needs cuda-python" in done.stderr
    assert names(installed.path) == before


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_built_here_proved_and_read_with(
    installed: Root, maker: Maker, scan: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """On fakes of TensorRT and CUDA, where ONNX Runtime stands for the execution: nothing here ran on a GPU."""
    machine = Machine(monkeypatch, tmp_path, version)
    done = scan("install", maker.archive("1.2.0"), "--root", installed.path, "--target", "native")
    assert done.exit_code == 0, done.output
    assert "self-test of engines/model.fp32.native.engine" in done.stderr
    with start(installed.path) as active:
        assert (active.version, active.runner.backend, active.notes) == ("1.2.0", machine.product, ())
    spoil(installed.release("a") / "engines" / "model.fp32.native.engine")
    with start(installed.path) as active:
        assert (active.version, active.runner.backend) == ("1.1.0", "onnxruntime")
        assert "engines/model.fp32.native.engine is changed" in active.notes[0]


def test_a_file_that_passed_nowhere_or_runs_nowhere_here_is_refused(
    installed: Root, maker: Maker, scan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = scan("install", maker.archive("1.2.0"), "--root", installed.path, "--precision", "int4")
    assert (done.exit_code, "has no int4 model; it has: fp16, fp32, int8, int8-cpu" in done.stderr) == (2, True)
    monkeypatch.setattr(module, "why_absent", lambda backend: f"{backend} is not installed")
    done = scan("install", maker.archive("1.2.0"), "--root", installed.path)
    assert done.exit_code == 2
    assert "nothing here runs model.fp32.onnx: onnxruntime: onnxruntime is not installed" in done.stderr
    assert installed.left_overs() == []


def test_a_full_disk_changes_nothing(
    installed: Root, maker: Maker, scan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    archive = maker.archive("1.2.0")
    before = names(installed.path)
    monkeypatch.setattr(os, "fsync", full)
    done = scan("install", archive, "--root", installed.path)
    assert done.exit_code == 1
    assert "No space left on device; nothing was changed" in done.stderr
    monkeypatch.undo()
    assert names(installed.path) == before


# -- rollback, status, gc --------------------------------------------------------------------------------------------


def test_rollback_goes_back_and_forth(installed: Root, scan: Callable) -> None:
    done = scan("rollback", "--root", installed.path)
    assert done.stdout == "digits 1.0.0 in slot a is active again, from the service's next start on.\n"
    with start(installed.path) as active:
        assert (active.version, active.notes) == ("1.0.0", ())
    shown = one_json(scan("status", "--root", installed.path, "--json").stdout)
    assert [(s["state"], s["problem"]) for s in shown["slots"]] == [("active", ""), ("given up", "rolled back by hand")]
    assert one_json(scan("rollback", "--root", installed.path, "--json").stdout)["release"]["version"] == "1.1.0"
    shown = one_json(scan("status", "--root", installed.path, "--json").stdout)
    assert [s["state"] for s in shown["slots"]] == ["given up", "active"]
    assert shown["ok"]


def test_there_is_no_way_back_to_a_damaged_or_empty_slot(installed: Root, scan: Callable, tmp_path: Path) -> None:
    spoil(installed.release("a") / "model.fp32.onnx")
    done = scan("rollback", "--root", installed.path)
    assert (done.exit_code, "slot a: model.fp32.onnx is changed" in done.stderr) == (1, True)
    assert installed.current() == "b"
    assert scan("gc", "--root", installed.path).stdout.startswith("removed slots/a: digits 1.0.0\n")
    done = scan("rollback", "--root", installed.path)
    assert "there is no release to go back to" in done.stderr
    assert "nothing is installed in" in scan("rollback", "--root", tmp_path / "none").stderr


def test_status_tells_what_is_wrong(installed: Root, scan: Callable) -> None:
    assert "model.fp32.onnx on onnxruntime" in scan("status", "--root", installed.path).stdout
    spoil(installed.release("b") / PARITY)
    (installed.path / "slots" / ".next").mkdir()
    done = scan("status", "--root", installed.path)
    assert done.exit_code == 1
    assert "parity.json is changed" in " ".join(done.stdout.split())
    assert "`hwr-scan gc` removes what it left" in done.stdout
    (installed.path / "current").unlink()
    done = scan("status", "--root", installed.path)
    assert (done.exit_code, "Problem: no slot of" in done.stdout) == (1, True)


def test_gc_takes_what_nobody_needs_and_nothing_else(installed: Root, scan: Callable) -> None:
    left = installed.path / "slots" / ".next" / "release"
    left.mkdir(parents=True)
    (left / "half").write_bytes(bytes(5000))
    done = scan("gc", "--root", installed.path, "--json")
    found = one_json(done.stdout)
    assert found["removed"] == ["slots/.next"]
    assert found["freed_bytes"] >= 5000
    assert one_json(scan("gc", "--root", installed.path, "--json").stdout)["removed"] == []
    assert installed.filled() == ["b", "a"]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "from hwr_export.scan_cli import main; main()"
    for command in ("--help", "install --help", "status --help"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, *command.split()],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
        assert not imported & {"numpy", "onnxruntime", "PIL", "pydantic", "rich", "cryptography"}
