"""RESULTS as `read-form -o` leaves it -> its form, and its lines as pages: a glance at many, all that one has of a few.

A page that was read again has several lines, of which the last holds; its file's size and time of change tell which.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwr_export.errors import FormError
from hwr_export.files import sha256_file
from hwr_export.scanner.form.definition import Form, load_form
from hwr_export.scanner.form.layout import Layout, lay_out
from hwr_export.scanner.page import Box
from hwr_export.scanner.review.ledger import Key
from hwr_export.spec import first_problem

RUN, FORM, RESULTS = "run.json", "form.yaml", "results.jsonl"
# As `read-form` writes a line. In a JSON string no quote stands unescaped: none of this can be in one.
_STRING = rb'("(?:[^"\\]|\\.)*")'
_PATH = re.compile(rb'\{"path":\s*' + _STRING + rb',\s*"status":\s*"(\w+)"')
_FIELDS = re.compile(rb'"name":\s*"([\w-]+)"|"accepted":\s*(true|false)')
_FILE = re.compile(
    rb'"file":\s*\{"path":\s*' + _STRING + rb',\s*"number":\s*(\d+),\s*"of":\s*\d+,\s*"size":\s*(-?\d+),'
    rb'\s*"mtime_ns":\s*(-?\d+)\}'
)


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


class Origin(_Read):
    """Where a page is from, and what its file was like when it was read."""

    path: str
    number: int = 1
    size: int = -1
    mtime_ns: int = 0
    raw: bytes = b""  # the path, where it is no text


class ReadPage(_Read):
    """A line of results.jsonl."""

    path: str
    status: str
    reason: str = ""
    fields: tuple[ReadField, ...] = ()
    file: Origin | None = None

    def key(self, name: str) -> Key:
        """Return how answers to a field are called."""
        return self.path, "" if self.file is None else _stamp(self.file.size, self.file.mtime_ns), name


class Glance(NamedTuple):
    """What is needed of a line to find its referred fields."""

    page: str
    stamp: str  # of its file
    identity: str  # what two lines of one page have in common
    refused: bool
    fields: tuple[tuple[str, bool], ...]  # name, and whether it is accepted


class _RunForm(_Read):
    id: str
    version: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Run(_Read):
    schema_: int = Field(alias="schema")
    form: _RunForm


class Folder:
    """A folder of results.

    Raises:
        FormError: it is none, or its form is not the one that was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        told = _told_form(path)
        self.form: Form = load_form(path / FORM)
        self.layout: Layout = lay_out(self.form)
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


def parse_page(line: bytes, where: str) -> ReadPage:
    """Return a line's page.

    Raises:
        FormError: it is none.
    """
    try:
        try:
            return ReadPage.model_validate_json(line)
        except ValidationError:
            return ReadPage.model_validate(_printable(json.loads(line)))
    except (ValidationError, ValueError) as err:
        why = first_problem(err) if isinstance(err, ValidationError) else "it is no JSON"
        raise FormError(
            f"{where} is no page of results: {why}; read the pages again with `hwr-export read-form`"
        ) from err


def glance(line: bytes, where: str) -> Glance:
    """Return the least of a line, ten times faster than by parsing it.

    Raises:
        FormError: it is no page.
    """
    path, found, file = _PATH.match(line), _FIELDS.findall(line), _FILE.search(line, max(0, line.rfind(b'"file":')))
    names, said = found[::2], found[1::2]
    well = path is not None and len(names) == len(said) and all(n[0] for n in names) and all(s[1] for s in said)
    if path is None or not well:
        page = parse_page(line, where)
        _, stamp, _ = page.key("")
        identity = page.path if page.file is None else f"{page.file.path}#{page.file.number}"
        fields = tuple((field.name, field.accepted) for field in page.fields)
        return Glance(page.path, stamp, identity, page.status == "refused", fields)
    fields = tuple((n[0].decode(), s[1] == b"true") for n, s in zip(names, said, strict=True))
    called = _text(json.loads(path[1]))
    stamp = "" if file is None else _stamp(int(file[3]), int(file[4]))
    identity = called if file is None else f"{_text(json.loads(file[1]))}#{int(file[2])}"
    return Glance(called, stamp, identity, path[2] == b"refused", fields)


def _stamp(size: int, mtime_ns: int) -> str:
    return f"{size} {mtime_ns}"


def _text(path: str) -> str:
    """Return a path as text: a file's name may hold bytes that are none."""
    return path.encode("utf-8", "backslashreplace").decode()


def _printable(document: Any) -> Any:
    """Return a page whose paths are text; the file's is kept as it is too."""
    if isinstance(document, dict) and isinstance(document.get("path"), str):
        document["path"] = _text(document["path"])
        file = document.get("file")
        if isinstance(file, dict) and isinstance(file.get("path"), str):
            document["file"] = file | {"path": _text(file["path"]), "raw": os.fsencode(file["path"])}
    return document


def _told_form(path: Path) -> _RunForm:
    try:
        data = (path / RUN).read_bytes()
    except OSError as err:
        raise FormError(
            f"{path} is no folder of results: its {RUN} cannot be read; give what `hwr-export read-form -o` wrote to"
        ) from err
    try:
        run = _Run.model_validate_json(data)
    except ValidationError as err:
        raise FormError(
            f"{path / RUN} is not what read-form writes: {first_problem(err)}; give what `hwr-export read-form -o` "
            "wrote to"
        ) from err
    if run.schema_ != 1:
        raise FormError(f"{path / RUN} is of schema {run.schema_}, and this program knows 1; use a newer one")
    return run.form
