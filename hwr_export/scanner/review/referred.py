"""A folder of results -> its form, and where in results.jsonl every referred field stands; pages are read one by one.

The file may be a gigabyte and may still grow: it is gone through once, and what stays in memory is 20 bytes a field.
"""

import hashlib
import json
import re
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hwr_export.errors import FormError
from hwr_export.files import sha256_file
from hwr_export.scanner.form.definition import Form, load_form
from hwr_export.scanner.form.layout import Layout, lay_out
from hwr_export.scanner.page import Box
from hwr_export.scanner.review.ledger import Key
from hwr_export.spec import first_problem

RUN, FORM, RESULTS = "run.json", "form.yaml", "results.jsonl"
# As `PageResult.document` writes it; within a JSON string no quote stands unescaped, so that none of this is in one.
_REFERRED = re.compile(rb'"accepted":\s*false')
_PATH = re.compile(rb'\{"path":\s*("(?:[^"\\]|\\.)*")')
_FIELDS = re.compile(rb'"name":\s*"([\w-]+)"|"accepted":\s*(true|false)')
_REFUSED = re.compile(rb'"status":\s*"refused"')


class _Read(BaseModel):
    """Base of what `read-form` wrote; keys that a later version adds are not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Other(_Read):
    """Another value that a field may have."""

    value: str
    confidence: float


class Character(_Read):
    """One box, or one character of a line."""

    label: str | None
    confidence: float
    box: Box


class ReadField(_Read):
    """A field as results.jsonl has it."""

    name: str
    value: str
    confidence: float
    accepted: bool
    reasons: tuple[str, ...]
    box: Box
    alternatives: tuple[Other, ...] = ()
    characters: tuple[Character, ...] = ()


class ReadPage(_Read):
    """A line of results.jsonl."""

    path: str
    status: str
    reason: str = ""
    registration_px: float | None = None
    ms: float = 0.0
    fields: tuple[ReadField, ...] = ()

    def field(self, name: str) -> ReadField | None:
        """Return the field of that name."""
        return next((field for field in self.fields if field.name == name), None)


class _RunForm(_Read):
    id: str
    version: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Folder:
    """RESULTS as `read-form -o` leaves it.

    Raises:
        FormError: it is no such folder, or its form is not the one that was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = _run(path)
        self.form: Form = load_form(path / FORM)
        self.layout: Layout = lay_out(self.form)
        told = _told_form(self.run, path)
        if (told.id, told.version) != (self.form.id, self.form.version):
            raise FormError(
                f"{path / FORM} is the form {self.form.id} version {self.form.version}, but {RUN} says that "
                f"{told.id} version {told.version} was read; bring back the form that belongs to these results"
            )
        if sha256_file(path / FORM) != told.sha256:
            raise FormError(
                f"{path / FORM} has changed since these results were read; bring back the one that was there"
            )
        if not (path / RESULTS).is_file():
            raise FormError(f"{path} has no {RESULTS}: nothing was read into it yet; run `hwr-export read-form` first")

    def pages(self) -> Iterator[ReadPage]:
        """Yield every page, in the order of the file."""
        with (self.path / RESULTS).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield parse_page(line, f"line {number} of {self.path / RESULTS}")


class Referred:
    """Where the referred fields stand. A page that is in the file twice counts once."""

    def __init__(self, folder: Folder, progress: Callable[[int], object] = lambda _: None) -> None:
        self._path = folder.path / RESULTS
        self._file = self._path.open("rb")
        self._lock = threading.Lock()
        self._end = 0
        self.pages = self.accepted = 0
        self.refused: list[tuple[str, str]] = []  # path and reason; not reviewed, and shown at the end
        self._offsets, self._numbers, self._hashes = array("Q"), array("H"), array("Q")
        self._sorted: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.extend(progress)

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def extend(self, progress: Callable[[int], object] = lambda _: None) -> int:
        """Take in what was read since, and return how many referred fields there are more.

        Args:
            progress: told how many bytes have been gone through.
        """
        if self._path.stat().st_size == self._end:
            return 0
        before, known = len(self), set(self._hashes)
        with self._lock:
            self._file.seek(self._end)
            for line in self._file:
                if not line.endswith(b"\n"):
                    break
                offset, self._end = self._end, self._end + len(line)
                self.pages += 1
                if _REFERRED.search(line) or _REFUSED.search(line):
                    self._take(line, offset, known)
                else:
                    self.accepted += line.count(b'"accepted"')
                if self.pages % 500 == 0:
                    progress(self._end)
        progress(self._end)
        hashes = np.array(self._hashes, dtype=np.uint64)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        return len(self) - before

    def __getitem__(self, item: int) -> tuple[ReadPage, ReadField]:
        """Return the page and the field of a number."""
        with self._lock:
            self._file.seek(self._offsets[item])
            line = self._file.readline()
        page, number = parse_page(line, f"a line of {self._path}"), self._numbers[item]
        if number >= len(page.fields) or key_hash((page.path, page.fields[number].name)) != self._hashes[item]:
            raise FormError(f"{self._path} is not as it was when the review began; end the review, and start it anew")
        return page, page.fields[number]

    def number(self, key: Key) -> int | None:
        """Return the number of a field, None where it is not referred."""
        wanted = np.uint64(key_hash(key))
        at = int(np.searchsorted(self._sorted, wanted))
        return int(self._order[at]) if at < len(self._sorted) and self._sorted[at] == wanted else None

    def _take(self, line: bytes, offset: int, known: set[int]) -> None:
        path, fields = _glanced(line) or _parsed(line, f"line {self.pages} of {self._path}")
        if _REFUSED.search(line):
            self.refused.append((path, parse_page(line, path).reason))
        for number, (name, accepted) in enumerate(fields):
            hashed = key_hash((path, name))
            if accepted:
                self.accepted += 1
            elif hashed not in known:
                known.add(hashed)
                self._offsets.append(offset)
                self._numbers.append(number)
                self._hashes.append(hashed)


def _glanced(line: bytes) -> tuple[str, list[tuple[str, bool]]] | None:
    """Return a page's path and its fields, name and accepted, ten times faster than by parsing; None if that fails."""
    path, found = _PATH.match(line), _FIELDS.findall(line)
    names, said = found[::2], found[1::2]
    if path is None or len(names) != len(said) or not all(n[0] for n in names) or not all(s[1] for s in said):
        return None
    pairs = zip(names, said, strict=True)
    return json.loads(path[1]), [(name.decode(), accepted == b"true") for (name, _), (_, accepted) in pairs]


def _parsed(line: bytes, where: str) -> tuple[str, list[tuple[str, bool]]]:
    page = parse_page(line, where)
    return page.path, [(field.name, field.accepted) for field in page.fields]


def parse_page(line: bytes, where: str) -> ReadPage:
    """Return a line's page.

    Raises:
        FormError: it is none.
    """
    try:
        return ReadPage.model_validate_json(line)
    except ValidationError as err:
        raise FormError(
            f"{where} is no page of results: {first_problem(err)}; read the pages again with `hwr-export read-form`"
        ) from err


def key_hash(key: Key) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(key).encode(), digest_size=8).digest(), "big")


def _run(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / RUN).read_bytes())
    except (OSError, ValueError) as err:
        raise FormError(
            f"{path} is no folder of results: its {RUN} cannot be read; give what `hwr-export read-form -o` wrote to"
        ) from err
    if not isinstance(found, dict) or found.get("schema") != 1:
        raise FormError(f"{path / RUN} is not of schema 1; give what `hwr-export read-form -o` wrote to")
    return found


def _told_form(run: dict[str, Any], path: Path) -> _RunForm:
    try:
        return TypeAdapter(_RunForm).validate_python(run.get("form"))
    except ValidationError as err:
        raise FormError(f"{path / RUN} does not say which form was read: {first_problem(err)}") from err
