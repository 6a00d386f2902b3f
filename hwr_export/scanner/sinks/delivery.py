"""One thread a sink: takes what the spool owes it, delivers, and marks what came of it before anything else.

A sink that is down holds up nobody else and gives nothing up: waits double up to a limit, with jitter, and go by time
that no clock correction moves. The mark is repeated until it is on the disk, so at most one delivery is unmarked.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial

from hwr_export.errors import ScannerError
from hwr_export.scanner.faults import SpoolDamagedError, SpoolDiskError
from hwr_export.scanner.outbox import Delivery, Outbox
from hwr_export.scanner.sinks import Sink, SinkConfig, SinkRefusedError, SinkUnavailableError, open_sink
from hwr_export.scanner.spool import Spool

log = logging.getLogger(__name__)

# How soon a thread with nothing to do looks again; a new result wakes it, letters sent again by hand do not.
IDLE_S = 5.0
_MARK_AGAIN_S = 1.0
_PATIENCE_S = 5.0


class Courier(threading.Thread):
    """Drives one sink; `trouble` says what keeps it from delivering, or None."""

    def __init__(
        self, outbox: Outbox, config: SinkConfig, sink: Sink, between: Callable[[float, float], float] = random.uniform
    ) -> None:
        super().__init__(name=f"sink-{config.name}", daemon=True)
        self.sink_name = config.name
        self.trouble: str | None = None
        self._config = config
        self._outbox, self._sink, self._between = outbox, sink, between
        self._failures = 0
        self._mark: Callable[[], None] | None = None
        self._wait_s = 0.0
        self._stopping, self._woken = threading.Event(), threading.Event()

    def run(self) -> None:
        """Deliver until stopped."""
        while not self._stopping.is_set():
            self._woken.clear()
            wait_s = self.step()
            if wait_s is None:
                self._woken.wait(IDLE_S)
            else:
                self._stopping.wait(wait_s)
        self._sink.close()

    def nudge(self) -> None:
        """Look for something to deliver now; a wait for a sink that is down is not cut short."""
        self._woken.set()

    def stop(self) -> None:
        """End after the attempt that is being made; what is left stays in the spool."""
        self._stopping.set()
        self._woken.set()

    def step(self) -> float | None:
        """Make one attempt and mark it.

        Returns:
            Seconds until the next should be made, or None where there is nothing to do.
        """
        try:
            if self._mark is None:
                delivery = self._outbox.pending(self.sink_name)
                if delivery is None:
                    return None
                self._mark = self._attempt(delivery)
            self._mark()
        except (SpoolDiskError, SpoolDamagedError) as err:
            self._say(str(err))
            return _MARK_AGAIN_S
        self._mark = None
        return self._wait_s

    def _attempt(self, delivery: Delivery) -> Callable[[], None]:
        """Deliver, and return how to mark what came of it."""
        extra = {"sink": self.sink_name, "page": delivery.page_id}
        try:
            self._sink.deliver(delivery.document, delivery.page_id)
        except SinkRefusedError as err:
            self._done()
            log.warning("refused, kept as a dead letter: %s", err, extra=extra)
            return partial(self._outbox.dead_letter, delivery, str(err))
        except SinkUnavailableError as err:
            return self._later(delivery, str(err), err.retry_after_s)
        except Exception as err:
            # A defect must not end the thread unheard; what its text holds nobody knows, so only the type is told.
            log.error("defect in the sink: %s", type(err).__name__, extra=extra)  # noqa: TRY400
            return self._later(delivery, f"{self.sink_name}: defect in the sink ({type(err).__name__})", 0.0)
        self._done()
        return partial(self._outbox.delivered, delivery)

    def _later(self, delivery: Delivery, why: str, retry_after_s: float) -> Callable[[], None]:
        longest_s = min(self._config.max_wait_s, self._config.first_wait_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._wait_s = max(retry_after_s, self._between(longest_s / 2, longest_s))
        self._say(why)
        return partial(self._outbox.retry_later, delivery, why)

    def _done(self) -> None:
        self._failures, self._wait_s = 0, 0.0
        self._say(None)

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.info("delivering again" if trouble is None else f"waiting: {trouble}", extra={"sink": self.sink_name})
        self.trouble = trouble


@contextlib.contextmanager
def couriers(spool: Spool, sinks: tuple[SinkConfig, ...]) -> Iterator[list[Courier]]:
    """Deliver to each sink in a thread of its own while the block runs; at its end, attempts being made are waited for.

    Args:
        spool: What is delivered; its `sinks` are the names of these.
        sinks: As configured.
    """
    if set(spool.sinks) != {config.name for config in sinks}:
        raise ScannerError(f"the spool owes results to {spool.sinks}, and the sinks are {[c.name for c in sinks]}")
    started = [Courier(spool.outbox, config, open_sink(config)) for config in sinks]
    for courier in started:
        spool.subscribe(courier.nudge)
        courier.start()
    try:
        yield started
    finally:
        for courier in started:
            courier.stop()
            spool.unsubscribe(courier.nudge)
        # Each waits at most twice for the other side: to be connected, and to be answered.
        patience_s = _PATIENCE_S + 2 * max((getattr(config, "timeout_s", 0.0) for config in sinks), default=0.0)
        for courier in started:
            courier.join(patience_s)
            if courier.is_alive():
                log.error("does not end within %.0f s", patience_s, extra={"sink": courier.sink_name})
