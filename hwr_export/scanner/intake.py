"""One source -> the spool, in a thread: a page is acknowledged once the spool has it, and stays where it is until then.

A spool that is full, or a disk that cannot be written, holds the source up; it goes on by itself. What nobody foresaw
ends the thread, and `failure` says so: the service then ends and is started anew.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from hwr_export.scanner.faults import SpoolDiskError, SpoolFullError
from hwr_export.scanner.logs import log, log_unexpected
from hwr_export.scanner.sources import Arrived, Source
from hwr_export.scanner.sources.states import Condition, condition
from hwr_export.scanner.spool import Spool

RETRY_S = 1.0
Step = TypeVar("Step")


class Intake:
    """A running source. `stop` asks it to end after the page at hand; `arrived` is set whenever there is something."""

    def __init__(self, source: Source, spool: Spool, arrived: threading.Event) -> None:
        self.source = source
        self.failure: Exception | None = None
        self._spool = spool
        self._arrived = arrived
        self._held: Condition | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source {source.name}", daemon=True)
        self._thread.start()

    @property
    def condition(self) -> Condition:
        """Return the source's state, or what holds it up."""
        return self._held or self.source.condition

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        pages = self.source.pages(self._stop)
        try:
            for arrived in pages:
                if not self._kept(arrived):
                    break
            # What the source holds, a running scanner among it, is ended here and not whenever memory is tidied.
            pages.close()
        except Exception as err:  # a bug, or a disk that refuses the acknowledgement: said, and the service ends
            log_unexpected("source-failed", err, source=self.source.name)
            self.failure = err

    def _kept(self, arrived: Arrived) -> bool:
        """Give a page to the spool and acknowledge it; False where that was not possible until it was to stop."""
        page = self._until_it_works(lambda: self._spool.add(arrived.source, arrived.key, arrived.image, arrived.suffix))
        if page is None:
            return False
        self._arrived.set()
        log("page-received", page=page.id, source=page.source)

        def acknowledged() -> bool:
            arrived.acknowledge()
            return True

        return self._until_it_works(acknowledged) is not None

    def _until_it_works(self, step: Callable[[], Step]) -> Step | None:
        while True:
            try:
                done = step()
            except (SpoolFullError, SpoolDiskError, OSError) as err:
                # An OSError comes from the place that pages come from: the spool turns its own into others.
                self._hold("spool-full" if isinstance(err, SpoolFullError) else getattr(err, "state", "held"))
                if self._stop.wait(RETRY_S):
                    return None
            else:
                self._held = None
                return done

    def _hold(self, state: str) -> None:
        if self._held is None or self._held.state != state:
            self._held = condition(state)
            log("source-held", "warning", source=self.source.name, state=state, advice=self._held.advice)
