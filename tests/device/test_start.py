"""Whatever happened to a slot, a device starts with a whole release that answers as it should, or says why not."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwr_export.device import selftest
from hwr_export.device.documents import SlotState
from hwr_export.device.slots import RECORD, Root
from hwr_export.device.start import start
from hwr_export.errors import ScannerError
from hwr_export.files import json_bytes
from hwr_export.goldens import Goldens
from hwr_export.release import CHECKPOINT, GOLDENS, MANIFEST, PARITY, Release
from hwr_export.spec import INPUT
from tests.conftest import ROOT, change_weight
from tests.device.conftest import fill, vouch


def spoil(path: Path) -> None:
    """Turn one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def state_of(home: Root, slot: str) -> SlotState:
    record = home.record(slot)
    assert record
    return home.state().of(slot, record.installation)


def test_the_current_slot_reads(home: Root) -> None:
    with start(home.path) as active:
        assert (active.slot, active.version, active.notes) == ("b", "1.1.0", ())
        goldens = Goldens.from_bytes((active.release.path / GOLDENS).read_bytes(), GOLDENS)
        answers = active.runner.infer({INPUT: goldens.images[:8]})["logits"].argmax(axis=1)
        assert (answers == goldens.logits[:8].argmax(axis=1)).all()
    assert home.state().last_good == "b"
    assert state_of(home, "b").failures == 0


def test_nothing_installed_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ScannerError, match=r"nothing is installed in .*: run `hwr-scan install"):
            start(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-cpu"])
def test_every_file_of_the_reference_release_passes(tmp_path: Path, precision: str) -> None:
    home = fill(tmp_path, "a", "1.0.0", precision=precision, file=f"model.{precision}.onnx")
    with start(home.path) as active:
        assert active.runner.backend == "onnxruntime"


@pytest.mark.parametrize("name", ["model.fp32.onnx", MANIFEST, CHECKPOINT, GOLDENS, PARITY])
def test_a_tampered_file_is_refused_by_name_and_the_other_slot_takes_over(home: Root, name: str) -> None:
    spoil(home.release("b") / name)
    with start(home.path) as active:
        assert active.slot == "a"
        assert name in active.notes[0]
        assert "slot b" in active.notes[0]
        assert "fell back to digits 1.0.0 in slot a" in active.notes[0]
    assert home.current() == "a"
    assert state_of(home, "b").given_up


def test_another_label_set_is_refused_by_name(home: Root) -> None:
    path = home.release("b") / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["model"]["labels"] = "1023456789"
    path.write_bytes(json_bytes(manifest))
    with start(home.path) as active:
        assert "manifest.json, which holds the label set, is not the file that was installed" in active.notes[0]


def test_a_tampered_plan_is_refused_by_name(home: Root) -> None:
    with Release.open(home.release("b")).change() as change:
        change.write("engines/model.fp32.native.engine", b"plan", "engine", precision="fp32")
    vouch(home, "b", lambda _: None)
    spoil(home.release("b") / "engines" / "model.fp32.native.engine")
    with start(home.path) as active:
        assert active.slot == "a"
        assert "engines/model.fp32.native.engine is changed" in active.notes[0]


def test_a_tampered_or_lost_record_is_refused(home: Root) -> None:
    (home.slot("b") / RECORD).write_text("{}")
    with start(home.path) as active:
        assert active.slot == "a"
        assert "slot.json is not what was written: installation: Field required" in active.notes[0]
    (home.slot("a") / RECORD).unlink()
    with pytest.raises(ScannerError, match=r"no slot of .* can be used: .*slot\.json cannot be read.*Field required"):
        start(home.path)


def test_a_signed_model_that_fails_its_goldens_is_left_within_two_seconds(home: Root) -> None:
    vouch(home, "b", lambda release: change_weight(release / "model.fp32.onnx"))
    started = time.perf_counter()
    with start(home.path) as active:
        took_s = time.perf_counter() - started
        assert active.slot == "a"
        assert "model.fp32.onnx on onnxruntime does not pass its goldens: largest logit difference" in active.notes[0]
    assert took_s <= 2.0
    assert home.current() == "a"
    with start(home.path) as again:
        assert again.notes == ()


def test_a_flipped_answer_is_refused_where_numbers_are_not_gated(tmp_path: Path) -> None:
    """An integer file moves every number: its decisions say whether it is the file that was released."""
    import onnx
    from onnx import numpy_helper

    def swap(release: Path) -> None:
        model = onnx.load(release / "model.int8-cpu.onnx")
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4 and tensor.data_type == onnx.TensorProto.INT8:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
        onnx.save(model, release / "model.int8-cpu.onnx")

    home = fill(tmp_path, "a", "1.0.0", precision="int8-cpu", file="model.int8-cpu.onnx")
    vouch(home, "a", swap)
    with pytest.raises(ScannerError, match=r"\d+ of 256 change their answer, 3 did when it was released"):
        start(home.path)


def test_broken_preprocessing_is_noticed(home: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "normalize", lambda grey, height, width: np.zeros((height, width), np.uint8))
    with pytest.raises(ScannerError, match="same answer as images of ink on paper: preprocessing is at fault"):
        start(home.path)
    monkeypatch.setattr(selftest, "normalize", lambda grey, height, width: None)
    with pytest.raises(ScannerError, match="preprocessing finds no ink in any of them"):
        start(home.path)


def test_without_evidence_nothing_starts(home: Root) -> None:
    def fail(release: Path) -> None:
        parity = json.loads((release / PARITY).read_text())
        for cell in parity["cells"]:
            cell["verdict"] = "FAIL"
        (release / PARITY).write_bytes(json_bytes(parity))

    vouch(home, "b", fail)
    with start(home.path) as active:
        assert "nothing in" in active.notes[0]
        assert "says that model.fp32.onnx passed on onnxruntime" in active.notes[0]


def bomb(release: Path) -> None:
    with zipfile.ZipFile(release / GOLDENS, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("images.npy", bytes(200_000_000))


def claim(release: Path) -> None:
    """A header that declares more than any memory holds."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({1 << 60},), }}"
    with zipfile.ZipFile(release / GOLDENS, "w") as packed:
        packed.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def no_evidence(release: Path) -> None:
    (release / PARITY).write_text('{"cells": [{"backend": "onnxruntime"}]}')


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (bomb, "goldens.npz unpacks to 200,000,000 bytes; goldens have 100,000,000 at most"),
        (claim, "goldens.npz cannot be read as goldens"),
        (lambda release: (release / GOLDENS).write_bytes(b"none"), "goldens.npz is no npz file"),
        (no_evidence, "parity.json is no evidence: cells.0.precision: Field required"),
    ],
)
def test_documents_of_a_release_are_not_trusted(home: Root, change: Callable, told: str) -> None:
    vouch(home, "b", change)
    with start(home.path) as active:
        assert told in active.notes[0]


CRASH = """
import os, sys
from pathlib import Path
from hwr_export.device import start as module
from hwr_export.device.slots import Root

tried = Root(Path(sys.argv[1])).slot("b")
whole = module.require_whole
def crash(root, slot, record):
    if root.slot(slot) == tried:
        os.kill(os.getpid(), 9)
    return whole(root, slot, record)
module.require_whole = crash
with module.start(Path(sys.argv[1])) as active:
    print(active.slot)
"""


def test_a_runner_that_takes_the_process_down_counts_too(home: Root) -> None:
    def run() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", CRASH, str(home.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert [run().returncode for _ in range(2)] == [-9, -9]
    assert state_of(home, "b").failures == 2
    third = run()
    assert (third.returncode, third.stdout) == (0, "a\n"), third.stderr
    found = state_of(home, "b")
    assert found.given_up
    assert found.reason == "the process ended during its self-test"


def test_a_failure_that_passes_is_forgotten(home: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = selftest.require_whole, []

    def once(*arguments: object) -> Release:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        return whole(*arguments)

    monkeypatch.setattr("hwr_export.device.start.require_whole", once)
    with start(home.path) as active:
        assert active.slot == "b"
    assert state_of(home, "b") == SlotState(installation=home.record("b").installation)


def test_what_was_given_up_is_better_than_nothing(home: Root) -> None:
    record = home.record("b")
    home.keep("b", SlotState(installation=record.installation, failures=2, given_up=True, reason="rolled back"))
    spoil(home.release("a") / GOLDENS)
    home.switch_to("a")
    with start(home.path) as active:
        assert active.slot == "b"
    assert not state_of(home, "b").given_up


def test_where_no_slot_passes_both_reasons_are_told_and_the_next_start_tries_again(home: Root) -> None:
    model = home.release("a") / "model.fp32.onnx"
    good = model.read_bytes()
    for slot in "ab":
        spoil(home.release(slot) / "model.fp32.onnx")
    for _ in range(2):
        with pytest.raises(ScannerError, match=r"slot b: model\.fp32\.onnx is changed.*slot a: model\.fp32\.onnx is"):
            start(home.path)
    model.write_bytes(good)
    with start(home.path) as active:
        assert active.slot == "a"


def test_damaged_counts_are_begun_anew_and_told(home: Root) -> None:
    (home.path / "state.json").write_text("{")
    with start(home.path) as active:
        assert active.slot == "b"
        assert "state.json is not JSON" in active.notes[0]
    assert home.state().last_good == "b"


def test_a_lost_link_is_made_again(home: Root) -> None:
    (home.path / "current").unlink()
    with start(home.path) as active:
        assert home.current() == active.slot


@pytest.mark.parametrize("broken", [False, True])
def test_a_full_disk_keeps_nobody_from_reading(home: Root, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    if broken:
        spoil(home.release("b") / GOLDENS)
    monkeypatch.setattr(Root, "write_state", full)
    monkeypatch.setattr(Root, "switch_to", full)
    with start(home.path) as active:
        assert active.slot == ("a" if broken else "b")
        assert "cannot be written to (No space left on device): starts are not counted" in active.notes[-1]


def test_a_cut_between_the_two_renames_of_a_slot_is_undone(home: Root) -> None:
    home.slot("a").rename(home.slot("a").with_name(".replaced-a"))
    spoil(home.release("b") / GOLDENS)
    with start(home.path) as active:
        assert active.slot == "a"
    assert home.left_overs() == []


def test_starting_needs_no_torch_and_little_time(home: Root, hwr_process: Callable) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'cv2', 'onnxscript', 'safetensors')))\n"
        "from pathlib import Path\nfrom hwr_export.device.start import start\n"
        "with start(Path(sys.argv[1])) as active: print(active.slot)"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, home.path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    after = os.times()
    assert (done.returncode, done.stdout) == (0, "b\n"), done.stderr
    assert after.children_user - before.children_user < 3


def test_nothing_is_reported_to_anybody(home: Root, tmp_path: Path) -> None:
    """ONNX Runtime would note every process in the user's cache and send it to its maker."""
    code = (
        "import sys; from pathlib import Path; from hwr_export.device.start import start; "
        "start(Path(sys.argv[1])).close()"
    )
    environment = os.environ | {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment.pop("ORT_DISABLE_TELEMETRY")
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", code, home.path], check=True, cwd=ROOT, env=environment)
    assert list((tmp_path / "home").rglob("*")) == []
