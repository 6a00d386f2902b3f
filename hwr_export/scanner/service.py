"""`scan.toml` -> pages read and delivered until somebody says stop: the main loop, and the threads around it.

The main thread reads, beats the watchdog and writes the health file; each source and each sink has a thread. All that
must survive is in the spool, so the process may be killed at any moment. SIGTERM ends it in order, a second one at
once; SIGHUP takes the file anew.
"""

import ctypes
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from hwr_export.device.start import Active, start
from hwr_export.errors import HwrError, ScannerError
from hwr_export.scanner.config import ScanConfig, load_config
from hwr_export.scanner.faults import SpoolDiskError
from hwr_export.scanner.health import HealthFile
from hwr_export.scanner.intake import Intake
from hwr_export.scanner.logs import Level, log, take_over_logging
from hwr_export.scanner.notify import Notifier
from hwr_export.scanner.reading import Reading, page_reader
from hwr_export.scanner.sinks.delivery import Courier, couriers
from hwr_export.scanner.sources import Source
from hwr_export.scanner.sources.sane import SaneConfig, SaneSource
from hwr_export.scanner.sources.states import NEEDS_A_PERSON
from hwr_export.scanner.sources.stdin import StdinSource
from hwr_export.scanner.sources.watch import WatchConfig, WatchSource
from hwr_export.scanner.spool import Spool

IDLE_S = 0.25
TELL_S = 1.0
ORDINARY = ("starting", "waiting", "receiving")  # states that come and go with every page: no log speaks of them
TIDY_S = 10.0
LARGE_BYTES = 1 << 20  # of a page, not of a crop
_M_MMAP_THRESHOLD = -3  # malloc.h
JOIN_S = 150.0  # a page that a scanner is in the middle of comes to its end


def run_service(path: Path) -> None:
    """Run until SIGTERM, or until every source has ended.

    Raises:
        UsageError: the file is not valid.
        ScannerError: no release can be used, the spool cannot, or a thread failed.
    """
    config = load_config(path)
    take_over_logging()
    _give_pages_back()
    notifier = Notifier()
    signals = _Signals()
    with ExitStack() as stack:
        stack.enter_context(signals)
        active = stack.enter_context(start(config.root, config.threads))
        for note in active.notes:
            log("start-note", "warning", detail=note)
        spool = stack.enter_context(Spool(config.spool.directory, config.spool.max_pages, config.spool.max_bytes))
        _Service(path, config, active, spool, notifier, signals).run()


def _give_pages_back() -> None:
    """Have the memory of a page given back once it is free.

    Left to itself, glibc soon takes blocks of that size from its heaps too, where they leave holes: memory that grows
    in steps of a page, by chance (mallopt(3), M_MMAP_THRESHOLD). Other C libraries do without.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


class _Signals:
    """What was asked of the process. Handlers only take note: the loop looks at it several times a second."""

    def __init__(self) -> None:
        self.terminate = False
        self.reload = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        self._before = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGTERM, self._end),
                (signal.SIGINT, self._end),
                (signal.SIGHUP, self._anew),
            )
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.terminate = True
        # The second time is the system's own doing, whatever the process hangs in.
        signal.signal(number, signal.SIG_DFL)

    def _anew(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True


class _Service:
    def __init__(
        self, path: Path, config: ScanConfig, active: Active, spool: Spool, notifier: Notifier, signals: _Signals
    ) -> None:
        self._path, self._config = path, config
        self._active, self._spool = active, spool
        self._notifier, self._signals = notifier, signals
        self._health = HealthFile(config.health)
        self._reading = Reading(spool, active, page_reader(config, active), self._reject)
        self._state = "starting"
        self._problem = ""
        self._tidied_s = time.monotonic()
        self._intakes: list[Intake] = []
        self._couriers: list[Courier] = []
        self._delivering = ExitStack()
        self._arrived = threading.Event()
        self._told: dict[str, str] = {}
        self._told_state, self._told_s = "", float("-inf")

    def run(self) -> None:
        self._begin()
        self._notifier.ready()
        log("started", release=self._active.release.manifest.name, version=self._active.version, slot=self._active.slot)
        try:
            while not self._signals.terminate and self._sources_run():
                if self._signals.reload:
                    self._signals.reload = False
                    self._reload()
                self._turn()
            self._drain()
        finally:
            self._state = "stopped"
            self._delivering.close()
            self._tell()
        log("stopped")

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Go round once: at most one page is read. Return whether one was."""
        self._notifier.beat_if_due()
        read = self._read_one()
        if time.monotonic() - self._tidied_s > TIDY_S:
            self._tidy()
        self._state = self._problem or ("draining" if self._signals.terminate else "reading" if read else "idle")
        if self._state != self._told_state or time.monotonic() - self._told_s > TELL_S:
            self._tell()
        if not read:
            self._arrived.wait(IDLE_S)
            self._arrived.clear()
        return read

    def _read_one(self) -> bool:
        try:
            read = self._reading.read_next()
        except (SpoolDiskError, OSError) as err:
            self._hold(err.state if isinstance(err, SpoolDiskError) else "disk-error")
            return False
        self._problem = ""
        return read

    def _tidy(self) -> None:
        """Delete what privacy says is old enough."""
        self._tidied_s = time.monotonic()
        try:
            count = self._spool.forget_images(self._config.spool.keep_images_s)
            count += sum(intake.source.forget_images() for intake in self._intakes)
        except (SpoolDiskError, OSError) as err:
            self._hold(err.state if isinstance(err, SpoolDiskError) else "disk-error")
        else:
            if count:
                log("images-deleted", count=count)

    def _hold(self, state: str) -> None:
        if self._problem != state:
            log("held", "error", state=state)
        self._problem = state

    def _sources_run(self) -> bool:
        for intake in self._intakes:
            if isinstance(intake.failure, HwrError):
                raise intake.failure
            if intake.failure is not None:
                raise ScannerError(
                    f"the source {intake.source.name} ended for a reason nobody foresaw; the log says where"
                ) from intake.failure
        return any(intake.running for intake in self._intakes)

    # -- beginning, reloading, ending ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._intakes = [Intake(_source(c, self._config), self._spool, self._arrived) for c in self._config.sources]
        self._spool.sinks = tuple(sink.name for sink in self._config.sinks)
        self._couriers = self._delivering.enter_context(couriers(self._spool, self._config.sinks))

    def _reload(self) -> None:
        """Take the file anew; one that is not valid changes nothing, and the log says why."""
        try:
            config = load_config(self._path)
            if (config.root, config.spool.directory, config.threads, config.health) != (
                self._config.root,
                self._config.spool.directory,
                self._config.threads,
                self._config.health,
            ):
                raise ScannerError("`root`, `threads`, `health` and the spool's `directory` change with a restart only")
            reader = page_reader(config, self._active)
        except HwrError as err:
            log("reload-refused", "error", config=str(self._path), reason=str(err))
            return
        self._notifier.reloading()
        self._end_intakes()
        self._delivering.close()
        self._config = config
        self._spool.max_pages, self._spool.max_bytes = config.spool.max_pages, config.spool.max_bytes
        self._reading.reader = reader
        self._begin()
        self._notifier.ready()
        log("reloaded", config=str(self._path))

    def _drain(self) -> None:
        """Take in what the sources are in the middle of, then read and deliver what there is time for."""
        self._notifier.stopping()
        log("draining")
        self._end_intakes()
        until_s = time.monotonic() + self._config.drain_s
        while time.monotonic() < until_s and (self._turn() or self._waiting()):
            pass
        self._tidy()

    def _waiting(self) -> bool:
        counts = self._spool.counts()
        return bool(counts.unread or any(sink.pending for sink in counts.sinks.values()))

    def _end_intakes(self) -> None:
        for intake in self._intakes:
            intake.stop()
        until_s = time.monotonic() + JOIN_S
        while any(intake.running for intake in self._intakes) and time.monotonic() < until_s:
            self._turn()

    # -- what is told --------------------------------------------------------------------------------------------------

    def _reject(self, source: str, key: str, image: bytes, reason: str) -> None:
        for intake in self._intakes:
            if intake.source.name == source:
                intake.source.reject(key, image, reason)

    def _tell(self) -> None:
        """Write the health file, and log what has changed of the sources."""
        self._told_state, self._told_s = self._state, time.monotonic()
        for intake in self._intakes:
            now = intake.condition
            said = "" if now.state in ORDINARY else f"{now.state} {now.detail}"
            if self._told.get(intake.source.name, "") != said:
                self._told[intake.source.name] = said
                level: Level = "warning" if now.state in NEEDS_A_PERSON else "info"
                log(
                    "source-state",
                    level,
                    source=intake.source.name,
                    state=now.state,
                    detail=now.detail,
                    advice=now.advice,
                )
        with suppress(OSError):  # a health file that grows old says that something is wrong
            self._health.write(self._document())

    def _document(self) -> dict[str, Any]:
        sources = {
            intake.source.name: asdict(intake.condition) | {"advice": intake.condition.advice}
            for intake in self._intakes
        }
        active = self._active
        return {
            "state": self._state,
            "release": {"name": active.release.manifest.name, "version": active.version, "slot": active.slot},
            "sources": sources,
            "spool": asdict(self._spool.counts()),
            "sinks": {courier.sink_name: {"trouble": courier.trouble} for courier in self._couriers},
        }


def _source(config: Any, whole: ScanConfig) -> Source:
    if isinstance(config, SaneConfig):
        return SaneSource(config, whole.spool.directory / "arriving" / config.name)
    return WatchSource(config) if isinstance(config, WatchConfig) else StdinSource(config)
