"""Path of an image file -> its bytes and what identifies it: the same file gives the same key, another one never.

A file that is written while it is read, or that is no regular file, gives nothing.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SUFFIX = ".image"


@dataclass(frozen=True)
class Identity:
    """Which file, and which state of it: what `stat` says. A file that is moved or written is another one."""

    inode: int
    changed_ns: int
    modified_ns: int
    size_bytes: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Identity":
        return cls(found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)

    def key(self, name: str) -> str:
        return f"{name}|{self.inode:x}-{self.changed_ns:x}-{self.modified_ns:x}-{self.size_bytes:x}"


@dataclass(frozen=True)
class ImageFile:
    """Bytes and identity; `image` is empty where the file is larger than was allowed."""

    image: bytes
    identity: Identity

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes


def identify(path: Path) -> Identity | None:
    """Return the identity of a regular file; None for anything else, links among it, and for what is gone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return Identity.of(found) if stat.S_ISREG(found.st_mode) else None


def read_whole(path: Path, max_bytes: int) -> ImageFile | None:
    """Return a file's content; None where it is gone, no regular file, or changed meanwhile.

    Raises:
        OSError: it may not be read.
    """
    try:
        # O_NONBLOCK: a named pipe without a writer must not hold the source up before it is seen to be one.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        if path.is_symlink():
            return None
        raise
    with os.fdopen(fd, "rb") as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        identity = Identity.of(before)
        image = file.read(max_bytes + 1) if before.st_size <= max_bytes else b""
        if Identity.of(os.fstat(fd)) != identity or len(image) > max_bytes:
            return None
    return ImageFile(image, identity)


def suffix_of(name: str) -> str:
    """Return the suffix under which an image is kept: that of its name if it is a plain one."""
    suffix = Path(name).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else DEFAULT_SUFFIX
