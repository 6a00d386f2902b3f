"""Clocks that tests set, and documents as the service makes them."""

from dataclasses import dataclass
from typing import Any

from hwr_export.scanner.clock import Clock
from hwr_export.scanner.spool import Page


@dataclass
class FakeTime:
    """A machine whose wall clock, seconds since start and start can be set one by one."""

    wall_s: float = 1_800_000_000.0
    steady_s: float = 1000.0
    boot: str = "boot-1"

    def clock(self) -> Clock:
        """Return the clock a process started now would see."""
        return Clock(lambda: self.wall_s, lambda: self.steady_s, self.boot)

    def pass_s(self, seconds: float) -> None:
        """Let time pass as it should."""
        self.wall_s += seconds
        self.steady_s += seconds

    def reboot(self, off_s: float = 0.0) -> None:
        """Switch off and on again; nobody counts the time between."""
        self.wall_s += off_s
        self.steady_s = 0.0
        self.boot += "'"


def document(page: Page, value: str = "7") -> dict[str, Any]:
    """Return a result as the service makes it."""
    return {
        "schema": 1,
        "page": {"id": page.id, "source": page.source, "key": page.key, "sha256": page.sha256},
        "fields": [{"name": "digit", "value": value, "confidence": 0.99, "rejected": False}],
        "error": None,
    }
