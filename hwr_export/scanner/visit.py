"""A look into a spool that a service may be using: counts, dead letters, and sending those again.

It takes no lock and touches no image; what it changes is one transaction, which the service finds within seconds.
"""

from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from hwr_export.errors import ScannerError
from hwr_export.scanner.clock import system_clock
from hwr_export.scanner.outbox import Outbox
from hwr_export.scanner.spool import SpoolCounts, counted
from hwr_export.scanner.store import DATABASE, Store


class Visit:
    """Open it, ask, and close it: it waits for the service's transactions, and the service for its."""

    def __init__(self, directory: Path) -> None:
        if not (directory / DATABASE).exists():
            raise ScannerError(f"{directory}: there is no spool; it is made when the service first starts")
        self._store = Store(directory, system_clock(), lambda: None, lambda _: None)
        self.outbox = Outbox(self._store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def counts(self) -> SpoolCounts:
        """Count what waits, for whom, and how much room it takes."""
        return counted(self._store, self.outbox)
