"""The service -> systemd: READY, WATCHDOG, RELOADING, STOPPING; nothing where it was not started by systemd."""

import time

from systemd_watchdog.systemd_watchdog import WatchDog


class Notifier(WatchDog):
    """Time is the monotonic clock's: a clock that is set back must not look like a service that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self._beaten_s = float("-inf")

    def beat_if_due(self) -> None:
        """Say that the loop goes round, four times within the time that systemd allows."""
        now_s = time.monotonic()
        if now_s - self._beaten_s >= self.timeout / 1e6 / 4:
            self._beaten_s = now_s
            self.notify()

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\n")

    def stopping(self) -> None:
        self._send("STOPPING=1\n")
