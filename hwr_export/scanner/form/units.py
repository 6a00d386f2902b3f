"""Words of a command -> files with pages in a fixed order -> units of work, which processes and machines take up.

Nothing here decodes a page; of a folder, the names of one level are in memory at a time.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hwr_export.errors import UsageError
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.results import PageResult
from hwr_export.scanner.page import Grey

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".pdf")  # of files in folders; a file that is named may have any
GONE = -1  # size of a file that cannot be asked for it


class Reader(Protocol):
    """What reads a page of a form."""

    def read(self, page: Grey) -> PageResult:
        """Return what stands on it; a page that is not the form comes back refused."""


class ReaderOpener(Protocol):
    """What opens a reader in the process or on the machine that reads: it can be pickled."""

    def __call__(self) -> AbstractContextManager[Reader]: ...


@dataclass(frozen=True)
class FormReaderOpener:
    """Opens releases where they lie, and reads a form with them."""

    form: Form
    releases: tuple[Path, ...]
    threads: int = 1

    def __call__(self) -> AbstractContextManager[Reader]:
        from hwr_export.release import Release
        from hwr_export.scanner.form.reader import open_form_reader

        return open_form_reader(self.form, [Release.open(path) for path in self.releases], self.threads)


@dataclass(frozen=True)
class Unit:
    """Pages of one file, `first` to `last`; to its end where `last` is 0. `size` and `mtime_ns` tell if it changed."""

    file: int  # its place in the order of files
    path: str
    size: int
    mtime_ns: int
    first: int = 1
    last: int = 0
    of: int = 0  # pages of the file, where they were counted


@dataclass(frozen=True)
class PageDone:
    """A page that was read or refused: its line for the journal, and what is counted of it."""

    file: int
    number: int
    line: bytes
    refused: bool
    accepted: int = 0
    referred: int = 0


def page_name(path: str | Path, number: int, of: int) -> str:
    """Return what results call a page."""
    return str(path) if of == 1 else f"{path}#{number}"


def find_files(words: Sequence[Path], beside: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the files that words name, once each: files as they are, folders with all that lies in them, by name.

    Args:
        words: files and folders.
        beside: folders that are not looked into, for what is written there is no page.

    Raises:
        UsageError: a word is neither a file nor a folder. Nothing has been yielded then.
    """
    for word in words:
        if not word.is_file() and not word.is_dir():
            raise UsageError(f"there is no file or folder {word}; give page files (PNG, JPEG, TIFF, PDF) or folders")
    return _files(words, {path.resolve() for path in beside})


def unit_of(file: int, path: Path) -> Unit:
    """Return all pages of a file as it is now."""
    try:
        found = path.stat()
    except OSError:  # reading it will say so
        return Unit(file, str(path), GONE, 0)
    return Unit(file, str(path), found.st_size, found.st_mtime_ns)


def _files(words: Sequence[Path], beside: set[Path]) -> Iterator[Path]:
    taken: set[Path] = set()  # words so far: what lies in two of them is one page
    for word in words:
        real = word.resolve()
        if taken.isdisjoint((real, *real.parents)):
            if word.is_dir():
                yield from _within(word, real, beside | taken)
            else:
                yield word
        taken.add(real)


def _within(folder: Path, real: Path, beside: set[Path]) -> Iterator[Path]:
    if real in beside:
        return
    try:
        with os.scandir(folder) as entries:
            # Names and whether they are folders, and no more. Links to folders are not followed: they may lead round.
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as err:
        raise UsageError(
            f"the folder {folder} cannot be listed: {err.strerror}; make it readable, or leave it out"
        ) from err
    for name, is_folder in names:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _within(folder / name, real / name, beside)
        elif name.lower().endswith(SUFFIXES) and real / name not in beside:
            yield folder / name
