"""The release directory: what each stage reads from and adds to, and the manifest that vouches for every file.

A change is prepared in a directory beside the release and takes its place in one exchange of names, so that a reader or
a kill -9 at any moment meets the whole release before the change or the whole one after it. Changes are serialised by a
lock on the parent directory and refused where what they were made from has meanwhile been replaced.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

import hwr_export
from hwr_export.errors import ReleaseError, UsageError
from hwr_export.files import json_bytes, sha256_bytes, sha256_file, sync_directory, write_atomic
from hwr_export.spec import ModelSpec, Strict, first_problem

MANIFEST = "manifest.json"
GOLDENS = "goldens.npz"
CHECKPOINT = "checkpoint.json"
PARITY = "parity.json"
BENCH = "bench.json"
BENCH_SAMPLES = "bench-samples.npz"
PROFILE = "profile.json"
MODEL_CARD = "MODEL_CARD.md"
ENGINES = "engines"
BUILD = "build.json"
QUANTIZATION = "quantization.json"
REPORT = "report.html"
ACCEPTANCE = "acceptance.json"

INT8, INT8_CPU, FP16, FP32 = "int8", "int8-cpu", "fp16", "fp32"
# Files that are made for some backends: another's answers and latency would say nothing of what is shipped.
MADE_FOR = {INT8_CPU: ("onnxruntime",)}
# Backends that are there for some files: bf16 is another way to compute the float32 one.
TAKES = {"openvino-bf16": (FP32,), "onnxruntime-cuda": (FP32, FP16)}

Role = Literal[
    "checkpoint",
    "weights",
    "onnx",
    "goldens",
    "build",
    "engine",
    "sidecar",
    "parity",
    "bench",
    "samples",
    "profile",
    "card",
    "quantization",
    "report",
    "acceptance",
]

# Relative, with no `..` and nothing hidden.
PATH_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100


def is_for(precision: str | None, backend: str) -> bool:
    """Return whether a file of this precision is meant to run on a backend, `onnxruntime` or `tensorrt` or another."""
    return backend in MADE_FOR.get(precision or "", (backend,)) and precision in TAKES.get(backend, (precision,))


def onnx_path(precision: str) -> str:
    """Return the name of the model file of one precision."""
    return f"model.{precision}.onnx"


class ManifestFile(Strict):
    """One file: what it is, its hash, and the hashes of the release's files that it was made from."""

    path: str = Field(pattern=PATH_PATTERN)
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    made_from: tuple[str, ...] = ()
    precision: str | None = None


class Manifest(Strict):
    """`manifest.json`."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str
    hwr_export: str
    opset: int
    model: ModelSpec
    files: tuple[ManifestFile, ...]

    def to_json(self) -> bytes:
        return json_bytes(self.model_dump(mode="json", by_alias=True))


@dataclass(frozen=True)
class FileStatus:
    """Whether a file is what the manifest says; `problem` is empty if it is."""

    path: str
    sha256: str
    problem: str

    @property
    def ok(self) -> bool:
        return not self.problem


class Release:
    """A release directory, as its manifest describes it. Opening checks the manifest, not yet the files."""

    def __init__(self, path: Path, manifest: Manifest, manifest_sha256: str) -> None:
        self.path = path
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256

    @classmethod
    def open(cls, path: Path) -> "Release":
        """Read and validate the manifest.

        Raises:
            ReleaseError: not a release directory, or a manifest that this version cannot read.
        """
        _recover(path)
        try:
            data = (path / MANIFEST).read_bytes()
        except OSError as err:
            raise ReleaseError(
                f"{path} is no release: expected a directory with {MANIFEST}, as `hwr-export onnx` writes it "
                f"({err.strerror})"
            ) from err
        try:
            manifest = Manifest.model_validate(json.loads(data))
        except ValidationError as err:
            raise ReleaseError(
                f"{path / MANIFEST} is not a manifest this version can read: {first_problem(err)}"
            ) from err
        except (ValueError, RecursionError) as err:
            raise ReleaseError(f"{path / MANIFEST} is not JSON: {err}; make the release again") from err
        return cls(path, manifest, sha256_bytes(data))

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.model

    def entry(self, path: str) -> ManifestFile | None:
        """Return the manifest's entry of a file, or None."""
        return next((f for f in self.manifest.files if f.path == path), None)

    def by_role(self, role: Role) -> list[ManifestFile]:
        return [f for f in self.manifest.files if f.role == role]

    def onnx(self, precision: str) -> ManifestFile:
        """Return the model file of one precision.

        Raises:
            ReleaseError: the release has none; the message lists those it has.
        """
        for file in self.by_role("onnx"):
            if file.precision == precision:
                return file
        have = ", ".join(sorted(f.precision or "?" for f in self.by_role("onnx"))) or "none"
        raise ReleaseError(f"{self.path} has no {precision} model; it has: {have}")

    def read(self, file: ManifestFile) -> bytes:
        """Return a file's content, which is what the manifest says it is.

        Raises:
            ReleaseError: missing, unreadable or of another hash.
        """
        data = self.read_unverified(file)
        found = sha256_bytes(data)
        if found != file.sha256:
            raise ReleaseError(
                f"{self.path / file.path} is not the file the manifest vouches for (sha256 {found[:12]}…, expected "
                f"{file.sha256[:12]}…, {len(data):,} bytes where {file.size_bytes:,} were written); export it again"
            )
        return data

    def read_unverified(self, file: ManifestFile) -> bytes:
        """Return a file's content, whatever it is. For `parity`, which must judge a changed file, not refuse it."""
        try:
            return (self.path / file.path).read_bytes()
        except OSError as err:
            raise ReleaseError(f"{self.path / file.path} cannot be read: {err.strerror}; export it again") from err

    def require_writable(self) -> None:
        """Say before a long measurement, not after it, that its evidence could not be kept.

        Raises:
            ReleaseError: the directory that holds the release cannot be written to.
        """
        if not os.access(self.path.resolve().parent, os.W_OK):
            raise ReleaseError(
                f"{self.path} cannot be changed: {self.path.resolve().parent} is not writable, and this command adds "
                "its evidence to the release; copy the release elsewhere first"
            )

    def verify(self) -> list[FileStatus]:
        """Hash every file and follow every `made_from`: nothing missing, changed or stale."""
        present = {f.sha256 for f in self.manifest.files}
        statuses = []
        for file in self.manifest.files:
            path = self.path / file.path
            problem = ""
            if not path.is_file():
                problem = "missing"
            elif sha256_file(path) != file.sha256:
                problem = "changed: not the bytes the manifest vouches for"
            elif set(file.made_from) - present:
                problem = "stale: made from a file that is no longer in the release"
            statuses.append(FileStatus(file.path, file.sha256, problem))
        return statuses

    @contextmanager
    def change(self) -> Iterator["Change"]:
        """Prepare a change; it takes effect, whole, when the block ends without an exception.

        Raises:
            ReleaseError: what a new file was made from has been replaced by another command meanwhile.
        """
        with _locked(self.path.parent), _staging(self.path) as staged:
            current = Release.open(self.path)
            _copy_tree(self.path, staged)
            change = Change(staged, current.manifest)
            yield change
            change.finish()
            _exchange(staged, self.path)
        self.manifest = change.manifest
        self.manifest_sha256 = sha256_bytes(change.manifest.to_json())


@contextmanager
def new_release(path: Path, name: str, spec: ModelSpec, opset: int) -> Iterator["Change"]:
    """Prepare a new release; it takes the place of a previous one at `path`, whole, when the block ends.

    Raises:
        UsageError: `path` exists and is not a release.
    """
    refuse_foreign_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent), _staging(path) as staged:
        manifest = Manifest(name=name, hwr_export=hwr_export.__version__, opset=opset, model=spec, files=())
        change = Change(staged, manifest)
        yield change
        change.finish()
        if path.exists():
            _exchange(staged, path)
        else:
            staged.rename(path)
            sync_directory(path.parent)


def refuse_foreign_directory(path: Path) -> None:
    """Refuse to write a release over anything that is not one.

    Raises:
        UsageError: `path` exists and is neither an empty directory nor a release.
    """
    _recover(path)
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not a release; choose another -o, nothing was changed")


class Change:
    """Files being added to a release that is not visible yet."""

    def __init__(self, staged: Path, manifest: Manifest) -> None:
        self._staged = staged
        self.manifest = manifest

    def write(
        self, path: str, data: bytes, role: Role, made_from: Sequence[str] = (), precision: str | None = None
    ) -> ManifestFile:
        """Add or replace a file; a report of the release as it was before goes. `made_from` are sha256 of its files."""
        present = {f.sha256 for f in self.manifest.files}
        if set(made_from) - present:
            raise ReleaseError(
                f"{path} was made from a file that another command has replaced meanwhile; run this command again"
            )
        entry = ManifestFile(
            path=path,
            role=role,
            sha256=sha256_bytes(data),
            size_bytes=len(data),
            made_from=tuple(made_from),
            precision=precision,
        )
        target = self._staged / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
        outdated = [f for f in self.manifest.files if f.role == "report" and role not in ("report", "card")]
        for report in outdated:
            (self._staged / report.path).unlink(missing_ok=True)
        kept = [f for f in self.manifest.files if f.path != path and f not in outdated]
        files = tuple(sorted([*kept, entry], key=lambda f: f.path))
        self.manifest = self.manifest.model_copy(update={"files": files})
        return entry

    def read(self, path: str) -> bytes | None:
        """Return a file of the release as it will be, or None if it will have none of that name."""
        if all(f.path != path for f in self.manifest.files):
            return None
        return (self._staged / path).read_bytes()

    def finish(self) -> None:
        write_atomic(self._staged / MANIFEST, self.manifest.to_json())


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    fd = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A directory beside `path`; gone afterwards, as are those that killed processes left."""
    _recover(path)
    prefix = f".{path.name}.next-"
    for left_over in (*path.parent.glob(f"{prefix}*"), _previous(path)):
        shutil.rmtree(left_over, ignore_errors=True)
    staged = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    staged.chmod(0o755)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy by hard links: files are only ever replaced, never written into. Bytes where links are not possible."""

    def link(src: str, dst: str) -> None:
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def _exchange(staged: Path, live: Path) -> None:
    """Swap two directories' names in one step; afterwards `staged` is the previous content."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(staged), _AT_FDCWD, os.fsencode(live), _RENAME_EXCHANGE) == 0:
            sync_directory(live.parent)
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.EXDEV):
            raise OSError(code, os.strerror(code), str(live))
    # File systems without the exchange: two renames; `_recover` undoes the first if a kill falls between them.
    previous = _previous(live)
    live.rename(previous)
    staged.rename(live)
    sync_directory(live.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _recover(path: Path) -> None:
    previous = _previous(path)
    if not path.exists() and previous.is_dir():
        previous.rename(path)
