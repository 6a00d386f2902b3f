"""Files that are whole or absent: hashes, canonical JSON, atomic writes.

A write goes to a temporary file beside its target, is flushed to the disk, and takes the target's name in
one rename, so that a reader (or a kill -9) sees the old content or the new, never a part.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# A list of nothing but numbers, as json.dumps spreads it over lines; within a string a line break is escaped.
_NUMBERS = re.compile(r"\[\n([-+0-9.eE,\s]+)\]")


def sha256_bytes(data: bytes) -> str:
    """Return the hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def json_bytes(value: Any) -> bytes:
    """Return readable UTF-8 JSON: two-space indent, lists of numbers in a row, keys as given, newline at the end."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n").encode()


def sync_directory(path: Path) -> None:
    """Flush a directory, so that the names in it survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` with `data` in one step; on any failure the previous file stays as it was."""
    write_together({path: data})


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write; it takes the place of `path`, on the disk, when the block ends without an exception."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Replace files that belong together: all are on the disk before the first takes its name, in the order given.

    On any failure before that the previous files stay as they were.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, data in contents.items():
            fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            staged.append((Path(name), path))
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged[-1][0].chmod(0o644)
        for temporary, path in staged:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(path.parent for path in contents):
        sync_directory(folder)
