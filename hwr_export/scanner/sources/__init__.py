"""Where pages come from: one file a kind, behind `Source.pages(stop) -> Iterator[Arrived]`.

A page is acknowledged only after the spool has it, so that what a crash interrupts arrives again, under the same key.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass

from hwr_export.scanner.sources.states import Condition, condition


@dataclass(frozen=True)
class Arrived:
    """One image as it came. `key` is the same whenever the same page arrives again; `image` is empty if too large."""

    source: str
    key: str
    image: bytes
    suffix: str
    acknowledge: Callable[[], None]


class Source(ABC):
    """Pages of one device, folder or pipe; `pages` runs in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._condition = condition("starting")

    @property
    def condition(self) -> Condition:
        """Return the state now."""
        return self._condition

    def report(self, state: str, detail: str = "") -> None:
        """Take a state; the time of the last change stays where it is the same."""
        if (self._condition.state, self._condition.detail) != (state, detail):
            self._condition = condition(state, detail)

    @abstractmethod
    def pages(self, stop: threading.Event) -> Generator[Arrived, None, None]:
        """Yield pages until `stop` is set or nothing can come any more; faults become states and are tried again."""

    def reject(self, key: str, image: bytes, reason: str) -> None:  # noqa: B027  most sources have nowhere to put it
        """Put a page that cannot be read, with the reason, where its sender looks; the same again when asked again."""

    def forget_images(self) -> int:
        """Delete the images that this source keeps outside the spool and that are old enough; return how many."""
        return 0
