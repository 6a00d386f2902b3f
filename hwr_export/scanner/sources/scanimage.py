"""One run of `scanimage` in batch mode: it scans a page when told to, and says when the page's file is whole.

What it says is read line by line, its errors in English whatever the system's language. A run always ends: one that
hangs, as drivers do after a fault, is ended.
"""

import contextlib
import os
import re
import selectors
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from typing_extensions import Self

from hwr_export.scanner.sources.states import STATES

PROGRAM = "scanimage"
END_S = 5.0  # for a run that has nothing to scan any more
# Words of SANE's own library (sane_strstatus), then of scanimage -> our states; the first that is said counts.
FAULTS = {
    "Document feeder jammed": "paper-jam",
    "Document feeder out of documents": "no-paper",
    "Scanner cover is open": "cover-open",
    "Error during device I/O": "device-error",
    "Device busy": "busy",
    "Access to resource has been denied": "no-access",
    "open of device": "missing",
    "no SANE devices found": "missing",
}


class FaultError(Exception):
    """No page came; the scanner's state says why. Within the source alone: it is tried again."""

    def __init__(self, state: str, detail: str = "") -> None:
        super().__init__(f"{state}: {detail}")
        self.state = state if state in STATES else "fault"
        self.detail = detail


class Scanimage:
    """A run; use as a context manager. `next_page` is called once for each page wanted."""

    def __init__(
        self,
        device: str,
        options: Mapping[str, str],
        folder: Path,
        prefix: str,
        suffix: str,
        page_timeout_s: float,
        pages: int | None,
    ) -> None:
        self._command = [
            PROGRAM,
            f"--device-name={device}",
            "--format=pnm",
            f"--batch={prefix}%d{suffix}",
            "--batch-print",
            "--batch-prompt",
            *([f"--batch-count={pages}"] if pages else []),
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        self._folder = folder
        self._prefix = prefix
        self._timeout_s = page_timeout_s
        self._said = ""

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=os.environ | {"LC_ALL": "C"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as err:
            raise FaultError("no-program") from err
        self._lines = _Lines(_pipe(self._process.stdout))
        return self

    def next_page(self) -> bool:
        """Scan one page and return whether its file is there; False at the end of what is in the feeder.

        Raises:
            FaultError: the scanner says why not, or nothing within the time allowed.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said comes next
            _pipe(self._process.stdin).write(b"\n")
            _pipe(self._process.stdin).flush()
        deadline = time.monotonic() + self._timeout_s
        while (line := self._lines.next(deadline)) is not None:
            if line.startswith(self._prefix):
                return True
            if line.startswith(PROGRAM):
                self._said = line.removeprefix(f"{PROGRAM}: ")
            elif line.startswith("Batch terminated"):
                break
        if line is None and not self._lines.ended:
            raise FaultError("fault", f"no page within {self._timeout_s:g} s")
        self._end()
        if not self._said and self._process.returncode == 0:
            return False
        self._raise_fault()
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kill=isinstance(error, FaultError))

    def _raise_fault(self) -> None:
        for words, state in FAULTS.items():
            if words in self._said:
                raise FaultError(state, self._said if state == "missing" else "")
        raise FaultError("fault", self._said or f"{PROGRAM} ended with status {self._process.returncode}")

    def _end(self, kill: bool = False) -> None:
        """Close the run's input, which ends it between two pages; kill it where it does not end."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(0 if kill else END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()


class _Lines:
    """Lines of a pipe, each waited for no longer than until a deadline."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._fd = pipe.fileno()
        self._rest = b""
        self._lines: list[str] = []
        self.ended = False

    def next(self, deadline: float) -> str | None:
        """Return the next line; None at the end, or at the deadline (monotonic, s)."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            while not self._lines and not self.ended:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                block = os.read(self._fd, 1 << 16)
                self.ended = not block
                *lines, self._rest = re.split(rb"[\r\n]+", self._rest + block)
                self._lines += [line.decode("utf-8", "replace") for line in lines]
        return self._lines.pop(0) if self._lines else None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("scanimage was started without its pipes")
    return pipe
