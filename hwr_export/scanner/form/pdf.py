"""A PDF -> its pages in grey, uint8 (H, W), by PDFium: rendered, and what was scanned at the scan's own resolution.

PDFium serves one thread of a process, and what takes it long cannot be stopped from within.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hwr_export.errors import ImageError
from hwr_export.glyph import MAX_PIXELS
from hwr_export.scanner.page import Grey

DPI = 300.0  # of pages that have none of their own
LEAST_DPI, MOST_DPI = 100.0, 600.0
POINTS_PER_INCH = 72.0
MM_PER_POINT = 25.4 / 72
COVERED = 0.5  # share of a page under images, from which on it is a scan
STRIP = 0.01  # share of a page, below which an image is a logo or a stamp
MOST_OBJECTS = 2_000  # of a page, that are looked at to tell
_LOCKED = (4, 5)  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY


class Pdf:
    """A PDF that is open."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self.of = len(document)

    def render(self, number: int, name: str) -> tuple[Grey, float]:
        """Return a page, from 1 on, in grey, and its resolution in dpi; errors call it `name`.

        Raises:
            ImageError: it has no size that a page can have, or is damaged.
        """
        from pypdfium2 import PdfiumError

        try:
            page = self._document[number - 1]
        except PdfiumError as err:
            raise ImageError(f"{name} cannot be read: {err}; the file may be damaged") from err
        try:
            return _rendered(page, name)
        finally:
            page.close()


@contextmanager
def open_pdf(path: Path) -> Iterator[Pdf]:
    """Open a PDF.

    Raises:
        ImageError: it is encrypted, damaged or has no pages.
    """
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(path)
    except PdfiumError as err:
        if err.err_code in _LOCKED:
            raise ImageError(f"{path} is encrypted; store it without a password") from err
        raise ImageError(f"{path} has no pages, or is damaged or cut off: PDFium cannot open it") from err
    try:
        yield Pdf(document)
    finally:
        document.close()


def _rendered(page: Any, name: str) -> tuple[Grey, float]:
    from pypdfium2 import PdfBitmap, raw

    width, height = page.get_size()
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise ImageError(f"{name} measures {width:g} x {height:g} points, which no page does")
    most = math.sqrt(MAX_PIXELS / (width * height)) * POINTS_PER_INCH
    dpi = min(_own_dpi(page, width * height) or DPI, most)
    if dpi < LEAST_DPI and most < LEAST_DPI:
        raise ImageError(
            f"{name} measures {width * MM_PER_POINT:.0f} x {height * MM_PER_POINT:.0f} mm, larger than any form"
        )
    sides = [side * dpi / POINTS_PER_INCH for side in (width, height)]
    across, down = (max(1, math.floor(side) if dpi == most else round(side)) for side in sides)
    if across * down > MAX_PIXELS:  # so long that the other side is a fraction of a pixel
        raise ImageError(f"{name} measures {width:g} x {height:g} points, which no form does")
    bitmap = PdfBitmap.new_native(across, down, raw.FPDFBitmap_Gray)
    try:
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, across, down)
        # The bitmap makes grey of colours; the flag for it would do so pixel by pixel, at thrice the time.
        flags = raw.FPDF_ANNOT | raw.FPDF_RENDER_LIMITEDIMAGECACHE
        raw.FPDF_RenderPageBitmap(bitmap, page, 0, 0, across, down, 0, flags)
        return np.array(bitmap.to_numpy(), dtype=np.uint8).reshape(down, across), dpi
    finally:
        bitmap.close()


def _own_dpi(page: Any, area: float) -> float | None:
    """Return the resolution of the images that a page consists of; None where it does not."""
    from pypdfium2 import PdfiumError, raw

    covered, finest, written = 0.0, 0.0, False
    try:
        for i, item in enumerate(page.get_objects(max_depth=3)):
            if i >= MOST_OBJECTS:
                return None
            if item.type == raw.FPDF_PAGEOBJ_IMAGE:
                a, b, c, d, _, _ = item.get_matrix().get()
                across, down = math.hypot(a, b), math.hypot(c, d)  # points; an image is a unit square before
                pixels = item.get_px_size()
                if across * down >= STRIP * area and min(pixels) > 0:
                    covered += across * down
                    finest = max(finest, pixels[0] / across, pixels[1] / down)
            elif item.type == raw.FPDF_PAGEOBJ_PATH or item.type == raw.FPDF_PAGEOBJ_SHADING:
                written = True
            elif item.type == raw.FPDF_PAGEOBJ_TEXT:
                # What a scan was recognised as lies on it unseen.
                written |= raw.FPDFTextObj_GetTextRenderMode(item) != raw.FPDF_TEXTRENDERMODE_INVISIBLE
    except (PdfiumError, ValueError, OverflowError, ZeroDivisionError):
        return None
    if covered < COVERED * area:
        return None
    own = finest * POINTS_PER_INCH
    return min(max(own, DPI if written else 0.0), MOST_DPI)
