"""Documents to a folder of files of JSON lines, each line whole, on the disk and there once, whatever ends the process.

Files are numbered, results-000001.jsonl and so on, and only the last is written to: no clock names them. What a crash
tore off at its end is cut before the next line, and a page that is among its lines is not written again.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from hwr_export.files import sync_directory
from hwr_export.scanner.sinks import SinkUnavailableError
from hwr_export.scanner.sinks.settings import JsonlConfig

_NAME = re.compile(r"results-(\d{6,})\.jsonl")


class JsonlSink:
    def __init__(self, config: JsonlConfig) -> None:
        self._directory = config.directory
        self._max_bytes = config.max_file_bytes
        self._written: set[str] | None = None  # pages in the two last files; None: not looked yet

    def deliver(self, document: dict[str, Any], key: str) -> None:
        """Append one line, unless the page has one."""
        line = json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            if self._written is None:
                self._written = self._look()
            if key not in self._written:
                self._append(line)
                self._written.add(key)
        except OSError as err:
            self._written = None  # what is on the disk now has to be looked at
            raise SinkUnavailableError(f"{self._directory}: cannot write ({err.strerror})") from err

    def close(self) -> None:
        """Nothing is held open."""

    def _look(self) -> set[str]:
        """Repair the last file, and return the pages whose mark in the spool a crash may have prevented."""
        self._directory.mkdir(parents=True, exist_ok=True)
        files = self._files()
        if files:
            with files[-1].open("r+b") as file:
                _cut_torn_end(file.fileno())
                os.fsync(file.fileno())  # its last line may have been written and not flushed
        sync_directory(self._directory)
        return {key for path in files[-2:] for line in path.read_bytes().splitlines() if (key := _key_of(line))}

    def _append(self, line: bytes) -> None:
        files = self._files()
        path = files[-1] if files else self._numbered(1)
        if files and path.stat().st_size + len(line) > self._max_bytes:
            path = self._numbered(int(path.stem.partition("-")[2]) + 1)
        made = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            start = _cut_torn_end(fd)
            try:
                _write_all(fd, line)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, start)  # a reader should not see half a line for as long as the disk is full
                raise
        finally:
            os.close(fd)
        if made:
            sync_directory(self._directory)

    def _files(self) -> list[Path]:
        found = (path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        return sorted(found, key=lambda path: int(path.stem.partition("-")[2]))

    def _numbered(self, number: int) -> Path:
        return self._directory / f"results-{number:06d}.jsonl"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _cut_torn_end(fd: int) -> int:
    """Cut what follows the last whole line, and lines whose blocks never reached the disk; return the size then."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) == b"\n" and b"\0" not in os.pread(fd, 1 << 16, max(0, size - (1 << 16))):
        return size
    data = os.pread(fd, size, 0)
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    while lines and b"\0" in lines[-1]:  # JSON has no zero bytes: space that a power cut left unwritten
        lines.pop()
    whole = sum(map(len, lines))
    if whole != size:
        os.ftruncate(fd, whole)
        os.fsync(fd)
    return whole


def _key_of(line: bytes) -> str:
    """Return the page a line is about; nothing for a line that is not ours."""
    try:
        return str(json.loads(line)["page"]["id"])
    except (ValueError, KeyError, TypeError):
        return ""
