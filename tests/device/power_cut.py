"""What a process did to a directory, call by call as strace saw it, and what is left of it after a cut at any of them.

`record` runs a command; `Replay` repeats its calls on a model of a disk that keeps what was flushed apart from what was
not; `states` of it are directories as a cut may leave them. `killed_at` runs the command and kills it before one call.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHANGING = {
    *("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"),
    *("rename", "renameat", "renameat2", "symlink", "symlinkat", "link", "linkat", "copy_file_range", "sendfile"),
}
TRACED = {*CHANGING, "openat", "open", "creat", "close", "dup", "dup2", "dup3", "fcntl", "chdir"}
LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
ARGUMENT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"|([^,"]+)')


@dataclass(frozen=True)
class Call:
    """One call: its name, its number among those of that name in its thread, arguments (text as bytes), result."""

    name: str
    number: int
    arguments: tuple[bytes | str, ...]
    result: int


def _run(strace: list[str], command: list[str]) -> "subprocess.CompletedProcess[str]":
    if shutil.which("strace") is None:
        pytest.fail("strace is needed for this test: apt-get install strace")
    # One thread, nothing compiled, nothing in the user's cache: two runs make the same calls.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["strace", "-f", "-qq", *strace, sys.executable, *command],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=120,
    )  # fmt: skip


def record(command: list[str], log: Path) -> list[Call]:
    """Run python with these arguments, and return its successful calls in order."""
    names = ",".join(sorted(TRACED))
    done = _run(["-xx", "-s", "100000000", "-e", f"trace={names}", "-e", "signal=none", "-o", str(log)], command)
    assert done.returncode == 0, done.stderr
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text().splitlines():
        found = LINE.match(line)
        assert found or "unfinished" not in line, f"strace lost its thread: {line[:200]}"
        if not found:
            continue
        thread, name, arguments, result = found.groups()
        counts[thread, name] += 1
        values = tuple(
            bytes.fromhex(m[1].replace("\\x", "")) if m[1] is not None else m[2].strip()
            for m in ARGUMENT.finditer(arguments)
            if m[1] is not None or m[2].strip()
        )
        if int(result) >= 0:
            calls.append(Call(name, counts[thread, name], values, int(result)))
    return calls


def killed_at(call: Call, command: list[str]) -> bool:
    """Run python with these arguments, kill it before a call, and return whether it was."""
    strace = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=KILL:when={call.number}", "-o", "/dev/null"]
    return _run(strace, command).returncode in (-9, 137)


@dataclass(eq=False)
class File:
    data: bytes = b""
    flushed: bytes = b""


@dataclass(eq=False)
class Link:
    target: bytes


@dataclass(eq=False)
class Folder:
    entries: dict[str, "File | Link | Folder"] = field(default_factory=dict)
    flushed: dict[str, "File | Link | Folder"] = field(default_factory=dict)


def loaded(path: Path) -> Folder:
    """Return a directory as it lies on the disk, all of it flushed."""
    folder = Folder()
    for entry in sorted(path.iterdir()):
        if entry.is_symlink():
            folder.entries[entry.name] = Link(os.fsencode(entry.readlink()))
        elif entry.is_dir():
            folder.entries[entry.name] = loaded(entry)
        else:
            data = entry.read_bytes()
            folder.entries[entry.name] = File(data, data)
    folder.flushed = dict(folder.entries)
    return folder


class Replay:
    """A disk on which calls are repeated; only what lies below `root` is followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = loaded(root)
        self._opened: dict[int, Path] = {}
        self._objects: dict[int, File | Link | Folder] = {}
        self._offsets: dict[int, int] = {}

    def does(self, call: Call) -> bool:
        """Repeat a call; return whether it is one that changes the disk or flushes it."""
        name, arguments = call.name, call.arguments
        if name in ("openat", "open", "creat"):
            return self._open(call)
        if name == "close":
            self._forget(int(str(arguments[0])))
        elif name in ("dup", "dup2", "dup3") or (name == "fcntl" and "DUP" in str(arguments[1])):
            self._double(int(str(arguments[0])), call.result)
        elif name in ("write", "fsync", "fdatasync", "ftruncate", "pwrite64", "sendfile", "copy_file_range"):
            found = self._objects.get(int(str(arguments[0])))
            return found is not None and self._write(call, found)
        elif name in CHANGING:
            return self._names(call)
        return False

    def _double(self, fd: int, twin: int) -> None:
        self._forget(twin)
        for known in (self._opened, self._objects, self._offsets):
            if fd in known:
                known[twin] = known[fd]

    def _forget(self, fd: int) -> None:
        for known in (self._opened, self._objects, self._offsets):
            known.pop(fd, None)

    def _path(self, folder: bytes | str, name: bytes) -> Path:
        base = Path(ROOT) if folder == "AT_FDCWD" else self._opened.get(int(str(folder)), Path("/elsewhere"))
        return base / os.fsdecode(name)

    def _within(self, path: Path) -> tuple[Folder, str] | None:
        """Return the folder that holds a path and its name there; None outside of the root."""
        if self.root not in path.parents:
            return None
        folder: File | Link | Folder = self.disk
        for part in path.relative_to(self.root).parts[:-1]:
            assert isinstance(folder, Folder)
            folder = folder.entries[part]
        assert isinstance(folder, Folder)
        return folder, path.name

    def _open(self, call: Call) -> bool:
        at = ("AT_FDCWD", *call.arguments) if call.name != "openat" else call.arguments
        path, flags = self._path(at[0], at[1]), str(at[2])
        self._forget(call.result)
        self._opened[call.result] = path
        if path == self.root:
            self._objects[call.result] = self.disk
            return False
        within = self._within(path)
        if within is None:
            return False
        folder, name = within
        created = name not in folder.entries
        if created:
            assert "O_CREAT" in flags, call
            folder.entries[name] = File()
        found = self._objects[call.result] = folder.entries[name]
        self._offsets[call.result] = 0
        if "O_TRUNC" in flags and isinstance(found, File):
            found.data = b""
        return created or "O_TRUNC" in flags

    def _write(self, call: Call, found: File | Link | Folder) -> bool:
        if call.name in ("fsync", "fdatasync"):
            if isinstance(found, Folder):
                found.flushed = dict(found.entries)
            elif isinstance(found, File):
                found.flushed = found.data
            return True
        assert call.name == "write", f"teach the model of a disk {call.name}"
        assert isinstance(found, File)
        data, fd = call.arguments[1], int(str(call.arguments[0]))
        assert isinstance(data, bytes)
        where = self._offsets[fd]
        found.data = found.data[:where] + data[: call.result] + found.data[where + call.result :]
        self._offsets[fd] += call.result
        return True

    def _names(self, call: Call) -> bool:
        """Repeat a call that changes names."""
        name = call.name
        assert name in ("mkdir", "rmdir", "unlink", "unlinkat", "rename", "symlink"), f"teach the model {name}"
        texts = [a for a in call.arguments if isinstance(a, bytes)]
        start = call.arguments[0] if name == "unlinkat" else "AT_FDCWD"
        within = self._within(self._path(start, texts[-1]))
        if within is None:
            assert self._within(self._path(start, texts[0])) is None, "something left the directory"
            return False
        folder, last = within
        if name == "mkdir":
            folder.entries[last] = Folder()
        elif name == "symlink":
            folder.entries[last] = Link(texts[0])
        elif name == "rename":
            source = self._within(self._path(start, texts[0]))
            assert source is not None, "something came into the directory"
            folder.entries[last] = source[0].entries.pop(source[1])
        else:
            del folder.entries[last]
        return True

    def states(self, seed: int) -> Iterator[Folder]:
        """Yield the disk as a cut now may leave it.

        All of it; what was flushed alone; names without the data that was not flushed; and some of the folders as they
        are and others as they were flushed, in whichever order the file system happened to write.
        """
        yield _left(self.disk, lambda _: True, whole=True)
        yield _left(self.disk, lambda _: False, whole=False)
        yield _left(self.disk, lambda _: True, whole=False)
        for number in range(3):
            rng = random.Random(f"{seed}/{number}")
            yield _left(self.disk, lambda _, rng=rng: rng.random() < 0.5, whole=number == 0)


def _left(folder: Folder, is_live, whole: bool) -> Folder:
    entries = folder.entries if is_live(folder) else folder.flushed
    left = Folder()
    for name, entry in entries.items():
        if isinstance(entry, Folder):
            left.entries[name] = _left(entry, is_live, whole)
        else:
            left.entries[name] = File(entry.data if whole else entry.flushed) if isinstance(entry, File) else entry
    return left


def fingerprint(folder: Folder) -> tuple:
    """Return what tells two states apart."""
    return tuple(
        (
            name,
            fingerprint(entry)
            if isinstance(entry, Folder)
            else entry.data
            if isinstance(entry, File)
            else entry.target,
        )
        for name, entry in sorted(folder.entries.items())
    )


def laid_out(folder: Folder, path: Path) -> Path:
    """Write a state to a directory of its own."""
    path.mkdir(parents=True)
    for name, entry in folder.entries.items():
        if isinstance(entry, Folder):
            laid_out(entry, path / name)
        elif isinstance(entry, File):
            (path / name).write_bytes(entry.data)
        else:
            (path / name).symlink_to(os.fsdecode(entry.target))
    return path
