"""Settled answers -> labelled characters in a folder that `python -m train renew --new-data` takes, and out of it.

What lies there of a review is what its answers say: an undo takes crops away. A field gives crops only where the boxes
that a person filled are those with ink in them. A crop is the cell as the model takes it, 28 x 28, white on black.
"""

import csv
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hwr_export.errors import UsageError
from hwr_export.files import write_atomic
from hwr_export.labels import ALPHANUMERIC, DIGITS
from hwr_export.scanner.form.cells import FieldCells, find_cells
from hwr_export.scanner.form.layout import Layout, Place
from hwr_export.scanner.form.registration import register
from hwr_export.scanner.review.ledger import Entry, Key, Ledger
from hwr_export.scanner.review.pictures import Pictures
from hwr_export.scanner.review.referred import key_hash
from hwr_export.scanner.review.results_folder import ReadPage

SHAPE = (28, 28)
KEPT = 3  # pages whose cells are in memory
EMPTY = 0.5  # probability that no character stands in a box, from which on it counts as empty
TABLES = {"labels.csv": ALPHANUMERIC, "digits.csv": DIGITS}
_NAME = re.compile(r"(?P<review>[0-9a-f]{12})-(?P<page>[0-9a-f]{16})-(?P<key>[0-9a-f]{16})-(?P<box>\d\d)\.png")
Crop = npt.NDArray[np.uint8]


class Crops:
    """The folder, as far as one review fills it.

    Raises:
        UsageError: it is a file.
    """

    def __init__(self, folder: Path, layout: Layout, pictures: Pictures, review: str) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; give --labelled a folder that labelled characters go to")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._layout, self._pictures, self._review = folder, layout, pictures, review
        self._cutting = threading.Lock()
        self._found: OrderedDict[Key, list[FieldCells]] = OrderedDict()

    def follow(self, page: ReadPage, place: Place, before: Entry | None, now: Entry | None) -> None:
        """Make what lies there of a field what its decision says now.

        Args:
            before: the decision that lies there.

        Raises:
            ImageError: the page's image is not what was read.
        """
        wanted: dict[Path, Crop] = {}
        try:
            wanted = {} if now is None else self._crops(page, place, now)
        finally:
            for path in set() if before is None else self._paths(before) - set(wanted):
                _remove(path)
        for path, image in wanted.items():
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, _png(image))

    def prepare(self, page: ReadPage) -> list[FieldCells]:
        """Cut a page's cells as the reader did; they stay in memory for a while.

        Raises:
            ImageError: the page's image cannot be had.
            FormError: it is not the page that was read.
        """
        with self._cutting:
            if page.key("") not in self._found:
                grey = self._pictures.scan(page).grey
                self._found[page.key("")] = find_cells(grey, register(grey, self._layout), self._layout, SHAPE)
                while len(self._found) > KEPT:
                    self._found.popitem(last=False)
            return self._found[page.key("")]

    def tidy(self, ledger: Ledger) -> None:
        """Take away what an interrupted session left and no answer says, and write the tables."""
        said = {key_hash(key): decision for key in ledger.answers if (decision := ledger.decision(key)) is not None}
        for path, named in self._own():
            decision = said.get(int(named["key"], 16))
            if decision is None or not _says(decision, int(named["box"]), path.parent.name):
                _remove(path)
        self.write_tables()

    def write_tables(self) -> None:
        """Write the folder as CSV files too, for `--new-data`: whose writer is a page's, and one of digits alone."""
        rows = sorted(
            (f"{path.parent.name}/{path.name}", path.parent.name, named["page"]) for path, named in _all(self._folder)
        )
        for name, characters in TABLES.items():
            file = io.StringIO()
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("path", "label", "writer"))
            classes = {_class(c) for c in characters}
            table.writerows(row for row in rows if row[1] in classes)
            write_atomic(self._folder / name, file.getvalue().encode())

    def _crops(self, page: ReadPage, place: Place, decision: Entry) -> dict[Path, Crop]:
        if decision.unreadable or not decision.written.strip():
            return {}
        images = self._cells(page, place)
        written = decision.written.ljust(len(images))
        if len(written) != len(images):
            return {}
        if any((image is None) != (c == " ") for image, c in zip(images, written, strict=True)):
            return {}
        return {
            self._path(decision.key, i, c): image
            for i, (image, c) in enumerate(zip(images, written, strict=True))
            if image is not None and c in ALPHANUMERIC
        }

    def _cells(self, page: ReadPage, place: Place) -> list[Crop | None]:
        """Return the characters of a field as the reader cut them, None of each empty box; nothing where they mix."""
        found = self.prepare(page)[self._layout.places.index(place)]
        if found.stray or any(cell.struck for cell in found.cells):
            return []
        return [cell.image if cell.blank < EMPTY else None for cell in found.cells]

    def _path(self, key: Key, box: int, character: str) -> Path:
        name = f"{self._review}-{key_hash((key[0], '', '')):016x}-{key_hash(key):016x}-{box:02}.png"
        return self._folder / _class(character) / name

    def _paths(self, decision: Entry) -> set[Path]:
        """Return where the crops of an answer would lie."""
        return {self._path(decision.key, i, c) for i, c in enumerate(decision.written) if c in ALPHANUMERIC}

    def _own(self) -> Iterator[tuple[Path, re.Match[str]]]:
        return ((path, named) for path, named in _all(self._folder) if named["review"] == self._review)


def _says(decision: Entry, box: int, folder: str) -> bool:
    """Tell whether an answer has the character of a class in a box."""
    return decision.written[box : box + 1].strip() != "" and folder == _class(decision.written[box])


def _class(character: str) -> str:
    return f"U+{ord(character):04X}"


def _all(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield the crops that any review has put into a folder."""
    for character in ALPHANUMERIC:
        of_class = folder / _class(character)
        for path in of_class.iterdir() if of_class.is_dir() else ():
            if named := _NAME.fullmatch(path.name):
                yield path, named


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):  # a class without an image is one that `renew` refuses
        path.parent.rmdir()


def _png(image: Crop) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
