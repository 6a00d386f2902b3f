"""Files with pages -> all of them read, by an engine that takes units of work, into a journal; what is there is kept.

Pages go into the journal as they are done, and come out of `Readings` in the order of the files.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwr_export.scanner.form.journal import ORIGIN, Entry, Journal
from hwr_export.scanner.form.units import PageDone, Unit, unit_of

# What reads units: processes of this machine, or of many.
Engine = Callable[[Iterator[Unit]], Iterator[list[PageDone]]]


@dataclass
class Counts:
    """What was read so far."""

    files: int = 0  # looked at
    pages: int = 0
    earlier: int = 0  # of the pages: they were in the journal already
    refused: int = 0
    accepted: int = 0  # fields
    referred: int = 0


class Readings:
    """Where the lines of the pages asked for are; 24 bytes a page in memory, the documents stay on the disk."""

    def __init__(self, journal: Journal) -> None:
        self.counts = Counts()
        self._journal = journal
        self._where = array("q")

    def add(self, file: int, number: int, offset: int, page: PageDone | Entry) -> None:
        """Note where a page's line is."""
        self._where.extend((file, number, offset))
        self.counts.pages += 1
        self.counts.refused += page.refused
        self.counts.accepted += page.accepted
        self.counts.referred += page.referred

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield what `read-form --json` says of each page: files as they were given, pages as in their file."""
        where = np.array(self._where, dtype=np.int64).reshape(-1, 3)
        for i in np.lexsort((where[:, 1], where[:, 0])):
            document = self._journal.read(int(where[i, 2]))
            del document[ORIGIN]
            for field in document["fields"]:
                field.pop("characters", None)
            yield document


def read_pages(
    files: Iterator[Path], journal: Journal, engine: Engine, tell: Callable[[Counts], None] = lambda _: None
) -> Readings:
    """Read all pages that are not in the journal, or were before their file changed.

    Args:
        tell: is told of what was read, again and again.

    Raises:
        HwrError: the engine or the journal's disk failed; what was read until then is in the journal.
    """
    readings = Readings(journal)
    for pages in engine(_missing(files, journal, readings)):
        for page, offset in zip(pages, journal.append(pages), strict=True):
            readings.add(page.file, page.number, offset, page)
        tell(readings.counts)
    tell(readings.counts)
    return readings


def _missing(files: Iterator[Path], journal: Journal, readings: Readings) -> Iterator[Unit]:
    """Yield units of what is to be read. A file's first page is always the first in the journal."""
    counts = readings.counts
    for i, path in enumerate(files):
        counts.files += 1
        unit = unit_of(i, path)
        first = journal.find(unit, 1)
        if first is None:
            yield unit
            continue
        for number in range(1, first.of + 1):
            entry = first if number == 1 else journal.find(unit, number)
            if entry is None:
                yield Unit(unit.file, unit.path, unit.size, unit.mtime_ns, number, number, first.of)
            else:
                counts.earlier += 1
                readings.add(i, number, entry.offset, entry)
