"""A slot -> a release that is whole and a runner that answers as it should, or which of its files is at fault and how.

The goldens go through the very runner that will read, and some of them as images of ink on paper through the very
preprocessing too. What is allowed is what `parity` recorded for this file on this backend when it was released.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from hwr_export.decisions import compare_decisions
from hwr_export.device.documents import Slot, SlotRecord
from hwr_export.device.slots import Root
from hwr_export.engine.here import plans_here
from hwr_export.errors import ReleaseError, ScannerError
from hwr_export.glyph import normalize
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.guards import unpinned_facts
from hwr_export.numbers import Tolerance, compare_outputs, judge_numbers
from hwr_export.release import CHECKPOINT, GOLDENS, MANIFEST, PARITY, Release
from hwr_export.runners import ONNX_BACKENDS, Arrays, Runner, onnx_runner
from hwr_export.spec import LOGITS, first_problem

ON_PAPER = 48  # goldens that go through the preprocessing too: enough to see a broken library, few enough to be quick
# They are scaled up and down again, which moves few answers (0.4 % on digits); a broken library moves most.
ON_PAPER_ALIKE = 0.8
MAX_GOLDENS_BYTES = 100_000_000  # unpacked; what is read on a device says of itself how large it is
_Read = TypeVar("_Read", bound=BaseModel)


class _Counted(BaseModel):
    n: int
    agreement: int


class _Cell(BaseModel):
    """What is used of a cell of `parity.json`; one that failed may lack the rest."""

    backend: str
    precision: str | None
    verdict: str
    tolerance: float | None = None
    goldens: _Counted = _Counted(n=0, agreement=0)


class _Parity(BaseModel):
    cells: tuple[_Cell, ...]


class _Proof(_Counted):
    verdict: str
    tolerance: float | None


class _Sidecar(BaseModel):
    parity: _Proof | None = None  # None: of a plan that was never run


@dataclass(frozen=True)
class Allowed:
    """What `parity` saw: how far logits may be off (None: not gated, an integer file), and goldens that it flips."""

    tolerance: float | None
    flips: int


def require_whole(root: Root, slot: Slot, record: SlotRecord) -> Release:
    """Return the release of a slot, every file of which is the one that was installed.

    Raises:
        ScannerError: names the first file that is not.
    """
    try:
        release = Release.open(root.release(slot))
    except ReleaseError as err:
        raise ScannerError(f"slot {slot}: {err}") from err
    if release.manifest_sha256 != record.manifest_sha256:
        raise ScannerError(
            f"slot {slot}: {MANIFEST}, which holds the label set, is not the file that was installed (sha256 "
            f"{release.manifest_sha256[:12]}…, expected {record.manifest_sha256[:12]}…); install {record.title} again"
        )
    for status in release.verify():
        if not status.ok:
            holds = ", which holds the label set," if status.path == CHECKPOINT else ""
            raise ScannerError(f"slot {slot}: {status.path}{holds} is {status.problem}; install {record.title} again")
    return release


@contextmanager
def tested_runner(release: Release, record: SlotRecord, threads: int) -> Iterator[Runner]:
    """Open what will read, and yield it when it has passed.

    Raises:
        ScannerError: it has not; the message says what was found and what is allowed.
        HwrError: it cannot be opened.
    """
    with _runner(release, record, threads) as runner:
        facts, _ = unpinned_facts(runner.metadata(), release)
        if facts:
            raise ScannerError(f"{record.file}: {'; '.join(facts)}")
        goldens = _goldens(release)
        problems = judge_goldens(runner, goldens, allowed_of(release, record), record.precision)
        if problems:
            raise ScannerError(f"{record.file} on {record.backend} does not pass its goldens: {'; '.join(problems)}")
        yield runner


def judge_goldens(runner: Runner, goldens: Goldens, allowed: Allowed, precision: str) -> list[str]:
    """Return why a runner must not read; nothing if it may."""
    found = runner.infer_all(goldens.images)
    expected = {"logits": goldens.logits, "probabilities": goldens.probabilities}
    numbers = compare_outputs(expected, found, runner.spec.temperature, precision)
    tolerance = None if allowed.tolerance is None else Tolerance(allowed.tolerance, PARITY, {})
    problems = judge_numbers(numbers, tolerance)
    if not numbers.usable:
        return problems
    decisions = compare_decisions(expected, found, goldens.labels, runner.spec.labels)
    # Where the eager model holds two classes within rounding of each other, a float file may answer either.
    sure = [m for m in decisions.flip_margins if tolerance is None or m > 2 * tolerance.value]
    if len(sure) > allowed.flips:
        problems.append(f"{len(sure)} of {len(goldens)} change their answer, {allowed.flips} did when it was released")
    if not problems:
        problems += _judge_on_paper(runner, goldens, found)
    return problems


def allowed_of(release: Release, record: SlotRecord) -> Allowed:
    """Return what the release's evidence allows the file of a slot.

    Raises:
        ScannerError: there is no evidence that it passed.
    """
    if record.target == "native":
        proof = _read(release, f"{record.file}.json", _Sidecar).parity
        if proof and proof.verdict == "PASS":
            return Allowed(proof.tolerance, proof.n - proof.agreement)
    else:
        for cell in _read(release, PARITY, _Parity).cells:
            if (cell.backend, cell.precision, cell.verdict) == (record.backend, record.precision, "PASS"):
                return Allowed(cell.tolerance, cell.goldens.n - cell.goldens.agreement)
    raise ScannerError(f"nothing in {release.path} says that {record.file} passed on {record.backend}")


def _read(release: Release, path: str, kind: type[_Read]) -> _Read:
    entry = release.entry(path)
    if entry is None:
        raise ScannerError(f"{release.path} has no {path}, which says what is allowed; install another release")
    try:
        return kind.model_validate_json(release.read(entry))
    except ValidationError as err:
        raise ScannerError(f"{release.path / path} is no evidence: {first_problem(err)}") from err


def _goldens(release: Release) -> Goldens:
    entry = release.entry(GOLDENS)
    if entry is None:
        raise ScannerError(f"{release.path} has no {GOLDENS} to prove itself with; install another release")
    data = release.read(entry)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except zipfile.BadZipFile as err:
        raise ScannerError(f"{release.path / GOLDENS} is no npz file: {err}") from err
    if size > MAX_GOLDENS_BYTES:
        raise ScannerError(
            f"{release.path / GOLDENS} unpacks to {size:,} bytes; goldens have {MAX_GOLDENS_BYTES:,} at most"
        )
    return Goldens.from_bytes(data, GOLDENS)


def _runner(release: Release, record: SlotRecord, threads: int) -> Runner:
    if record.backend in ONNX_BACKENDS:
        return onnx_runner(record.backend, release.read(release.onnx(record.precision)), release.spec, threads)
    runnable, others = plans_here(release, (record.backend,))
    for plan in runnable:
        if plan.plan.path == record.file and not plan.problem:
            return plan.runner
    reasons = "; ".join(f"{o['path']}: {o['reason']}" for o in others) or "it is not in the release"
    raise ScannerError(f"{record.file} cannot be run: {reasons}")


def _judge_on_paper(runner: Runner, goldens: Goldens, found: Arrays) -> list[str]:
    """See that images of ink on paper get the answers of the bare goldens, so that preprocessing works here."""
    known = np.flatnonzero(goldens.labels != SYNTHETIC)
    chosen = known[:: max(1, len(known) // ON_PAPER)]
    crops = [normalize(_on_paper(goldens.images[i]), *runner.spec.image_shape) for i in chosen]
    seen = [i for i, crop in enumerate(crops) if crop is not None]
    if not seen:
        return ["preprocessing finds no ink in any of them"] if len(chosen) else []
    answers = runner.infer_all(np.stack([crop for crop in crops if crop is not None]))[LOGITS].argmax(axis=1)
    alike = int((answers == found[LOGITS][chosen[seen]].argmax(axis=1)).sum())
    if alike >= ON_PAPER_ALIKE * len(chosen):
        return []
    return [f"only {alike} of {len(chosen)} get the same answer as images of ink on paper: preprocessing is at fault"]


def _on_paper(golden: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a golden, uint8 (H, W), as a scanner would see it: dark on light, three times its size."""
    return np.asarray(255 - np.kron(np.pad(golden, 4), np.ones((3, 3), np.uint8)), dtype=np.uint8)
