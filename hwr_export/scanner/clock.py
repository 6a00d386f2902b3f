"""Time that no correction of the wall clock can move: what is counted for retention and for waiting.

`steady` counts seconds since the machine started, suspended time included, and `boot` names that start. Wall time is
written into documents for people and decides nothing.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Clock:
    wall_s: Callable[[], float]
    steady_s: Callable[[], float]
    boot: str

    def stamp(self) -> str:
        """Return the wall time in UTC, as documents carry it."""
        return datetime.fromtimestamp(self.wall_s(), timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Elapsed:
    """A count of seconds that goes on over restarts; time with the machine switched off is not in it."""

    total_s: float
    steady_s: float
    boot: str

    def now(self, clock: Clock) -> "Elapsed":
        """Return the count as of now; never less than before."""
        # After another start of the machine, at least the seconds since that start have passed.
        since_s = clock.steady_s() - self.steady_s if clock.boot == self.boot else clock.steady_s()
        return Elapsed(self.total_s + max(0.0, since_s), clock.steady_s(), clock.boot)


def system_clock() -> Clock:
    """Return this machine's clock."""
    if _BOOT_ID.exists():
        return Clock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME), _BOOT_ID.read_text().strip())
    # Elsewhere than on Linux each process is a start of its own.
    started_s = time.monotonic()
    return Clock(time.time, lambda: time.monotonic() - started_s, uuid.uuid4().hex)
