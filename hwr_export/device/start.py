"""ROOT -> the release to read with, opened and self-tested; at every start anew.

A try is counted on the disk before it begins, so that one which takes the process down counts too. A slot whose try
failed twice in a row is given up, and the other one takes over at once.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from hwr_export.device.documents import Slot, SlotRecord, SlotState
from hwr_export.device.selftest import require_whole, tested_runner
from hwr_export.device.slots import Root
from hwr_export.errors import HwrError, ScannerError
from hwr_export.release import Release
from hwr_export.runners import Runner

MAX_FAILURES = 2
UNFINISHED = "the process ended during its self-test"


@dataclass(frozen=True)
class Active:
    """What reads: close it, or use it as a context manager. `notes` are what an operator should know of the start."""

    slot: Slot
    version: str
    release: Release
    runner: Runner
    notes: tuple[str, ...]
    _opened: ExitStack = field(repr=False)

    def close(self) -> None:
        """Close the runner."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)


def start(root: Path, threads: int = 1) -> Active:
    """Return the release of the current slot, or of the other one where that fails twice, its runner open.

    Nothing is refused because the disk is full or read-only: then counts are kept in memory, and `notes` says so.

    Raises:
        ScannerError: nothing is installed, or no slot passes; the message says why, by slot and file.
    """
    return _Start(Root(root), threads).begin()


class _Start:
    def __init__(self, root: Root, threads: int) -> None:
        self._root = root
        self._threads = threads
        self._notes: list[str] = []
        self._problems: dict[Slot, str] = {}

    def begin(self) -> Active:
        if not self._root.path.is_dir() or not (filled := self._slots()):
            raise ScannerError(f"nothing is installed in {self._root.path}: run `hwr-scan install ARCHIVE`")
        self._first = filled[0]
        known = {slot: found for slot in filled if (found := self._known(slot))}
        # What was given up is tried last, and once: better than nothing where all the rest fails.
        for slot in sorted(known, key=lambda s: known[s][1].given_up):
            record, state = known[slot]
            if (active := self._try(slot, record, state)) is not None:
                return active
        reasons = "; ".join(self._problems.values())
        raise ScannerError(f"no slot of {self._root.path} can be used: {reasons}")

    def _slots(self) -> list[Slot]:
        try:
            with self._root.switching():
                return self._root.filled()
        except OSError as err:
            self._note(err)
            return self._root.filled()

    def _known(self, slot: Slot) -> tuple[SlotRecord, SlotState] | None:
        """Return what is in a slot and how it has fared; None where that cannot be read."""
        try:
            record = self._root.record(slot)
        except ScannerError as err:
            self._problems[slot] = str(err)
            return None
        if record is None:
            return None
        try:
            state = self._root.state().of(slot, record.installation)
        except ScannerError as err:
            self._notes.append(f"{err}; counted anew")
            state = SlotState(installation=record.installation)
        if not state.given_up and state.failures >= MAX_FAILURES:
            state = state.model_copy(update={"given_up": True, "reason": state.reason or UNFINISHED})
            self._keep(slot, state)
        return record, state

    def _try(self, slot: Slot, record: SlotRecord, state: SlotState) -> Active | None:
        """Try a slot until it passes or is given up; once if it was given up before."""
        given_up = state.given_up
        while given_up or state.failures < MAX_FAILURES:
            state = state.model_copy(update={"failures": min(MAX_FAILURES, state.failures + 1)})
            self._keep(slot, state)
            opened = ExitStack()
            try:
                release = require_whole(self._root, slot, record)
                runner = opened.enter_context(tested_runner(release, record, self._threads))
            except (HwrError, OSError) as err:
                reason = str(err) if str(err).startswith(f"slot {slot}: ") else f"slot {slot}: {err}"
                self._problems[slot] = reason
                last = given_up or state.failures >= MAX_FAILURES
                state = state.model_copy(update={"reason": reason, "given_up": last})
                self._keep(slot, state)
                if last:
                    return None
            else:
                self._keep(slot, SlotState(installation=record.installation), good=True)
                return Active(slot, record.version, release, runner, self._told(slot, record), opened)
        return None

    def _told(self, slot: Slot, record: SlotRecord) -> tuple[str, ...]:
        back = [f"{problem}: fell back to {record.title} in slot {slot}" for problem in self._problems.values()]
        return (*back, *dict.fromkeys(self._notes))

    def _keep(self, slot: Slot, state: SlotState, good: bool = False) -> None:
        """Put a count on the disk; with a slot that is `good`, make it current."""
        try:
            with self._root.switching():
                # Whoever installed meanwhile has switched already: that slot is for the next start.
                current = self._root.current()
                if good and slot != current and current in (None, self._first):
                    self._root.switch_to(slot)
                self._root.keep(slot, state, slot if good else None)
        except OSError as err:
            self._note(err)

    def _note(self, err: OSError) -> None:
        self._notes.append(f"{self._root.path} cannot be written to ({err.strerror}): starts are not counted")
