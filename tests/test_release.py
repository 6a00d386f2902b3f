"""The release directory survives whatever happens to the process that changes it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hwr_export.errors import ReleaseError, UsageError
from hwr_export.files import sha256_bytes
from hwr_export.release import MANIFEST, PARITY, Release, new_release
from hwr_export.spec import ModelSpec, Preprocessing

SPEC = ModelSpec(labels="01", preprocessing=Preprocessing(), parameters=1)


def make(path: Path) -> Release:
    with new_release(path, "made", SPEC, 20) as change:
        model = change.write("model.fp32.onnx", b"old model", "onnx", precision="fp32")
        change.write(PARITY, b"{}", "parity", [model.sha256])
    return Release.open(path)


def test_a_new_release_verifies(tmp_path: Path) -> None:
    release = make(tmp_path / "r")
    assert [(s.path, s.ok) for s in release.verify()] == [("model.fp32.onnx", True), (PARITY, True)]
    assert release.read(release.onnx("fp32")) == b"old model"
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_changed_missing_and_stale_files_are_told_apart(tmp_path: Path) -> None:
    release = make(tmp_path / "r")
    with release.change() as change:
        change.write("model.fp32.onnx", b"new model", "onnx", precision="fp32")
    assert "stale" in {s.path: s.problem for s in release.verify()}[PARITY]
    (tmp_path / "r" / "model.fp32.onnx").write_bytes(b"bad model")
    (tmp_path / "r" / PARITY).unlink()
    problems = {s.path: s.problem for s in release.verify()}
    assert "changed" in problems["model.fp32.onnx"]
    assert problems[PARITY] == "missing"
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        release.read(release.onnx("fp32"))


def test_a_failed_change_leaves_everything(tmp_path: Path) -> None:
    release = make(tmp_path / "r")
    before = (tmp_path / "r" / MANIFEST).read_bytes()
    with pytest.raises(RuntimeError, match="stage failed"), release.change() as change:
        change.write("model.fp32.onnx", b"half", "onnx", precision="fp32")
        raise RuntimeError("stage failed")
    assert (tmp_path / "r" / MANIFEST).read_bytes() == before
    assert all(s.ok for s in Release.open(tmp_path / "r").verify())
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_evidence_of_a_replaced_model_is_refused(tmp_path: Path) -> None:
    release = make(tmp_path / "r")
    measured = release.onnx("fp32").sha256
    with Release.open(tmp_path / "r").change() as change:
        change.write("model.fp32.onnx", b"another", "onnx", precision="fp32")
    with pytest.raises(ReleaseError, match="replaced meanwhile"), release.change() as change:
        change.write(PARITY, b"{}", "parity", [measured])


def test_two_changes_at_once_lose_nothing(tmp_path: Path) -> None:
    make(tmp_path / "r")
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from hwr_export.release import Release
        for i in range(15):
            with Release.open(Path(sys.argv[1])).change() as change:
                change.write(f"engines/{sys.argv[2]}{i}.engine", b"x", "engine")
    """)
    workers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "r", name]) for name in "ab"]
    assert [w.wait(60) for w in workers] == [0, 0]
    release = Release.open(tmp_path / "r")
    assert len(release.by_role("engine")) == 30
    assert all(s.ok for s in release.verify())


KILLER = textwrap.dedent("""
    # Replaces a release again and again, dying without a word at the k-th change to the disk, for every k.
    import ctypes, os, pathlib, shutil, sys
    import hwr_export.release as module
    from hwr_export.release import Release

    path, exchange = pathlib.Path(sys.argv[1]), sys.argv[2] == "exchange"
    counter, limit = 0, 0

    def counted(function):
        def call(*args, **kwargs):
            global counter
            counter += 1
            if counter == limit:
                os._exit(9)
            return function(*args, **kwargs)
        return call

    def child():
        for owner, names in ((os, "link unlink rename replace fsync rmdir mkdir"), (shutil, "rmtree copy2")):
            for name in names.split():
                setattr(owner, name, counted(getattr(owner, name)))
        if not exchange:
            class NoExchange: pass
            ctypes.CDLL = lambda *a, **k: NoExchange()
        with Release.open(path).change() as change:
            model = change.write("model.fp32.onnx", os.urandom(64), "onnx", precision="fp32")
            change.write("parity.json", os.urandom(64), "parity", [model.sha256])

    died = 0
    while True:
        limit += 1
        pid = os.fork()
        if pid == 0:
            child()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        release = Release.open(path)
        problems = [s for s in release.verify() if not s.ok]
        assert not problems, (limit, problems)
        if code == 0:
            break
        assert code == 9, code
        died += 1
    assert [p.name for p in path.parent.iterdir()] == [path.name], list(path.parent.iterdir())
    print(died)
""")


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_death_at_any_step_leaves_a_whole_release(tmp_path: Path, way: str) -> None:
    make(tmp_path / "r")
    done = subprocess.run(
        [sys.executable, "-c", KILLER, tmp_path / "r", way], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_what_is_no_release_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ReleaseError, match="is no release"):
            Release.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"schema": 99}, "schema"),
        (lambda m: m | {"extra": 1}, "extra"),
        (lambda m: m | {"files": [m["files"][0] | {"path": "../../etc/passwd"}]}, "path"),
        (lambda m: m | {"files": [m["files"][0] | {"path": "/etc/passwd"}]}, "path"),
        (lambda m: m | {"model": m["model"] | {"labels": "00"}}, "labels"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, change, message: str) -> None:
    make(tmp_path / "r")
    manifest = tmp_path / "r" / MANIFEST
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    with pytest.raises(ReleaseError, match=message):
        Release.open(tmp_path / "r")


def test_a_truncated_manifest_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "r")
    manifest = tmp_path / "r" / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:50])
    with pytest.raises(ReleaseError, match="not JSON"):
        Release.open(tmp_path / "r")


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="exists and is not a release"):
        make(tmp_path / "photos")
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"x"


def test_manifest_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    release = make(tmp_path / "r")
    assert release.manifest_sha256 == sha256_bytes((tmp_path / "r" / MANIFEST).read_bytes())
    with release.change() as change:
        change.write("bench.json", b"{}", "bench")
    assert release.manifest_sha256 == sha256_bytes((tmp_path / "r" / MANIFEST).read_bytes())
