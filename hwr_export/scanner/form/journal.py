"""RESULTS, a folder: what it was made with, and one line a page in `results.jsonl`, on the disk when `append` returns.

What a kill or a power cut left of the last lines is dropped, and those pages are read again. A page counts as read for
as long as its file has the size and the time of change it had then; no page is in it twice.
"""

import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import hwr_export
from hwr_export.errors import FormError, ScannerError
from hwr_export.files import atomic_file, json_bytes, sha256_bytes, write_atomic
from hwr_export.release import Release
from hwr_export.scanner.form.definition import Form, dump_form
from hwr_export.scanner.form.units import PageDone, Unit

RUN, FORM, RESULTS = "run.json", "form.yaml", "results.jsonl"
ORIGIN = "file"  # key of a line that says where its page is from
Rows = npt.NDArray[np.int64]
_SOURCE = 6  # column of a row that stands for the page's file


@dataclass(frozen=True)
class Entry:
    """A page that is in the journal: where its line begins, and what is counted of it."""

    offset: int
    of: int
    refused: bool
    accepted: int
    referred: int


class Journal:
    """Lines of pages, and where they are. One process writes at a time."""

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self.folder = folder
        self._path = folder / RESULTS
        self._durable = durable
        with self._path.open("ab"):
            pass
        self._end, rows = _scan(self._path)
        if (stale := _stale(rows)).any():
            _drop(self._path, stale)
            self._end, rows = _scan(self._path)
        # Sorted by key. Written without a buffer: what a failed write left must not be written later.
        self._rows = rows[np.argsort(rows[:, 0], kind="stable")]
        self._sources = np.unique(rows[:, _SOURCE])
        self._superseded = False
        self._file, self._lines = self._path.open("r+b", buffering=0), self._path.open("rb")

    def close(self) -> None:
        """Let go of the file; what was read of files before they changed goes now."""
        self._file.close()
        self._lines.close()
        if self._superseded:
            _, rows = _scan(self._path)
            _drop(self._path, _stale(rows))

    def find(self, unit: Unit, number: int) -> Entry | None:
        """Return a page of a file, None where it is not in here, or was read before the file changed."""
        path = str(Path(unit.path).absolute())
        key = _key(path, number, unit.size, unit.mtime_ns)
        i = int(np.searchsorted(self._rows[:, 0], key, side="right")) - 1
        if i < 0 or self._rows[i, 0] != key:
            source = _hash(path)
            at = int(np.searchsorted(self._sources, source))
            self._superseded |= number == 1 and at < len(self._sources) and int(self._sources[at]) == source
            return None
        offset, of, refused, accepted, referred = (int(value) for value in self._rows[i, 1:_SOURCE])
        return Entry(offset, of, bool(refused), accepted, referred)

    def append(self, pages: Sequence[PageDone]) -> list[int]:
        """Add pages' lines and return where each begins. On any failure the journal is as it was.

        Raises:
            ScannerError: the disk is full, or refuses otherwise.
        """
        offsets, data = [], bytearray()
        for page in pages:
            offsets.append(self._end + len(data))
            data += page.line + b"\n"
        try:
            _write(self._file.fileno(), data, self._end)
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError as err:
            with suppress(OSError):  # else the next opening cuts it off
                self._file.truncate(self._end)
            raise ScannerError(
                f"{self._path} cannot be written to: {err.strerror}. What it has is whole; free some space, "
                "run the same command again, and it goes on where it stopped"
            ) from err
        self._end += len(data)
        return offsets

    def read(self, offset: int) -> dict[str, Any]:
        """Return the line that begins there."""
        self._lines.seek(offset)
        line: dict[str, Any] = json.loads(self._lines.readline())
        return line


def journal_line(document: dict[str, Any], unit: Unit, number: int, of: int) -> bytes:
    """Return a page's line, without its end: plain ASCII, whatever bytes the file's name consists of."""
    origin = {"path": str(Path(unit.path).absolute()), "number": number, "of": of}
    origin |= {"size": unit.size, "mtime_ns": unit.mtime_ns}
    return json.dumps(document | {ORIGIN: origin}, separators=(",", ":"), allow_nan=False).encode()


def counts_of(document: dict[str, Any]) -> tuple[bool, int, int]:
    """Return whether a page was refused, and how many of its fields are accepted and referred."""
    accepted = sum(field["accepted"] for field in document["fields"])
    return document["status"] != "read", accepted, len(document["fields"]) - accepted


@contextmanager
def open_journal(folder: Path, form: Form, releases: Sequence[Release], durable: bool = True) -> Iterator[Journal]:
    """Open a folder of results, a new one or one to go on with.

    Args:
        durable: every append waits for the disk.

    Raises:
        FormError: the folder is something else's, or was made with another form or release; a line is damaged.
        ScannerError: another process writes to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise ScannerError(f"another process writes to {folder}; wait until it has ended") from err
        _begin(folder, form, releases)
        journal = Journal(folder, durable)
        try:
            yield journal
        finally:
            journal.close()
    finally:
        os.close(held)


def _begin(folder: Path, form: Form, releases: Sequence[Release]) -> None:
    """Write what a folder is made with, or compare it with what it was made with."""
    text = dump_form(form).encode()
    made_with = {
        "form": {"id": form.id, "version": form.version, "sha256": sha256_bytes(text)},
        "releases": [{"name": r.manifest.name, "manifest_sha256": r.manifest_sha256} for r in releases],
    }
    path = folder / RUN
    if not path.exists():
        if strange := sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")):
            raise FormError(f"{folder} is no folder of results ({strange[0]} is in it, {RUN} is not); give a new one")
        run = {"schema": 1, **made_with, "hwr_export": hwr_export.__version__}
        write_atomic(path, json_bytes(run))
    else:
        _compare(folder, path.read_bytes(), made_with)
    if not (folder / FORM).exists():
        write_atomic(folder / FORM, text)


def _compare(folder: Path, data: bytes, made_with: dict[str, Any]) -> None:
    try:
        run = json.loads(data)
        form, releases = run["form"], run["releases"]
        was = f"{form['id']} version {form['version']}"
        names = " and ".join(r["name"] for r in releases) or "no release"
    except (ValueError, TypeError, KeyError) as err:
        raise FormError(f"{folder / RUN} is not what read-form writes; give a new folder") from err
    now = made_with["form"]
    if (form["id"], form["version"]) != (now["id"], now["version"]):
        raise FormError(
            f"{folder} has results of the form {was}, and this is {now['id']} version {now['version']}; "
            "give a new folder"
        )
    if form != now:
        raise FormError(
            f"the definition of {was} has changed since {folder} was made; give a new folder, and raise the form's "
            "version where something on the sheet moved"
        )
    if releases != made_with["releases"]:
        given = " and ".join(r["name"] for r in made_with["releases"])
        differ = f"{given} is given" if given != names else "it has changed since"
        raise FormError(f"{folder} has results read with {names}, and {differ}; give a new folder")


def _write(fd: int, data: bytearray, at: int) -> None:
    """Write all of it: the system may take a part and say so."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def _scan(path: Path) -> tuple[int, Rows]:
    """Return where the whole lines end, and cut off what follows; and a row for each, int64 (N, 8).

    A row is the key, the offset, the pages of the file, refused, accepted, referred, and what stands for the file and
    for the file as it was.
    """
    rows = array("q")
    end = offset = damaged = 0
    with path.open("r+b") as lines:
        for number, line in enumerate(lines, 1):
            row = _row(line, offset)
            offset += len(line)
            if row is None:
                damaged = damaged or number
                continue
            if damaged:
                raise FormError(
                    f"line {damaged} of {path} is damaged, and whole lines follow; delete that line, and its page is "
                    "read again"
                )
            rows.extend(row)
            end = offset
        if damaged:
            lines.truncate(end)
    return end, np.array(rows, dtype=np.int64).reshape(-1, _SOURCE + 2)


def _row(line: bytes, offset: int) -> tuple[int, ...] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
        origin = document[ORIGIN]
        path, size, mtime_ns = origin["path"], origin["size"], origin["mtime_ns"]
        key = _key(path, origin["number"], size, mtime_ns)
        counts = (int(count) for count in counts_of(document))
        return key, offset, int(origin["of"]), *counts, _hash(path), _hash(f"{path}\0{size}\0{mtime_ns}")
    except (ValueError, TypeError, KeyError):
        return None


def _stale(rows: Rows) -> npt.NDArray[np.bool_]:
    """Return which lines are of a file as it was before it changed, or of a page that comes again, bool (N,)."""
    _, file = np.unique(rows[:, _SOURCE], return_inverse=True)
    now = np.zeros(len(rows), dtype=np.int64)
    now[file] = rows[:, _SOURCE + 1]  # of several, the last is kept
    _, page = np.unique(rows[:, 0], return_inverse=True)
    last = np.zeros(len(rows), dtype=np.int64)
    last[page] = np.arange(len(rows))
    return np.asarray((rows[:, _SOURCE + 1] != now[file]) | (last[page] != np.arange(len(rows))), dtype=np.bool_)


def _drop(path: Path, stale: npt.NDArray[np.bool_]) -> None:
    """Leave lines out, all at once."""
    try:
        with path.open("rb") as lines, atomic_file(path) as kept:
            kept.writelines(line for line, out in zip(lines, stale, strict=True) if not out)
    except OSError as err:
        raise ScannerError(
            f"{path} cannot be freed of what was read of files before they changed: {err.strerror}. All lines are as "
            "they were; free some space and run the same command again"
        ) from err


def _key(path: str, number: int, size: int, mtime_ns: int) -> int:
    return _hash(f"{path}\0{number}\0{size}\0{mtime_ns}")


def _hash(text: str) -> int:
    """Return 64 bits that stand for a text: among a million, two alike have a chance of 3e-8."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
