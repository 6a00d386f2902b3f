"""The file of answers, RESULTS/review.jsonl: one line an entry, on the disk before anybody is told that it counts.

It is only ever appended to. A torn last line, of an entry that nobody was told of, is dropped when it is opened next;
any other line that is not what was written stops the review, because what people answered is not to be guessed.
"""

import datetime as dt
import errno
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError
from typing_extensions import Self

from hwr_export.errors import FormError
from hwr_export.files import sync_directory
from hwr_export.scanner.review.ledger import Entry, Ledger
from hwr_export.spec import first_problem

ANSWERS = "review.jsonl"


class Store:
    """The file, open for one process alone, and the ledger of what is in it.

    Args:
        two_pass: from now on, and for good, fields are looked at by two people.

    Raises:
        FormError: another process has it, or a line of it is damaged.
    """

    def __init__(self, results: Path, two_pass: bool = False) -> None:
        self.path = results / ANSWERS
        self.ledger = Ledger()
        self._lock = threading.Lock()
        self._broken = ""
        is_new = not self.path.exists()
        self._file = self.path.open("ab+", buffering=0)  # what a failed write leaves behind must not be flushed later
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = 0
            for entry, end in _entries(self.path):
                self.ledger.apply(entry)
                self._size = end
            self._file.truncate(self._size)
            os.fsync(self._file.fileno())
            if is_new:
                sync_directory(results)
            if not self.ledger.entries:
                self.append(do="begin", id=secrets.token_hex(6))
            if two_pass and not self.ledger.two_pass:
                self.append(do="two-pass")
        except BlockingIOError as err:
            self._file.close()
            raise FormError(
                f"{self.path} is in use: another `hwr-export review` shows these results; go on there, or end it first"
            ) from err
        except BaseException:
            self._file.close()
            raise

    def append(self, **said: Any) -> Entry:
        """Write an entry and return it, when it is on the disk.

        Raises:
            FormError: the disk did not take it; then it does not count.
        """
        with self._lock:
            if self._broken:
                raise FormError(self._broken)
            now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            entry = Entry(n=self.ledger.entries + 1, at=now, **said)
            line = json.dumps(entry.model_dump(exclude_defaults=True), ensure_ascii=False).encode() + b"\n"
            try:
                self._write(line)
            except OSError as err:
                self._forget(err)
                raise FormError(f"{self.path} cannot be written: {err.strerror}; the answer was not kept") from err
            self._size += len(line)
            self.ledger.apply(entry)
            return entry

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())

    def _forget(self, err: OSError) -> None:
        """Take a line out that may be there in part; where that fails too, nothing more can be written behind it."""
        try:
            os.ftruncate(self._file.fileno(), self._size)
            os.fsync(self._file.fileno())
        except OSError:
            self._broken = f"{self.path} cannot be written since {err.strerror}; end the review, and start it anew"


def read_ledger(results: Path) -> Ledger:
    """Replay the file as it is now, while another process may write to it.

    Raises:
        FormError: a line of it is damaged.
    """
    ledger = Ledger()
    if (results / ANSWERS).exists():
        for entry, _ in _entries(results / ANSWERS):
            ledger.apply(entry)
    return ledger


def _entries(path: Path) -> Iterator[tuple[Entry, int]]:
    """Yield each whole line's entry, and where the line ends; what is behind the last line break is none."""
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield _entry(path, number, line), end


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        entry = Entry.model_validate_json(line)
    except ValidationError as err:
        raise FormError(_damaged(path, number, first_problem(err))) from err
    if entry.n != number:
        raise FormError(_damaged(path, number, f"it says that it is line {entry.n}"))
    return entry


def _damaged(path: Path, number: int, why: str) -> str:
    return (
        f"line {number} of {path} is no answer that was written there: {why}; bring back the file as it was, or move "
        "it away to begin anew"
    )
