"""A page file -> its pages in grey, uint8 (H, W), one at a time: PNG, JPEG, TIFF of many pages, PDF.

A page too large is refused by its header, before it is decoded. Colour becomes luminance, in which the tint of a form's
boxes is light and any pen dark. A PDF's page is rendered; one that was scanned, at the resolution of the scan.
"""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image, ImageOps

from hwr_export.errors import ImageError
from hwr_export.glyph import MAX_PIXELS, decoding, opened_image, to_grey
from hwr_export.scanner.form.pdf import Pdf, open_pdf
from hwr_export.scanner.form.tiff import tiff_pages
from hwr_export.scanner.form.units import page_name
from hwr_export.scanner.page import Grey

MAX_PAGES = 5_000  # of one file
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM")
_SNIFFED_BYTES = 1024  # in which a PDF's header must stand
_END_BYTES = 65_536  # in which its end must
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF 6.0
_ORIENTATION = 274  # EXIF 2.3


@dataclass(frozen=True)
class PageImage:
    """One page; `number` counts from 1."""

    path: Path
    number: int
    of: int
    grey: Grey
    dpi: float | None  # that the file states, or that it was rendered at

    @property
    def name(self) -> str:
        return page_name(self.path, self.number, self.of)


class PageFile(Protocol):
    """A file that is open."""

    @property
    def of(self) -> int:
        """The number of its pages, at least 1."""

    def page(self, number: int) -> PageImage:
        """Return a page, from 1 on; one that is damaged says nothing of the others.

        Raises:
            ImageError: it is damaged, or larger than a page may be.
        """


def load_pages(path: Path) -> Iterator[PageImage]:
    """Yield the pages of a file, each decoded when it is asked for.

    Raises:
        ImageError: as `open_pages`, or a page is damaged or larger than a page may be.
    """
    with open_pages(path) as file:
        for number in range(1, file.of + 1):
            yield file.page(number)


@contextmanager
def open_pages(path: Path) -> Iterator[PageFile]:
    """Open a file; nothing is decoded yet.

    A damaged file may keep a decoder busy for long: where that matters, read in a process that can be ended.

    Raises:
        ImageError: missing, in no format that can be read, encrypted, empty, or of too many pages.
    """
    if not path.is_file():
        raise ImageError(f"there is no file {path}")
    with ExitStack() as opened:
        with decoding(str(path)):
            pages = opened.enter_context(_opened(path))
        yield pages


@contextmanager
def _opened(path: Path) -> Iterator[PageFile]:
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
        file.seek(0)
        if not head:
            raise ImageError(f"{path} is empty")
        if b"%PDF-" in head:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            if b"startxref" not in file.read():  # PDFium would make do with the pages it finds
                raise ImageError(f"{path} is cut off: the end of a PDF is missing")
            with open_pdf(path) as pdf:
                if pdf.of > MAX_PAGES:
                    raise ImageError(f"{path} has {pdf.of:,} pages, more than the {MAX_PAGES:,} of one file; split it")
                yield _Rendered(path, pdf)
        else:
            with opened_image(file, _FORMATS) as image:
                frames: list[int | None] = tiff_pages(file, MAX_PAGES) if image.format == "TIFF" else [0]
                if len(frames) > MAX_PAGES:
                    raise ImageError(f"{path} has more than {MAX_PAGES:,} pages; split it")
                yield _Images(path, image, frames)


class _Rendered:
    """The pages of a PDF."""

    def __init__(self, path: Path, pdf: Pdf) -> None:
        self._path, self._pdf = path, pdf
        self.of = pdf.of

    def page(self, number: int) -> PageImage:
        grey, dpi = self._pdf.render(number, page_name(self._path, number, self.of))
        return PageImage(self._path, number, self.of, grey, dpi)


class _Images:
    """The pages of an image file."""

    def __init__(self, path: Path, image: Image.Image, frames: list[int | None]) -> None:
        self._path, self._image, self._frames = path, image, frames
        self.of = len(frames)

    def page(self, number: int) -> PageImage:
        name = page_name(self._path, number, self.of)
        frame = self._frames[number - 1]
        if frame is None:
            raise ImageError(f"{name} is cut off, and whatever pages may have followed: its directory is not whole")
        with decoding(name):
            if self.of > 1 or frame:
                self._image.seek(frame)
            _check_size(*self._image.size, name)
            return PageImage(self._path, number, self.of, self._grey(name), _dpi(self._image.info.get("dpi")))

    def _grey(self, name: str) -> Grey:
        image = self._image
        if image.format == "PNG" and image.mode in ("L", "RGB") and (grey := _quick_png(self._path, image)) is not None:
            return grey
        if image.format == "JPEG":
            image.draft("L", image.size)  # luminance is what the file has; colours are never made
            if image.mode == "L" and image.getexif().get(_ORIENTATION, 1) == 1:
                return np.asarray(image)  # without the copies that what follows would make
        negative = image.format == "TIFF" and image.mode.startswith("I") and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise ImageError(f"{name} has levels with a fraction, of 32 bits; scan with 8 bits")
        if upright.mode.startswith("I"):
            high = np.asarray(np.clip(np.asarray(upright), 0, 65535) >> 8, dtype=np.uint8)
            return 255 - high if negative else high
        return to_grey(upright)


def _tag(image: Image.Image, number: int) -> Any:
    return image.tag_v2.get(number)  # type: ignore[attr-defined]  # of TIFF files alone


def _quick_png(path: Path, image: Image.Image) -> Grey | None:
    """Return a PNG by OpenCV, which is a third quicker; None of one that is not plain, and Pillow has its say."""
    if "transparency" in image.info or "exif" in image.info:
        return None
    grey = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if grey is None or grey.shape[::-1] != image.size else np.asarray(grey, dtype=np.uint8)


def _dpi(stated: Any) -> float | None:
    """Return the resolution that a file states, None where it is none that a scan can have."""
    try:
        across, down = (float(value) for value in stated)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return math.sqrt(across * down) if min(across, down) > 1 and max(across, down) < 1e5 else None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the {MAX_PIXELS:,} that a page may have; "
            "scan it at a lower resolution"
        )
