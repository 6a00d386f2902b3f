"""Slots filled with the reference release, as `hwr-scan install` fills them."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hwr_export.device.documents import Slot, SlotRecord
from hwr_export.device.slots import RECORD, Root
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.release import MANIFEST, Release
from tests.conftest import ROOT

REFERENCE = ROOT / "exported" / "digits"
NOT_FOR_DEVICES = shutil.ignore_patterns("engines", "weights-*", "bench*", "profile.json", "quantization.json")


def device_release(out: Path) -> Path:
    """Copy what a device gets of the reference release."""
    shutil.copytree(REFERENCE, out, ignore=NOT_FOR_DEVICES)
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["files"] = [f for f in manifest["files"] if (out / f["path"]).is_file()]
    kept = {f["sha256"] for f in manifest["files"]}
    for file in manifest["files"]:
        file["made_from"] = [sha256 for sha256 in file["made_from"] if sha256 in kept]
    (out / MANIFEST).write_bytes(json_bytes(manifest))
    return out


def fill(root: Path, slot: Slot, version: str, **changes: str) -> Root:
    """Put the reference release into a slot."""
    home = Root(root)
    release = device_release(home.release(slot))
    record = SlotRecord(
        installation=uuid.uuid4().hex,
        name="digits",
        version=version,
        bundle_sha256=sha256_bytes(version.encode()),
        manifest_sha256=Release.open(release).manifest_sha256,
        signer="maker.pub",
        target="cpu",
        backend="onnxruntime",
        precision="fp32",
        file="model.fp32.onnx",
        installed_at="2026-11-25T00:00:00+00:00",
    ).model_copy(update=changes)
    (home.slot(slot) / RECORD).write_bytes(record.to_json())
    return home


@pytest.fixture
def home(tmp_path: Path) -> Root:
    """Two versions: 1.1.0 in slot b, which is current, and 1.0.0 before it in slot a."""
    fill(tmp_path / "root", "a", "1.0.0")
    root = fill(tmp_path / "root", "b", "1.1.0")
    root.switch_to("b")
    return root


def vouch(home: Root, slot: Slot, change: Callable[[Path], None]) -> None:
    """Change files of a slot's release as if they had been released and installed so."""
    release = home.release(slot)
    change(release)
    manifest = json.loads((release / MANIFEST).read_text())
    old = {f["path"]: f["sha256"] for f in manifest["files"]}
    for file in manifest["files"]:
        file["sha256"] = sha256_bytes((release / file["path"]).read_bytes())
    new = {old[f["path"]]: f["sha256"] for f in manifest["files"]}
    for file in manifest["files"]:
        file["made_from"] = [new.get(sha256, sha256) for sha256 in file["made_from"]]
    (release / MANIFEST).write_bytes(json_bytes(manifest))
    record = home.record(slot)
    assert record
    record = record.model_copy(update={"manifest_sha256": Release.open(release).manifest_sha256})
    (home.slot(slot) / RECORD).write_bytes(record.to_json())
