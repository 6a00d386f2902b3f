"""One document of evidence -> what is read from it, or why there is none; what lacks something stops the report."""

from collections.abc import Callable
from typing import TypeVar

from hwr_export.errors import ReleaseError
from hwr_export.release import Release
from hwr_export.report.facts import Missing

T = TypeVar("T")


def absent(release: Release, path: str, why: str, command: str) -> Missing:
    """Return that there is no such evidence, or that what there is is about other files."""
    stale = release.entry(path) is not None
    return Missing(f"{path} is about other ONNX files than this release holds now." if stale else why, command)


def understood(release: Release, path: str, command: str, read: Callable[[], T]) -> T:
    """Return what `read` makes of a document.

    Raises:
        ReleaseError: it lacks something that this version writes.
    """
    try:
        return read()
    except (KeyError, TypeError, ValueError, IndexError) as err:
        raise ReleaseError(
            f"{release.path / path} is not the evidence that this version writes ({type(err).__name__}: {err}); run "
            f"`{command}` again"
        ) from err
