"""The command line: help for everything, one sentence for what is wrong, one JSON document for programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hwr_export.checkpoint import CHECKPOINT_JSON
from hwr_export.cli import main
from hwr_export.files import sha256_bytes
from hwr_export.release import MANIFEST, Release
from tests.conftest import ROOT, one_json

COMMANDS = sorted(main.commands)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str, hwr) -> None:
    command = main.commands[name]
    assert hwr(name, "--help").exit_code == 0
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_options_are_wrong_usage(name: str, hwr) -> None:
    assert hwr(name, "--no-such-option").exit_code == 2


# -- bad input: one sentence, the right exit code, nothing changed ---------------------------------------------------


def truncate_model(release: Path) -> None:
    path = release / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_model(release: Path) -> None:
    (release / "model.fp32.onnx").unlink()


def empty_manifest(release: Path) -> None:
    (release / MANIFEST).write_text("")


def break_image(release: Path) -> None:
    (release.parent / "seven.png").write_text("not an image")


CASES = {
    "trt": ("trt", "{release}", "--target", "sm86"),
    "parity": ("parity", "{release}", "--baseline", "goldens"),
    "bench": ("bench", "{release}", "--seconds", "0.01"),
    "read": ("read", "{image}", "--release", "{release}"),
    "show": ("show", "{release}"),
}


def arguments_of(command: str, release: Path, image: Path) -> list[str]:
    return [a.format(release=release, image=image) for a in CASES[command]]


@pytest.mark.parametrize("command", CASES)
@pytest.mark.parametrize("place", ["nowhere", "folder", "file"])
def test_what_is_no_release(command: str, place: str, tmp_path: Path, digit_png: Path, hwr) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    result = hwr(*arguments_of(command, tmp_path / place, digit_png))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / place} is no release: expected a directory with manifest.json")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "damage", "code", "message"),
    [
        ("trt", truncate_model, 2, "not the file the manifest vouches for"),
        ("bench", truncate_model, 2, "not the file the manifest vouches for"),
        ("read", truncate_model, 2, "not the file the manifest vouches for"),
        ("parity", truncate_model, 1, ""),
        ("show", truncate_model, 1, ""),
        ("trt", remove_model, 2, "cannot be read"),
        ("bench", remove_model, 2, "cannot be read"),
        ("read", remove_model, 2, "cannot be read"),
        ("parity", remove_model, 2, "cannot be read"),
        ("show", remove_model, 1, ""),
        *((c, empty_manifest, 2, "not JSON") for c in CASES),
        ("read", break_image, 2, "is not an image"),
    ],
)
def test_damaged_releases(command, damage, code: int, message: str, release_dir: Path, digit_png: Path, hwr) -> None:
    damage(release_dir)
    before = snapshot(release_dir)
    result = hwr(*arguments_of(command, release_dir, digit_png))
    assert result.exit_code == code, result.output
    if message:
        assert message in result.stderr
        assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
        assert result.stdout == ""
    assert "Traceback" not in result.output
    if command != "parity" or code == 2:
        assert snapshot(release_dir) == before


def test_an_image_beside_a_broken_one_is_not_half_reported(
    release_dir: Path, digit_png: Path, tmp_path: Path, hwr
) -> None:
    (tmp_path / "broken.png").write_text("x")
    result = hwr("read", digit_png, tmp_path / "broken.png", "--release", release_dir, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""


def edited(run_dir: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of a run whose checkpoint.json says something else."""
    folder = tmp_path / "run"
    folder.mkdir()
    info = json.loads((run_dir / CHECKPOINT_JSON).read_text())
    (folder / info["weights"]["file"]).write_bytes((run_dir / info["weights"]["file"]).read_bytes())
    (folder / CHECKPOINT_JSON).write_text(json.dumps(info | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"channels": [8, 8, 12, 24]}}, r"do not fit EdgeNet"),
        ({"labels": "0123456"}, r"do not fit EdgeNet"),
        ({"architecture": "resnet9000"}, r"no architecture 'resnet9000'; known: article-cnn, edge"),
    ],
)
def test_checkpoints_of_the_wrong_shape(run_dir, release_dir: Path, tmp_path: Path, changes, message, hwr) -> None:
    before = snapshot(release_dir)
    result = hwr("onnx", edited(run_dir, tmp_path, **changes), "-o", release_dir)
    assert result.exit_code == 2
    assert message in result.stderr
    assert snapshot(release_dir) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 2, "there is no checkpoint at nowhere"),
        (("nowhere.pt2",), 2, "there is no program nowhere.pt2"),
        ((), 2, "give either CHECKPOINT, or --module together with --weights"),
        (("{run}", "--module", "a:b"), 2, "give either CHECKPOINT, or --module"),
        (("--module", "a:b"), 2, "give either CHECKPOINT, or --module together with --weights"),
        (("--module", "nomodule:make", "--weights", "w.pt"), 2, "nomodule:make cannot be built"),
        (("--module", "torch.nn:Identity", "--weights", "w.pt"), 2, "there is no weights file w.pt"),
        (("{run}", "--input-size", "28"), 2, "--input-size takes HEIGHTxWIDTH"),
        (("{run}", "--input-size", "0x28"), 2, "preprocessing cannot have height 0"),
        (("{run}", "--std", "0"), 2, "preprocessing cannot have std 0"),
        (("{run}", "--opset", "13"), 1, "opset 13 is not offered; choose 18 to 26"),
        (("{run}", "--max-batch", "1"), 2, "--max-batch"),
        (("{run}", "--samples", "nowhere"), 2, "--samples takes a dataset (mnist, chars62, emnist-byclass, "),
    ],
)
def test_export_that_cannot_be(run_dir, tmp_path: Path, monkeypatch, hwr, arguments, code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = hwr("onnx", *(a.format(run=run_dir) for a in arguments), "-o", "out/digits")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_exporting_over_a_folder_of_something_else(run_dir: Path, tmp_path: Path, hwr) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    result = hwr("onnx", run_dir, "-o", tmp_path / "photos")
    assert result.exit_code == 2
    assert "exists and is not a release" in result.stderr
    assert snapshot(tmp_path) == {"photos/a.jpg": b"x"}


@pytest.mark.parametrize("stage", ["tracing", "comparing"])
def test_export_killed_at_any_stage_leaves_the_previous_release(run_dir, release_dir: Path, stage: str) -> None:
    before = snapshot(release_dir)
    command = [sys.executable, "-m", "hwr_export", "onnx", run_dir, "-o", release_dir, "--max-batch", "8"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if line.startswith(stage):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    release = Release.open(release_dir)
    assert all(s.ok for s in release.verify())
    assert snapshot(release_dir) == before or release.spec.max_batch == 8


def test_a_full_disk_is_a_sentence(release_dir: Path, monkeypatch: pytest.MonkeyPatch, hwr) -> None:
    before = snapshot(release_dir)

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    result = hwr("trt", release_dir, "--target", "sm86")
    assert result.exit_code == 1
    assert "No space left on device; nothing was changed" in result.stderr
    assert snapshot(release_dir) == before


@pytest.mark.parametrize("command", ["trt", "parity", "bench"])
def test_a_release_that_cannot_be_written_is_said_first(command, release_dir, digit_png, monkeypatch, hwr) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    result = hwr(*arguments_of(command, release_dir, digit_png))
    assert result.exit_code == 2
    assert "copy the release elsewhere first" in result.stderr
    assert result.stderr.count("\n") == 1


# -- show ------------------------------------------------------------------------------------------------------------


def test_show_lists_and_checks(release_dir: Path, hwr) -> None:
    document = one_json(hwr("show", release_dir, "--json").stdout)
    assert document["ok"] is True
    assert document["schema"] == 1
    for file in document["files"]:
        assert file["ok"] is True
        assert file["sha256"] == sha256_bytes((release_dir / file["path"]).read_bytes())
    assert {f["path"] for f in document["files"]} | {MANIFEST} == {p.name for p in release_dir.iterdir()}

    truncate_model(release_dir)
    result = hwr("show", release_dir, "--json")
    assert result.exit_code == 1
    document = one_json(result.stdout)
    assert document["ok"] is False
    assert [f["path"] for f in document["files"] if not f["ok"]] == ["model.fp32.onnx"]


def test_tables_are_for_people(release_dir: Path, digit_png: Path, hwr) -> None:
    assert "Every hash holds." in hwr("show", release_dir).stdout
    assert " 7 " in hwr("read", digit_png, "--release", release_dir).stdout
    assert "Verdict: PASS" in hwr("parity", release_dir, "--baseline", "goldens").stdout


def test_json_is_alone_on_stdout_whatever_libraries_print(release_dir: Path) -> None:
    code = (
        "import os, hwr_export.runners as r\n"
        "real = r.installed\n"
        "def loud(b):\n"
        "    os.write(1, b'C++ speaks\\n'); print('python speaks'); return real(b)\n"
        "r.installed = loud\n"
        "import hwr_export.parity as p\np.installed = loud\n"
        "from hwr_export.cli import main; main()\n"
    )
    command = [sys.executable, "-c", code, "parity", release_dir, "--baseline", "goldens", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert one_json(done.stdout)["verdict"] == "PASS"
    assert "C++ speaks" in done.stderr
    assert "python speaks" in done.stderr


def test_the_installed_script_is_the_command() -> None:
    script = Path(sys.executable).parent / "hwr-export"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hwr-export, version ")
