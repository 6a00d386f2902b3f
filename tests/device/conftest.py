"""Slots filled with the reference release as `hwr-scan install` fills them, and signed archives to fill them with."""

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hwr_export.bundle.archive import pack
from hwr_export.bundle.signature import sign
from hwr_export.device.documents import Slot, SlotRecord
from hwr_export.device.slots import RECORD, Root
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.release import MANIFEST, Release
from hwr_export.scan_cli import main
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


@dataclass(frozen=True)
class Maker:
    """Who makes and signs releases; `folder` holds the archives, `trusted` the public key that devices get."""

    folder: Path
    trusted: Path

    def archive(self, version: str, release: Path = REFERENCE, signed: bool = True) -> Path:
        """Return the archive of a release; the reference release's is made once a session."""
        out = self.folder / ("" if release == REFERENCE else release.name) / f"digits-{version}.hwr"
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            pack(Release.open(release), out)
        if signed and not out.with_name(f"{out.name}.sig").exists():
            sign(out, self.folder / "maker.pem")
        return out


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    made = Maker(tmp_path_factory.mktemp("maker"), tmp_path_factory.mktemp("trusted"))
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (made.folder / "maker.pem").write_bytes(private)
    (made.trusted / "maker.pub").write_bytes(public)
    return made


@pytest.fixture
def scan() -> Callable[..., Result]:
    """Run `hwr-scan` in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


@pytest.fixture
def root(maker: Maker, tmp_path: Path) -> Path:
    """A device on which nothing is installed and whose maker is trusted."""
    path = tmp_path / "device"
    shutil.copytree(maker.trusted, path / "trusted")
    return path
