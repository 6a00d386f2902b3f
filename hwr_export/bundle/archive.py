"""Release <-> archive: an uncompressed tar that is, byte for byte, what its index says; anything else is refused.

Each header is compared with the one that `pack` would write, so there are no links, devices, extensions, second names
or anything else to look out for. Reading takes little memory and no more disk than the index declares.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from hwr_export.bundle.chain import device_manifest, require_chain
from hwr_export.bundle.index import INDEX, MAX_INDEX_BYTES, VERSION, BundleFile, BundleIndex, version_in
from hwr_export.errors import BundleError, ReleaseError, UsageError
from hwr_export.files import atomic_file, sha256_bytes, sync_directory
from hwr_export.release import CHECKPOINT, MANIFEST, Release

SUFFIX = ".hwr"

_BLOCK = 512
_CHUNK = 1 << 20
_END = bytes(2 * _BLOCK)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a FIFO",
    b"x": "a pax header",
    b"g": "a pax header",
    b"L": "a GNU extension",
    b"K": "a GNU extension",
    b"S": "a sparse file",
}
_HOLDS = {MANIFEST: " (it holds the label set)", CHECKPOINT: " (it holds the label set)"}


def pack(release: Release, out: Path, version: str | None = None) -> BundleIndex:
    """Write the archive of what a device needs of a release: the same release and version give the same bytes.

    Args:
        version: x.y.z; None takes it from the name of `out`, as in digits-1.4.0.hwr.

    Raises:
        UsageError: no version, or two.
        BundleError: the release's verdict is not PASS, or its files do not form one chain.
    """
    named = version_in(out.name)
    if version is None and named is None:
        raise UsageError(f"{out} has no version in its name: call it NAME-1.4.0{SUFFIX} or give --version 1.4.0")
    if None not in (version, named) and version != named:
        raise UsageError(f"--version {version} contradicts the name {out.name}; give one of them")
    version = version or named
    if version is None or not re.fullmatch(VERSION, version):
        raise UsageError(f"--version {version} is none; expected three numbers, as in 1.4.0")
    require_chain(release, whole=True)
    manifest = device_manifest(release)
    data = manifest.to_json()
    files = [BundleFile(path=MANIFEST, sha256=sha256_bytes(data), size_bytes=len(data))]
    files += [BundleFile(path=f.path, sha256=f.sha256, size_bytes=f.size_bytes) for f in manifest.files]
    index = BundleIndex.of(manifest.name, version, release.manifest_sha256, files)
    with atomic_file(out) as file:
        _write(file, INDEX, index.to_json())
        for entry in index.files:
            _write(file, entry.path, data if entry.path == MANIFEST else _content(release, entry.path))
        file.write(_END)
    return index


def read_index(archive: Path) -> BundleIndex:
    """Read what an archive says of itself, and no more of it.

    Raises:
        BundleError: it is no archive, or not as long as its index says.
    """
    with _opened(archive) as (_, index):
        return index


def check(archive: Path) -> BundleIndex:
    """Read an archive to its end, writing nothing.

    Raises:
        BundleError: it is not what its index says; the message names the file.
    """
    with _opened(archive) as (file, index):
        for entry in index.files:
            _read_member(archive, file, entry, lambda _: None)
        _require_end(archive, file)
        return index


def extract(archive: Path, into: Path, index: BundleIndex | None = None) -> BundleIndex:
    """Fill an empty directory with the release of an archive; on the disk when this returns, empty again if it raises.

    Args:
        index: of the archive as it was verified; another is refused, as a file can be replaced between two readings.

    Raises:
        BundleError: the archive is not what its index says, or not of a release whose files form one chain.
        UsageError: `into` is no empty directory.
    """
    if into.is_symlink() or not into.is_dir() or any(into.iterdir()):
        raise UsageError(f"{into} is no empty directory; an archive is unpacked into one of its own")
    try:
        with _opened(archive, index) as (file, found):
            _write_file(into / INDEX, lambda write: write(found.to_json()))
            for entry in found.files:
                target = into / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _write_file(target, partial(_read_member, archive, file, entry))
            _require_end(archive, file)
        for folder in {into, *(path for path in into.rglob("*") if path.is_dir())}:
            sync_directory(folder)
        _require_release(archive, into, found)
    except BaseException:
        for left in into.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise
    return found


def unpack(archive: Path, out: Path, index: BundleIndex | None = None) -> BundleIndex:
    """Make a directory `out` of an archive, whole or not at all.

    Raises:
        BundleError: as of `extract`.
        UsageError: `out` is there already.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is there already; choose another -o, nothing was changed")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        found = extract(archive, staged, index)
        staged.chmod(0o755)
        staged.rename(out)
    except BaseException:
        shutil.rmtree(staged)
        raise
    sync_directory(out.parent)
    return found


def _content(release: Release, path: str) -> bytes:
    entry = release.entry(path)
    assert entry is not None  # the device's manifest is a part of the release's
    return release.read(entry)


def _header(path: str, size_bytes: int) -> bytes:
    """Return the header (POSIX ustar, 512 bytes) of a plain file without owner or time."""
    block = bytearray(_BLOCK)
    block[0:100] = path.encode("ascii").ljust(100, b"\0")
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:148] = b"%011o\0%011o\0" % (size_bytes, 0)
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _BLOCK)


def _write(file: IO[bytes], path: str, data: bytes) -> None:
    file.write(_header(path, len(data)) + data + _padding(len(data)))


@contextmanager
def _opened(archive: Path, known: BundleIndex | None = None) -> Iterator[tuple[IO[bytes], BundleIndex]]:
    """Open a file that is as long as its index says, and stop after the index, which must be the one known already."""
    try:
        # Not to wait for the other end of a pipe.
        fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise BundleError(
            f"{archive} cannot be read: {err.strerror}; expected an archive of `hwr-export pack`"
        ) from err
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise BundleError(f"{archive} is no plain file; expected an archive of `hwr-export pack`")
    with os.fdopen(fd, "rb") as file:
        index, length = _read_index(archive, file)
        if known not in (None, index):
            raise BundleError(f"{archive} was replaced by another archive while it was being read; try again")
        members = sum(_BLOCK + f.size_bytes + len(_padding(f.size_bytes)) for f in index.files)
        expected = length + members + len(_END)
        if status.st_size != expected:
            raise BundleError(
                f"{archive} has {status.st_size:,} bytes, its index makes it {expected:,}: it was cut short, or "
                "something was appended; copy it again"
            )
        yield file, index


def _read_index(archive: Path, file: IO[bytes]) -> tuple[BundleIndex, int]:
    header = file.read(_BLOCK)
    digits = re.fullmatch(rb"([0-7]{11})\0", header[124:136])
    size = int(digits[1], 8) if digits else 0
    if header != _header(INDEX, size):
        raise BundleError(f"{archive} is no archive of `hwr-export pack`: it does not begin with {INDEX}")
    if size > MAX_INDEX_BYTES:
        raise BundleError(f"{archive} has an index of {size:,} bytes; {MAX_INDEX_BYTES:,} are the most")
    data = file.read(size)
    index = BundleIndex.from_json(data, str(archive))
    _require_zeros(archive, file.read(len(_padding(size))), len(_padding(size)), INDEX)
    return index, file.tell()


def _read_member(archive: Path, file: IO[bytes], entry: BundleFile, write: Callable[[bytes], object]) -> None:
    """Hand over a member's bytes as they are read; those of a wrong member must be thrown away.

    Raises:
        BundleError: another header, too few bytes, or another hash than the index has.
    """
    header = file.read(_BLOCK)
    if header != _header(entry.path, entry.size_bytes):
        raise BundleError(
            f"{archive} does not hold {entry.path} where its index has it: found {_found(header)}; "
            "it was not made by `hwr-export pack`"
        )
    digest = hashlib.sha256()
    left = entry.size_bytes
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise BundleError(f"{archive} ends within {entry.path}; copy it again")
        digest.update(chunk)
        write(chunk)
        left -= len(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{archive}: {entry.path}{_HOLDS.get(entry.path, '')} is not what was packed (sha256 "
            f"{digest.hexdigest()[:12]}…, expected {entry.sha256[:12]}…): damaged or tampered with; get it again"
        )
    padding = len(_padding(entry.size_bytes))
    _require_zeros(archive, file.read(padding), padding, entry.path)


def _require_zeros(archive: Path, found: bytes, size: int, path: str) -> None:
    if found != bytes(size):
        raise BundleError(f"{archive} hides something after {path}; it was not made by `hwr-export pack`")


def _require_end(archive: Path, file: IO[bytes]) -> None:
    if file.read(len(_END) + 1) != _END:
        raise BundleError(f"{archive} does not end where its index ends; it was not made by `hwr-export pack`")


def _found(header: bytes) -> str:
    """Say what a header is of, whatever is in it."""
    name = ascii(header[:100].rstrip(b"\0").decode("latin-1"))
    kind = _KINDS.get(header[156:157])
    return f"{kind} {name}" if kind else f"another header, {name}"


def _write_file(path: Path, fill: Callable[[Callable[[bytes], object]], object]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        fill(file.write)
        file.flush()
        os.fsync(fd)


def _require_release(archive: Path, path: Path, index: BundleIndex) -> None:
    """Refuse what was unpacked if it is no release, or not the one that the index is of."""
    try:
        release = Release.open(path)
        _require_same(index, release)
        require_chain(release)
    except (ReleaseError, BundleError) as err:
        # Where it was unpacked to is gone when this is read.
        told = str(err).replace(f"{path}/", "").replace(str(path), "it")
        raise BundleError(f"{archive} holds no release that may be installed: {told}") from err


def _require_same(index: BundleIndex, release: Release) -> None:
    declared = [(f.path, f.sha256, f.size_bytes) for f in index.files if f.path != MANIFEST]
    if sorted((f.path, f.sha256, f.size_bytes) for f in release.manifest.files) != declared:
        raise BundleError(f"{MANIFEST} lists other files than {INDEX}")
    if release.manifest.name != index.name:
        raise BundleError(f"{INDEX} calls it {index.name!r}, {MANIFEST} {release.manifest.name!r}")
