"""What an archive says of itself: `bundle.json`, its first member. All it declares is a limit, checked against ours.

Written in one way only: an index that would be written otherwise is refused, so that no key is given twice and nothing
hides in it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from hwr_export.errors import BundleError
from hwr_export.files import json_bytes
from hwr_export.release import MANIFEST, PATH_PATTERN
from hwr_export.spec import Strict, first_problem

INDEX = "bundle.json"
MAX_INDEX_BYTES = 256 << 10
MAX_FILES = 500
MAX_PATH = 100  # what a tar header holds without an extension
MAX_BYTES = 1 << 30  # of all files together
MAX_MANIFEST_BYTES = 1 << 20
MAX_JSON_BYTES = 2 << 20  # of any other document: it is parsed in memory

_NUMBER = r"(0|[1-9][0-9]{0,5})"
VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
Version = Annotated[str, StringConstraints(pattern=rf"^{VERSION}$")]


class BundleFile(Strict):
    """One file of the archive."""

    path: str = Field(max_length=MAX_PATH, pattern=PATH_PATTERN)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, le=MAX_BYTES)


class BundleIndex(Strict):
    """`bundle.json`: `release_sha256` is of the manifest of the whole release, of which a device gets a part."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")
    version: Version
    release_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=MAX_FILES)

    @property
    def version_number(self) -> tuple[int, ...]:
        """Return the version as it compares: 1.10.0 is later than 1.9.0."""
        return tuple(map(int, self.version.split(".")))

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @classmethod
    def of(cls, name: str, version: str, release_sha256: str, files: Sequence[BundleFile]) -> "BundleIndex":
        """Return the index of these files.

        Raises:
            BundleError: they cannot be in one archive.
        """
        in_order = tuple(sorted(files, key=lambda file: file.path))
        try:
            return cls(name=name, version=version, release_sha256=release_sha256, files=in_order)
        except ValidationError as err:
            raise BundleError(f"{name} {version} cannot be packed: {first_problem(err)}") from err

    def to_json(self) -> bytes:
        """Return the index as the archive holds it."""
        return json_bytes(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_json(cls, data: bytes, source: str) -> "BundleIndex":
        """Read an index.

        Raises:
            BundleError: it is none that this version can read, or not written as `pack` writes it.
        """
        try:
            index = cls.model_validate_json(data)
        except ValidationError as err:
            raise BundleError(
                f"{source} is no archive this version can read: {INDEX}: {first_problem(err)}; pack the release again"
            ) from err
        if index.to_json() != data:
            raise BundleError(f"{source} is no archive of ours: {INDEX} is not written as `hwr-export pack` writes it")
        return index

    @model_validator(mode="after")
    def _can_be_unpacked(self) -> "BundleIndex":
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise ValueError("the files are not in order of their paths")
        _require_own_names(paths)
        if MANIFEST not in paths:
            raise ValueError(f"{MANIFEST} is not among the files")
        for file in self.files:
            limit = MAX_MANIFEST_BYTES if file.path == MANIFEST else MAX_JSON_BYTES
            if file.path.lower().endswith(".json") and file.size_bytes > limit:
                raise ValueError(f"{file.path} has {file.size_bytes:,} bytes; such a document has {limit:,} at most")
        if self.size_bytes > MAX_BYTES:
            raise ValueError(f"the files have {self.size_bytes:,} bytes together; an archive has {MAX_BYTES:,} at most")
        return self


def _require_own_names(paths: list[str]) -> None:
    """Refuse names that would be one on some file system, and a name that is a file and a folder at once."""
    files = {INDEX}
    folders: dict[str, str] = {}
    for path in paths:
        if path.lower() in files:
            raise ValueError(f"{path} is there twice, or differs from another name by case alone")
        files.add(path.lower())
        parts = path.split("/")
        for folder in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if folders.setdefault(folder.lower(), folder) != folder:
                raise ValueError(f"the folder {folder} differs from another by case alone")
    if both := sorted(files & folders.keys()):
        raise ValueError(f"{both[0]} is a file and a folder at once")


def version_in(name: str) -> str | None:
    """Return the version that a file name ends with, as `digits-1.4.0.hwr` does."""
    found = re.fullmatch(rf".*-({VERSION})\.hwr", name)
    return found[1] if found else None
