"""What can be wrong with the spool, each with the name of its state for the health file.

Whoever meets one has lost nothing: what failed was not done, and can be tried again once the cause is gone.
"""

import errno
import os
import sqlite3
from pathlib import Path
from typing import ClassVar, Literal

from hwr_export.errors import ScannerError

DiskState = Literal["disk-full", "read-only", "disk-error"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_DAMAGED = ("malformed", "not a database", "file is encrypted")
_ADVICE = {
    "disk-full": "free some space: work goes on by itself",
    "read-only": "make it writable again (a worn-out card turns read-only by itself): work goes on by itself",
    "disk-error": "look into the kernel's log; a card or a cable may be failing",
}


class SpoolFullError(ScannerError):
    """No room for another page: offer it again later."""

    state: ClassVar[str] = "full"


class SpoolDiskError(ScannerError):
    """The disk refused; nothing was acknowledged. `certain`: what was tried is known not to have happened."""

    def __init__(self, message: str, state: DiskState, *, certain: bool = True) -> None:
        super().__init__(message)
        self.state = state
        self.certain = certain


class SpoolDamagedError(ScannerError):
    """The database cannot be read as a whole."""

    state: ClassVar[str] = "damaged"


def disk_fault(err: OSError, directory: Path, doing: str) -> SpoolDiskError:
    """Tell what a refused system call means."""
    state: DiskState = "disk-full" if err.errno in _FULL else "read-only" if err.errno in _READ_ONLY else "disk-error"
    return _told(state, directory, doing, err)


def database_fault(err: sqlite3.Error, directory: Path, doing: str) -> ScannerError | None:
    """Tell what a failed statement means; None where it is no fault of the disk but of the program."""
    text = str(err)
    if any(word in text for word in _DAMAGED):
        return SpoolDamagedError(
            f"{directory}: {doing} failed, the spool's database is damaged ({text}). "
            "Nothing was deleted; `repair` builds a new one from what can be read, and from the images"
        )
    if "disk is full" in text:
        return _told("disk-full", directory, doing, err)
    if "readonly" in text:
        return _told("read-only", directory, doing, err)
    if any(word in text for word in ("disk I/O error", "unable to open", "locked", "busy")):
        # Only what a failed flush left is in doubt, and SQLite does not say which call of several it was.
        return _told(_state_of(directory), directory, doing, err, certain="I/O" not in text)
    return None


def _told(state: DiskState, directory: Path, doing: str, err: Exception, *, certain: bool = True) -> SpoolDiskError:
    return SpoolDiskError(
        f"{directory}: {doing} failed ({state}: {err}). Nothing is lost; {_ADVICE[state]}", state, certain=certain
    )


def _state_of(directory: Path) -> DiskState:
    """Ask the file system for what SQLite does not pass on."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return "disk-error"
    if found.f_flag & os.ST_RDONLY:
        return "read-only"
    return "disk-full" if not found.f_bavail else "disk-error"
