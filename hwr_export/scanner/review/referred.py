"""A folder of results -> where its referred fields stand; pages are read one by one.

results.jsonl may be a gigabyte and may still grow: it is gone through once, and what stays in memory is about 20
bytes a field and 20 a page.
"""

import hashlib
import threading
from array import array
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.scanner.review.ledger import Key
from hwr_export.scanner.review.results_folder import RESULTS, Folder, ReadField, ReadPage, glance, parse_page

PROGRESS_LINES = 500


class Referred:
    """The referred fields by number. Those of a page that was read again keep theirs, and are `retired`."""

    def __init__(self, folder: Folder, progress: Callable[[int], object] = lambda _: None) -> None:
        self._path = folder.path / RESULTS
        self._file = self._path.open("rb")
        self._lock = threading.Lock()
        self._end = 0
        self.retired = bytearray()  # by number
        # By line: where it begins, of which page it is, how many of its fields are accepted, whether it is refused.
        self._begins, self._pages, self._accepted, self._refused = array("Q"), array("Q"), array("H"), bytearray()
        # By number: its line, its place among the page's fields, what its answers are called.
        self._lines, self._places, self._hashes = array("I"), array("H"), array("Q")
        self._holds: npt.NDArray[np.bool_] = np.empty(0, dtype=np.bool_)  # by line
        self._sorted: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.extend(progress)

    def __len__(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def pages(self) -> int:
        return int(self._holds.sum())

    @property
    def accepted(self) -> int:
        """The number of fields that need no person."""
        return int(np.array(self._accepted, dtype=np.int64)[self._holds].sum())

    @property
    def refused(self) -> int:
        """The number of pages without fields."""
        return int(np.frombuffer(self._refused, dtype=np.uint8)[self._holds].sum())

    def refused_pages(self, most: int) -> list[ReadPage]:
        """Return the first pages that were refused."""
        lines = np.flatnonzero(np.frombuffer(self._refused, dtype=np.bool_) & self._holds)[:most]
        return [self._page(int(line)) for line in lines]

    def all_pages(self) -> Iterator[ReadPage]:
        """Yield every page as it was read last, in the order of the file."""
        yield from (self._page(int(line)) for line in np.flatnonzero(self._holds))

    def extend(self, progress: Callable[[int], object] = lambda _: None) -> bool:
        """Take in what was read since; tell whether something was.

        Args:
            progress: told how many bytes have been gone through.

        Raises:
            FormError: a line is no page.
        """
        if self._path.stat().st_size == self._end:
            return False
        before = len(self._begins)
        with self._lock:
            self._file.seek(self._end)
            for line in self._file:
                if not line.endswith(b"\n"):
                    break
                self._take(line)
                self._end += len(line)
                if len(self._begins) % PROGRESS_LINES == 0:
                    progress(self._end)
        progress(self._end)
        if len(self._begins) == before:
            return False
        self._sort_out()
        return True

    def __getitem__(self, number: int) -> tuple[ReadPage, ReadField]:
        """Return the page and the field of a number.

        Raises:
            FormError: the file is another by now.
        """
        page, place = self._page(self._lines[number]), self._places[number]
        if place >= len(page.fields) or key_hash(page.key(page.fields[place].name)) != self._hashes[number]:
            raise FormError(f"{self._path} is not as it was when the review began; end the review, and start it anew")
        return page, page.fields[place]

    def number(self, key: Key) -> int | None:
        """Return the number of a field, None where it is not referred."""
        wanted = np.uint64(key_hash(key))
        at = int(np.searchsorted(self._sorted, wanted, side="right")) - 1
        return int(self._order[at]) if at >= 0 and self._sorted[at] == wanted else None

    def _page(self, line: int) -> ReadPage:
        with self._lock:
            self._file.seek(self._begins[line])
            data = self._file.readline()
        return parse_page(data, f"line {line + 1} of {self._path}")

    def _take(self, line: bytes) -> None:
        number = len(self._begins)
        seen = glance(line, f"line {number + 1} of {self._path}")
        for place, (name, accepted) in enumerate(seen.fields):
            if not accepted:
                self._lines.append(number)
                self._places.append(place)
                self._hashes.append(key_hash((seen.page, seen.stamp, name)))
        self._begins.append(self._end)
        self._pages.append(_hash(seen.identity))
        self._accepted.append(sum(accepted for _, accepted in seen.fields))
        self._refused.append(seen.refused)

    def _sort_out(self) -> None:
        """Find out which lines hold: the last of each page."""
        pages = np.array(self._pages, dtype=np.uint64)
        _, last = np.unique(pages[::-1], return_index=True)
        self._holds = np.zeros(len(pages), dtype=np.bool_)
        self._holds[len(pages) - 1 - last] = True
        lines = np.array(self._lines, dtype=np.int64)
        self.retired = bytearray((~self._holds[lines]).astype(np.uint8).tobytes())
        hashes = np.array(self._hashes, dtype=np.uint64)
        self._order = np.argsort(hashes, kind="stable")  # of two lines that are alike, the last
        self._sorted = hashes[self._order]


def key_hash(key: Key) -> int:
    """Return a number of 64 bits for a field."""
    return _hash("\0".join(key))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
