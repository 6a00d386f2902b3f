"""ROOT on the disk: two slots, the one that is current, and what has been counted. Files and locks, nothing else.

    ROOT/slots/a, ROOT/slots/b   release/ and slot.json; the one that is current is never written into
    ROOT/current -> slots/a      switched by one rename
    ROOT/state.json, ROOT/lock

All that changes is on the disk when a function returns, in an order in which any cut leaves a whole release current.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwr_export.device.documents import SLOTS, Slot, SlotRecord, SlotState, State
from hwr_export.errors import ScannerError
from hwr_export.files import sync_directory, write_atomic

RECORD = "slot.json"
RELEASE = "release"
TRUSTED = "trusted"

_STAGED = ".next"
_CURRENT = "current"
_NEXT_CURRENT = ".current.next"


def other(slot: Slot | None) -> Slot:
    """Return the slot that is free where this one is current; the first where none is."""
    return "b" if slot == "a" else "a"


class Root:
    """The directory of one scanner's releases."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slots = path / "slots"

    def slot(self, slot: Slot) -> Path:
        return self._slots / slot

    def release(self, slot: Slot) -> Path:
        return self.slot(slot) / RELEASE

    def record(self, slot: Slot) -> SlotRecord | None:
        """Return what is in a slot; None of an empty one.

        Raises:
            ScannerError: `slot.json` is missing, changed or damaged.
        """
        return SlotRecord.load(self.slot(slot) / RECORD) if self.slot(slot).is_dir() else None

    def current(self) -> Slot | None:
        """Return the slot to start with; None where nothing was installed, or the link is no link to a slot."""
        try:
            target = (self.path / _CURRENT).readlink()
        except OSError:
            return None
        return next((s for s in SLOTS if target == Path("slots") / s and self.slot(s).is_dir()), None)

    def filled(self) -> list[Slot]:
        """Return the slots that hold something, the current one first."""
        current = self.current()
        return sorted((s for s in SLOTS if self.slot(s).is_dir()), key=lambda s: s != current)

    def state(self) -> State:
        """Return what has been counted; nothing has where there is no file.

        Raises:
            ScannerError: `state.json` is damaged.
        """
        path = self.path / "state.json"
        return State.load(path) if path.exists() else State()

    # -- changes; all but `locked` are for those who hold `switching` --------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who installs, rolls back or tidies up.

        Raises:
            ScannerError: somebody else does.
        """
        self._slots.mkdir(parents=True, exist_ok=True)
        with _flock(self.path / "lock", os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Keep others from counting or switching for a moment. A start is never held up by an install for longer."""
        with _flock(self._slots, os.O_DIRECTORY, fcntl.LOCK_EX):
            self._recover()
            yield

    def write_state(self, state: State) -> None:
        write_atomic(self.path / "state.json", state.to_json())

    def keep(self, slot: Slot, state: SlotState, last_good: Slot | None = None) -> None:
        """Note how a slot has fared; a damaged `state.json` is begun anew."""
        try:
            before = self.state()
        except ScannerError:
            before = State()
        self.write_state(before.having(slot, state, last_good))

    def switch_to(self, slot: Slot) -> None:
        """Make a slot current."""
        link = self.path / _NEXT_CURRENT
        link.unlink(missing_ok=True)
        link.symlink_to(Path("slots") / slot)
        sync_directory(self.path)
        link.replace(self.path / _CURRENT)
        sync_directory(self.path)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A directory to prepare a slot in; gone afterwards unless it was put into its place."""
        staged = self._slots / _STAGED
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        try:
            yield staged
        finally:
            if staged.is_dir():
                shutil.rmtree(staged)

    def put(self, staged: Path, slot: Slot) -> None:
        """Give a slot that is not current another content, which is on the disk already."""
        for folder in (*(path for path in staged.rglob("*") if path.is_dir()), staged):
            sync_directory(folder)
        if self.slot(slot).is_dir():
            self.slot(slot).rename(self._replaced(slot))
        staged.rename(self.slot(slot))
        sync_directory(self._slots)

    def empty(self, slot: Slot) -> None:
        """Empty a slot that is not current, in one step."""
        self.slot(slot).rename(self._slots / _STAGED)
        sync_directory(self._slots)

    def left_overs(self) -> list[Path]:
        """Return what killed processes left and nobody needs any more."""
        found = [self._slots / _STAGED, *map(self._replaced, SLOTS), self.path / _NEXT_CURRENT]
        parts = [*self.path.glob(".*.part")]
        return [path for path in (*found, *parts) if path.is_symlink() or path.exists()]

    def tidy(self) -> None:
        """Remove what killed processes left."""
        for path in self.left_overs():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _replaced(self, slot: Slot) -> Path:
        return self._slots / f".replaced-{slot}"

    def _recover(self) -> None:
        """Undo the first half of `put`, where a cut fell between its two renames."""
        for slot in SLOTS:
            if self._replaced(slot).is_dir() and not self.slot(slot).exists():
                self._replaced(slot).rename(self.slot(slot))
                sync_directory(self._slots)


@contextmanager
def _flock(path: Path, flags: int, how: int) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        try:
            fcntl.flock(fd, how)
        except BlockingIOError as err:
            raise ScannerError(
                f"another `hwr-scan` is installing, rolling back or tidying up in {path.parent}; wait until it is done"
            ) from err
        yield
    finally:
        os.close(fd)
