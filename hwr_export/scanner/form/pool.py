"""Units of work -> pages read by processes of this machine; what one of them does to itself costs a page, not the run.

A process has one unit at a time, so nothing piles up. One that dies over a page is replaced and the page tried once
more; one that takes too long over it is ended, and the page is refused.
"""

import multiprocessing as mp
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hwr_export.errors import ScannerError
from hwr_export.scanner.form.units import PageDone, ReaderOpener, Unit
from hwr_export.scanner.form.worker import DECODE_S, END, FAILED, MOST_PAGES, OPENED, PAGE, READY, refused_page, serve

PAGE_S = 60.0  # for one page, after which its process is ended
START_S = 120.0  # for a process to open its releases
MOST_TRIES = 2  # of a page that takes its process down
JOIN_S = 5.0

# What the server of processes imports once for all of them: a new process is there within milliseconds.
_PRELOADED = ["hwr_export.scanner.form.pages", "hwr_export.scanner.form.reader", "hwr_export.scanner.form.worker"]
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGTRAP, -signal.SIGFPE}


class _Worker:
    """A process and what it is doing; it may have a unit before it is ready."""

    def __init__(self, opener: ReaderOpener, annotated: Path | None) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.driver, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(opener, annotated, theirs, Path.cwd()), daemon=True)
        # Blocked, Ctrl-C stays blocked in the process from its first instruction on.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self.ready = False
        self.unit: Unit | None = None
        self.number = 0  # of the page under way
        self.since_s = time.monotonic()
        self.limit_s = START_S

    @property
    def until_s(self) -> float:
        """When what it does now takes too long."""
        return self.since_s + self.limit_s

    def give(self, unit: Unit, page_s: float) -> None:
        self.unit, self.number = unit, unit.first
        if self.ready:
            self.since_s, self.limit_s = time.monotonic(), page_s
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: its end of the pipe says so next
            self.driver.send(unit)

    def end(self, join_s: float = 0.0) -> int:
        """End it and return how it ended: its exit code, the negative number of a signal."""
        self.driver.close()
        if join_s:
            self._process.join(join_s)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        return code


@contextmanager
def local_engine(
    opener: ReaderOpener, jobs: int, page_s: float = PAGE_S, annotated: Path | None = None
) -> Iterator["Pool"]:
    """Yield processes that read; they are ended with the block.

    Args:
        jobs: processes at most; one is started when there is work and none is free.
        page_s: seconds for one page.
        annotated: folder for images of the pages with the decisions on them.
    """
    pool = Pool(opener, jobs, page_s, annotated)
    try:
        yield pool
    finally:
        pool.close()


class Pool:
    """Processes that read; `close` ends them."""

    def __init__(self, opener: ReaderOpener, jobs: int, page_s: float, annotated: Path | None) -> None:
        self._opener, self._jobs, self._page_s, self._annotated = opener, jobs, page_s, annotated
        self._workers: list[_Worker] = []
        self._again: deque[Unit] = deque()  # before new files: the rest of files, and what is tried again
        self._tries: dict[tuple[int, int], int] = {}
        self._done: list[PageDone] = []
        self._failed_starts = 0

    def read(self, units: Iterator[Unit]) -> Iterator[list[PageDone]]:
        """Yield pages as they are done, all that are there at a time.

        Raises:
            HwrError: processes cannot read at all.
        """
        while self._hand_out(units):
            self._listen()
            if self._done:
                yield self._done
                self._done = []

    def close(self) -> None:
        """End all processes: those that read are in the middle of a page that nobody waits for any more."""
        for worker in self._workers:
            worker.end(JOIN_S if worker.unit is None else 0.0)
        self._workers = []

    def _hand_out(self, units: Iterator[Unit]) -> bool:
        """Give every free process a unit, or a new process; return whether any has one."""
        idle = [worker for worker in self._workers if worker.unit is None]
        while idle or len(self._workers) < self._jobs:
            unit = self._again.popleft() if self._again else next(units, None)
            if unit is None:
                break
            if unit.last - unit.first >= MOST_PAGES:
                self._again.append(replace(unit, first=unit.first + MOST_PAGES))
                unit = replace(unit, last=unit.first + MOST_PAGES - 1)
            if not idle:
                self._workers.append(_Worker(self._opener, self._annotated))
                idle.append(self._workers[-1])
            idle.pop().give(unit, self._page_s)
        return any(worker.unit for worker in self._workers)

    def _listen(self) -> None:
        """Wait for processes to say something, to die or to take too long."""
        busy = [worker for worker in self._workers if worker.unit]
        wait_s = max(0.0, min(worker.until_s for worker in busy) - time.monotonic())
        heard = wait([worker.driver for worker in self._workers], wait_s)
        for worker in [worker for worker in self._workers if worker.driver in heard]:
            self._take(worker)
        now_s = time.monotonic()
        for worker in [worker for worker in self._workers if worker.unit and worker.until_s <= now_s]:
            self._give_up(worker)

    def _take(self, worker: _Worker) -> None:
        try:
            while worker.driver.poll():
                self._heed(worker, *worker.driver.recv())
        except (EOFError, OSError):  # it is dead, maybe in the middle of a message
            self._bury(worker)

    def _heed(self, worker: _Worker, kind: str, found: Any) -> None:
        worker.since_s, worker.limit_s = time.monotonic(), self._page_s
        if kind == READY:
            worker.ready, self._failed_starts = True, 0
        elif kind == FAILED:
            raise found
        elif kind == END:
            worker.unit = None
        elif kind == PAGE:
            self._done.append(found)
            worker.number = found.number + 1
        elif kind == OPENED and worker.unit and not worker.unit.last:
            last = min(found, MOST_PAGES)
            worker.unit = replace(worker.unit, last=last, of=found)
            if found > last:
                self._again.append(replace(worker.unit, first=last + 1, last=found))

    def _bury(self, worker: _Worker) -> None:
        """Have what a dead process had read by another one: its page once more, then without that page."""
        self._workers.remove(worker)
        code = worker.end()
        how = _told(code)
        if worker.unit is None:
            return
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_TRIES:
                raise ScannerError(f"processes for reading do not come up: the last one {how}")
            self._again.appendleft(worker.unit)
            return
        if code == -signal.SIGPROF:
            self._go_round(worker, f"too-slow: decoding it took more than {DECODE_S:g} s of processor time")
            return
        page = (worker.unit.file, worker.number)
        self._tries[page] = self._tries.get(page, 0) + 1
        if self._tries[page] < MOST_TRIES:
            self._again.appendleft(replace(worker.unit, first=worker.number))
        else:
            self._go_round(worker, f"reader-died: the process that read it {how}, {MOST_TRIES} times")

    def _give_up(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()
        if not worker.ready:
            raise ScannerError(f"a process for reading was not ready after {START_S:g} s")
        self._go_round(worker, f"too-slow: reading it took more than {self._page_s:g} s")

    def _go_round(self, worker: _Worker, reason: str) -> None:
        """Refuse a page, and have those behind it read."""
        unit = worker.unit
        if unit is None or worker.number > max(unit.first, unit.last):
            return  # it had read all of them
        ms = 1000 * (time.monotonic() - worker.since_s)
        self._done.append(refused_page(unit, worker.number, max(1, unit.of), reason, ms))
        if worker.number < unit.last:
            self._again.appendleft(replace(unit, first=worker.number + 1))


def _told(code: int) -> str:
    """Return how a process ended, as a sentence's end."""
    if code == -signal.SIGKILL:
        return "was killed, maybe for want of memory"
    return "crashed, maybe for want of memory" if code in _CRASHES else f"ended with code {code}"
