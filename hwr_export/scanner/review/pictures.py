"""A page's file and what was read of it -> the sheet laid straight again, as pictures for a screen.

What was read says where every box lies on the scan; with the form's layout that gives back the homography. Images come
from the paths in the results alone; one that is missing, or is not what was read, is said in a sentence.
"""

import io
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hwr_export.errors import FormError, ImageError
from hwr_export.scanner.form.fields import AmountField
from hwr_export.scanner.form.layout import Layout, Place, Rect
from hwr_export.scanner.form.pages import open_pages
from hwr_export.scanner.page import Box, Grey
from hwr_export.scanner.review.ledger import Key
from hwr_export.scanner.review.results_folder import ReadField, ReadPage

Floats = npt.NDArray[np.float64]
ASIDE_MM, ABOVE_MM, BELOW_MM = 3.5, 6.0, 3.5  # around a field: its label is printed above it
CURRENCY_MM = 2.2  # for a character of an amount's currency, which is printed behind it
NARROWEST_MM = 42.0  # of a field's picture: a lone box is shown with what is printed beside it
PIXELS_PER_MM = 14.0  # of a field's picture at most: a little finer than 300 dpi
PAGE_WIDTHS = (900, 2600)  # pixels: the whole page on a screen, and looked at closely
FAR_MM = 1.5  # a box so far from where the layout puts it was not read of this form
KEPT = 3  # pages in memory
JPEG_QUALITY = 88
CHANGED = "The file of this page has changed since it was read: look whether it is the same page."


@dataclass(frozen=True)
class Scan:
    """A page's image and where the sheet lies on it."""

    grey: Grey
    homography: Floats  # float64 (3, 3): mm on the sheet -> pixels
    remark: str = ""  # what a person should know about the image


class Pictures:
    """Pages' images by path, the last few kept; a path is asked for by what the results say, never by a request."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Scan] = OrderedDict()

    def scan(self, page: ReadPage) -> Scan:
        """Return a page's image.

        Raises:
            ImageError: it is missing, cannot be decoded, or is not the image that was read.
        """
        with self._lock:  # one at a time: what two ask for at once is decoded once
            if page.key("") not in self._kept:
                self._kept[page.key("")] = self._opened(page)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(page.key(""))
            return self._kept[page.key("")]

    def field_png(self, page: ReadPage, place: Place) -> bytes:
        """Return the picture of a field: upright, its paper white."""
        window, scale = window_of(place), pixels_per_mm(self.scan(page).homography, place)
        drawn = straight(self.scan(page), window, scale)
        low, high = np.percentile(drawn, (0.5, 60))
        if high - low > 24:
            drawn = np.clip((drawn.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        return _encoded(drawn, "PNG")

    def page_jpeg(self, page: ReadPage, width: int) -> bytes:
        """Return the picture of the whole sheet, of one of `PAGE_WIDTHS`."""
        sheet = Rect(0, 0, self._layout.width, self._layout.height)
        return _encoded(straight(self.scan(page), sheet, width / sheet.width), "JPEG")

    def _opened(self, page: ReadPage) -> Scan:
        path, grey = load_page(page)
        height, width = grey.shape
        for field in page.fields:
            x, y, w, h = field.box
            if x + w > width + 2 or y + h > height + 2 or x < -2 or y < -2:
                raise ImageError(
                    f"{page.path} has {width} x {height} pixels, and the field {field.name} was read at ({x}, {y}): it "
                    "is not the image that was read; bring that one back"
                )
        return Scan(grey, homography_of(page, self._layout), CHANGED * _has_changed(path, page))


def load_page(page: ReadPage) -> tuple[Path, Grey]:
    """Return the file of a page, and its image, uint8 (H, W).

    Raises:
        ImageError: missing, or it cannot be decoded.
    """
    path, number = Path(page.path), 1
    if page.file is not None:
        found, number = Path(os.fsdecode(page.file.raw) if page.file.raw else page.file.path), page.file.number
        # What was moved as a whole is found by the name it was read under.
        path = found if found.is_file() else Path(page.path.removesuffix(f"#{number}"))
    if not path.is_file():
        raise ImageError(
            f"there is no image {page.path}; run `hwr-export review` where the pages were read, or bring it back"
        )
    with open_pages(path) as file:
        if number > file.of:
            raise ImageError(f"{path} has no page {number} any more; bring back the file that was read")
        return path, file.page(number).grey


def _has_changed(path: Path, page: ReadPage) -> bool:
    if page.file is None:
        return False
    now = path.stat()
    return (now.st_size, now.st_mtime_ns) != (page.file.size, page.file.mtime_ns)


def window_of(place: Place) -> Rect:
    """Return what of the sheet a field's picture shows, in mm."""
    area, field = place.area, place.field
    behind = CURRENCY_MM * (len(field.currency) + 1) if isinstance(field, AmountField) and field.currency else 0.0
    width = max(area.width + 2 * ASIDE_MM + behind, NARROWEST_MM)
    return Rect(area.x - ASIDE_MM, area.y - ABOVE_MM, width, area.height + ABOVE_MM + BELOW_MM)


def pixels_per_mm(homography: Floats, place: Place) -> float:
    """Return how finely a field's picture is drawn: as the scan is, within bounds."""
    corners = cv2.perspectiveTransform(place.area.corners[None], homography)[0]
    seen = float(np.linalg.norm(corners[1] - corners[0])) / place.area.width
    return float(np.clip(seen, 4.0, PIXELS_PER_MM))


def on_sheet(homography: Floats, box: Box) -> Rect:
    """Return where a box of the scan lies on the sheet, upright, in mm."""
    x, y, w, h = box
    corners = np.array([[[x, y], [x + w, y], [x + w, y + h], [x, y + h]]], dtype=np.float64)
    found = cv2.perspectiveTransform(corners, np.linalg.inv(homography))[0]
    left, top = found.min(axis=0)
    right, bottom = found.max(axis=0)
    return Rect(float(left), float(top), float(right - left), float(bottom - top))


def homography_of(page: ReadPage, layout: Layout) -> Floats:
    """Return where the sheet lies on a scan, float64 (3, 3), from where its boxes were found.

    Raises:
        FormError: they were not found where the layout has them.
    """
    sheet, scan = _pairs(page, layout)
    spread = np.linalg.svd(sheet - sheet.mean(axis=0), compute_uv=False)
    size = max(layout.width, layout.height)
    found: Floats | None = None
    if len(sheet) > 5 and spread[1] > 0.1 * size:
        found = cv2.findHomography(sheet, scan, 0)[0]
    elif spread[0] > 0.02 * size:
        affine, _ = cv2.estimateAffinePartial2D(sheet, scan, method=cv2.LMEDS)
        found = None if affine is None else np.vstack([affine, [0, 0, 1]])
    if found is None:
        # One box alone: as it lies, upright.
        place, box = _first(page, layout)
        scale = min(box[2] / place.area.width, box[3] / place.area.height)
        return np.array(
            [[scale, 0, box[0] - place.area.x * scale], [0, scale, box[1] - place.area.y * scale], [0, 0, 1]]
        )
    found = np.asarray(found, dtype=np.float64)
    back = cv2.perspectiveTransform(scan[None], np.linalg.inv(found))[0]
    if float(np.linalg.norm(back - sheet, axis=1).max()) > FAR_MM:
        raise FormError(f"what was read of {page.path} does not lie where the form has it; read the page again")
    return found


def _pairs(page: ReadPage, layout: Layout) -> tuple[Floats, Floats]:
    """Return the middles of boxes on the sheet in mm, and on the scan in pixels: float64 (N, 2) each."""
    sheet: list[tuple[float, float]] = []
    scan: list[tuple[float, float]] = []
    for place, field in _placed(page, layout):
        alone = len(field.characters) != len(place.boxes) or len(place.boxes) == 1
        boxes = [field.box] if alone else [c.box for c in field.characters]
        for rect, (x, y, w, h) in zip([place.area] if alone else place.boxes, boxes, strict=True):
            sheet.append((rect.x + rect.width / 2, rect.y + rect.height / 2))
            scan.append((x + (w - 1) / 2, y + (h - 1) / 2))
    return np.array(sheet, dtype=np.float64), np.array(scan, dtype=np.float64)


def _first(page: ReadPage, layout: Layout) -> tuple[Place, Box]:
    place, field = _placed(page, layout)[0]
    return place, field.box


def _placed(page: ReadPage, layout: Layout) -> list[tuple[Place, ReadField]]:
    places = {place.field.name: place for place in layout.places}
    strange = [field.name for field in page.fields if field.name not in places]
    if strange or not page.fields:
        raise FormError(f"{page.path} was read with another form: it has a field {(strange or ['(none)'])[0]!r}")
    return [(places[field.name], field) for field in page.fields]


def straight(scan: Scan, window: Rect, scale: float) -> Grey:
    """Return a part of the sheet at so many pixels a mm, uint8; what lies beyond the scan is white."""
    size = (max(1, round(window.width * scale)), max(1, round(window.height * scale)))
    to_mm = np.array([[1 / scale, 0, window.x], [0, 1 / scale, window.y], [0, 0, 1]])
    to_scan = scan.homography @ to_mm
    step = _step(to_scan, size[0])
    grey = scan.grey
    if step > 1.5:  # interpolation alone would lose thin strokes
        grey = cv2.resize(grey, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        to_scan = np.diag([grey.shape[1] / scan.grey.shape[1], grey.shape[0] / scan.grey.shape[0], 1]) @ to_scan
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpPerspective(grey, to_scan, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=255)
    return np.asarray(drawn, dtype=np.uint8)


def _encoded(image: Grey, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {"compress_level": 1}))
    return file.getvalue()


def _step(to_scan: Floats, width: int) -> float:
    """Return how many pixels of the scan one of the drawn picture is wide."""
    ends = cv2.perspectiveTransform(np.array([[[0.0, 0.0], [width, 0.0]]]), to_scan)[0]
    return float(np.linalg.norm(ends[1] - ends[0])) / width
