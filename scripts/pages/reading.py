"""Page number -> what the form reader says of that page, beside what is true of it; no image is kept."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.release import Release
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.registration import PageRefused, Registration
from hwr_export.scanner.form.results import PageResult
from scripts.pages.hand import Grey
from scripts.pages.page import Maker, Page

AT_DPI = 300  # that errors of registration are given at


class Reader(Protocol):
    """What reads a page of the form it was opened for."""

    def read(self, page: Grey) -> PageResult: ...


Opens = Callable[[Form, Sequence[Release]], AbstractContextManager[Reader]]
Registers = Callable[[Grey, Layout], Registration]
_here: dict[str, Any] = {}  # what `begin_reading` prepared in this process
_open = ExitStack()


def open_reader(form: Form, releases: Sequence[Release]) -> AbstractContextManager[Reader]:
    """Open the form reader, with one thread."""
    from hwr_export.scanner.form.reader import open_form_reader

    return open_form_reader(form, releases, threads=1)


def register_page(page: Grey, layout: Layout) -> Registration:
    """Lay a page straight, as the form reader does."""
    from hwr_export.scanner.form.registration import register

    return register(page, layout)


def begin_reading(
    arguments: tuple[Any, ...],
    releases: Sequence[Path],
    opens: Opens = open_reader,
    registers: Registers = register_page,
) -> None:
    """Prepare to make and read pages; `arguments` are those of `Maker`."""
    cv2.setNumThreads(1)
    maker = Maker(*arguments)
    _here["maker"], _here["registers"] = maker, registers
    _open.close()
    _here["reader"] = _open.enter_context(opens(maker.form, [Release.open(path) for path in releases]))


def read_page(number: int) -> dict[str, Any]:
    """Make a page and read it: its result as a folder of results has it, its truth, and all that was drawn for it."""
    page = _here["maker"].make(number)
    result = _here["reader"].read(page.grey)
    return {
        **result.document(page.name, characters=True),
        "error_px": error_px(page, _here["maker"].layout, _here["registers"]) if result.status == "read" else None,
        "truth": page.truth,
        "scan": page.scan,
    }


def error_px(page: Page, layout: Layout, registers: Registers) -> float | None:
    """Return how far a box's corner lies at most from where it is found, in pixels at `AT_DPI`; None if it is not."""
    corners = np.concatenate([box.corners for place in layout.places for box in place.boxes])
    try:
        found = registers(page.grey, layout).pixels(corners)
    except PageRefused:
        return None
    true = project(np.array(page.scan["homography"]), corners)
    return float(np.linalg.norm(found - true, axis=1).max()) * AT_DPI / page.dpi


def project(homography: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return where points in mm lie on a scan, float64 (N, 2)."""
    projected = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(projected[:, :2] / projected[:, 2:], dtype=np.float64)
