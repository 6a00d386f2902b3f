"""Archive -> verified, unpacked beside the slots, built where asked, self-tested, put into the free slot, switched to.

Until the switch, which is one rename, the device is as it was; whatever fails or is cut off before changes neither
slot. What reads is left alone: the new release is for its next start.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hwr_export.bundle.archive import check, extract
from hwr_export.bundle.index import BundleIndex
from hwr_export.bundle.signature import signature_path, verify
from hwr_export.device.documents import Slot, SlotRecord, Target
from hwr_export.device.selftest import require_whole, tested_runner
from hwr_export.device.slots import RECORD, RELEASE, TRUSTED, Root, other
from hwr_export.engine.device import find_device
from hwr_export.errors import BundleError, ScannerError, UsageError
from hwr_export.evidence import evidence, verdict_in
from hwr_export.files import sha256_bytes, write_atomic
from hwr_export.native import NativeConfig, build_native, product_here
from hwr_export.release import FP32, PARITY, Release, is_for
from hwr_export.runners import ONNX_BACKENDS, why_absent


@dataclass(frozen=True)
class InstallConfig:
    """What may be installed and what is to run it; `target` and `precision` None are those of the current slot.

    `trusted` None is the folder in ROOT, `signature` None the file beside the archive.
    """

    target: Target | None = None
    precision: str | None = None
    trusted: Path | None = None
    signature: Path | None = None
    allow_unsigned: bool = False
    allow_downgrade: bool = False
    threads: int = 1


def install(
    archive: Path, root: Path, config: InstallConfig, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Install an archive and make it the release of the next start; of one that is active already, say so.

    Raises:
        BundleError: not signed by anybody trusted, not what its index says, or a version that is refused.
        ScannerError: it does not pass on this device, or another install is running.
        UsageError, EngineError: what it is to run on is not here.
    """
    home = Root(root)
    signer, index = _vouched(archive, config.trusted or root / TRUSTED, config)
    say(f"{archive.name}: {index.name} {index.version}, {f'signed by {signer}' if signer else 'signed by nobody'}")
    with home.locked():
        with home.switching():  # finishes what a cut left half done
            home.tidy()
        return _Install(archive, home, config, index, signer, say).run()


def _vouched(archive: Path, trusted: Path, config: InstallConfig) -> tuple[str | None, BundleIndex]:
    """Return who signed an archive, None where nobody need have, and what it holds."""
    signature = config.signature or signature_path(archive)
    # A signature that is there must be good: a bad one is a sign of more than of carelessness.
    if config.allow_unsigned and config.signature is None and not signature.exists():
        return None, check(archive)
    try:
        found = verify(archive, trusted, config.signature)
    except BundleError as err:
        unsigned = archive.is_file() and not signature.exists()
        hint = "; --allow-unsigned installs it all the same" if unsigned else ""
        raise BundleError(f"{err}{hint}") from err
    return found.signer, found.index


@dataclass(frozen=True)
class _Install:
    archive: Path
    home: Root
    config: InstallConfig
    index: BundleIndex
    signer: str | None
    say: Callable[[str], None]

    def run(self) -> dict[str, Any]:
        current = self.home.current()
        before = self._readable(current)
        target = self.config.target or (before.target if before else "cpu")
        precision = self.config.precision or (before.precision if before else FP32)
        if current and before and self._is_active(current, before, target, precision):
            return self._answer("already active", current, before, None)
        self._require_new(before)
        self._require_untried(other(current))
        if target == "native":
            product_here(None, find_device())  # said before anything is unpacked
        with self.home.staging() as staged:
            record = self._prepared(staged, target, precision)
            with self.home.switching():
                slot = other(self.home.current())
                self.home.put(staged, slot)
                self.home.switch_to(slot)
                self.home.tidy()
        return self._answer("installed", slot, record, before)

    def _prepared(self, staged: Path, target: Target, precision: str) -> SlotRecord:
        """Fill a directory with what a slot holds, on the disk and self-tested."""
        path = staged / RELEASE
        path.mkdir()
        self.say("unpacking")
        extract(self.archive, path, self.index)
        backend, file = self._built(path, precision) if target == "native" else _chosen(Release.open(path), precision)
        release = Release.open(path)
        record = SlotRecord(
            installation=uuid.uuid4().hex,
            name=self.index.name,
            version=self.index.version,
            bundle_sha256=self._bundle_sha256(),
            manifest_sha256=release.manifest_sha256,
            signer=self.signer,
            target=target,
            backend=backend,
            precision=precision,
            file=file,
            installed_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        self.say(f"self-test of {file} on {backend}")
        with tested_runner(release, record, self.config.threads):
            pass
        write_atomic(staged / RECORD, record.to_json())
        return record

    def _built(self, path: Path, precision: str) -> tuple[str, str]:
        """Build the plan of one file on this device's GPU, and return the product and the plan's name."""
        built = build_native(Release.open(path), NativeConfig(precisions=(precision,)), self.say)
        [plan] = built["engines"]
        if built["verdict"] != "PASS":
            raise ScannerError(
                f"the plan that was built here of {precision} is {built['verdict']}: "
                f"{'; '.join(plan['parity']['reasons'])}; nothing was changed"
            )
        return str(plan["product"]), str(plan["path"])

    def _readable(self, slot: Slot | None) -> SlotRecord | None:
        """Return what is in a slot; None where that cannot be read any more, which a new release mends."""
        try:
            return self.home.record(slot) if slot else None
        except ScannerError as err:
            self.say(f"warning: {err}")
            return None

    def _is_active(self, slot: Slot, record: SlotRecord, target: Target, precision: str) -> bool:
        """Return whether just this is active, whole and to be run as asked."""
        asked = (self._bundle_sha256(), target, precision)
        return asked == (record.bundle_sha256, record.target, record.precision) and self._is_whole(slot, record)

    def _is_whole(self, slot: Slot, record: SlotRecord) -> bool:
        try:
            require_whole(self.home, slot, record)
        except ScannerError as err:
            self.say(f"warning: {err}")
            return False
        return True

    def _require_new(self, before: SlotRecord | None) -> None:
        """Refuse an older version, and another content under the same version."""
        if before is None or before.name != self.index.name:
            return
        number = tuple(map(int, before.version.split(".")))
        if self.index.version_number < number and not self.config.allow_downgrade:
            raise BundleError(
                f"{self.archive} is {self.index.version}, older than {before.version}, which is active; "
                "--allow-downgrade installs it all the same"
            )
        if self.index.version_number == number and self._bundle_sha256() != before.bundle_sha256:
            raise BundleError(
                f"{self.archive} is {self.index.version}, which is active with other files; "
                "give what was changed a version of its own"
            )

    def _require_untried(self, slot: Slot) -> None:
        """Refuse what was given up here although it is whole: every night it would be tried again, and fail."""
        record = self._readable(slot)
        if record is None or record.bundle_sha256 != self._bundle_sha256():
            return
        state = self.home.state().of(slot, record.installation)
        if state.given_up and self._is_whole(slot, record):
            raise BundleError(
                f"{record.title} was installed in slot {slot} and given up ({state.reason}); install a later version, "
                "or run `hwr-scan gc` and then install it again"
            )

    def _bundle_sha256(self) -> str:
        return sha256_bytes(self.index.to_json())

    def _answer(self, result: str, slot: Slot, record: SlotRecord, before: SlotRecord | None) -> dict[str, Any]:
        return {
            "schema": 1,
            "result": result,
            "slot": slot,
            "release": record.document(),
            "previous": before.document() if before else None,
        }


def _chosen(release: Release, precision: str) -> tuple[str, str]:
    """Return the backend for a file and the file's name: the first that is here and on which the file passed."""
    model = release.onnx(precision)
    parity = evidence(release, PARITY)
    passed = [b for b in ONNX_BACKENDS if is_for(precision, b) and verdict_in(parity, b, precision) == "PASS"]
    for backend in passed:
        if not why_absent(backend):
            return backend, model.path
    if not passed:
        raise BundleError(f"{model.path} passed on no backend in {PARITY}; give another --precision")
    raise UsageError(f"nothing here runs {model.path}: {'; '.join(f'{b}: {why_absent(b)}' for b in passed)}")
