"""A page that is laid straight -> for every box the character in it as the model takes it, and whether it is empty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.boxlines import without_lines
from hwr_export.scanner.form.crops import crops
from hwr_export.scanner.form.faint import find_faint
from hwr_export.scanner.form.fields import CheckboxField
from hwr_export.scanner.form.layout import Layout, Place, Rect
from hwr_export.scanner.form.pen import blank_probability, pen_levels, tick_probability
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.form.segments import segment
from hwr_export.scanner.form.sharing import share_out
from hwr_export.scanner.form.strips import PX_PER_MM, Strip, cut_strip
from hwr_export.scanner.form.strokes import Strokes, find_pieces, whole
from hwr_export.scanner.form.struck import covered, struck_out, usual
from hwr_export.scanner.page import Box, Grey

Floats = npt.NDArray[np.float64]
MARGIN_MM = 2.0  # around a field, that is looked at with it
_WITHIN = 0.12  # of a checkbox's side, from its lines on, that ink lies in it

_DOUBT = 0.01  # probability that a box is empty, above which it is looked at again


@dataclass(frozen=True)
class Cell:
    """One box."""

    image: npt.NDArray[np.uint8] | None  # (28, 28), white on black, by glyph's own normalisation; None where empty
    blank: float  # probability that no character stands in it
    struck: bool  # struck out or scribbled over
    box_px: Box  # upright bounding box of it in the image that was scanned


@dataclass(frozen=True)
class FieldCells:
    """A field's boxes in reading order; of a line, the characters found on it from left to right."""

    cells: tuple[Cell, ...]
    ticked: float | None  # probability that a checkbox is ticked; None of all other fields
    stray: bool  # ink beside the boxes that belongs to none of them
    box_px: Box


@dataclass(frozen=True)
class _Looked:
    """One field on its strip."""

    place: Place
    strip: Strip
    own: Floats  # (N, 4): left, top, right, bottom of its boxes in the strip
    others: Floats  # (M, 4), of other fields' boxes
    ink: Grey

    @property
    def boxed(self) -> bool:
        """Whether it has a box for each character."""
        return not isinstance(self.place.field, CheckboxField) and self.place.field.boxes is not None


@dataclass(frozen=True)
class _Pen:
    """What is known of the writing on the whole page."""

    level: float  # darkness in the middle of strokes
    covers: float  # share of a box


def find_cells(
    page: Grey, registration: Registration, layout: Layout, shape: tuple[int, int] = (28, 28)
) -> list[FieldCells]:
    """Return what stands in the boxes of every field, in the order of the layout's places.

    Args:
        page: uint8 (H, W), dark on light.
        shape: height and width of the model's input.
    """
    everything = np.array([(r.x, r.y, r.right, r.bottom) for place in layout.places for r in place.boxes])
    looked = [_look(page, registration, place, everything) for place in layout.places]
    levels, level = pen_levels([each.ink for each in looked], [each.strip.noise for each in looked])
    strokes = [_shared(each, own) for each, own in zip(looked, levels, strict=True)]
    pen = _Pen(level, usual([covered(s, each.own) for each, s in zip(looked, strokes, strict=True) if each.boxed]))
    return [
        _checkbox(each, registration, found, own / level)
        if isinstance(each.place.field, CheckboxField)
        else _cells(each, registration, found, own, pen, shape)
        for each, found, own in zip(looked, strokes, levels, strict=True)
    ]


def _look(page: Grey, registration: Registration, place: Place, everything: Floats) -> _Looked:
    rect = place.area.grown(MARGIN_MM)
    strip = cut_strip(page, registration, rect)
    own = strip.boxes(np.array([(r.x, r.y, r.right, r.bottom) for r in place.boxes]))
    others = strip.boxes(everything[_overlap(everything, rect) & ~_overlap(everything, place.area)])
    return _Looked(place, strip, own, others, without_lines(strip, np.concatenate([own, others])))


def _shared(looked: _Looked, level: float) -> Strokes:
    pieces = find_pieces(looked.ink, level, looked.strip.noise)
    if looked.boxed or isinstance(looked.place.field, CheckboxField):
        return share_out(pieces, looked.own, looked.others)
    return segment(pieces, looked.own[0], looked.others)


def _cells(
    looked: _Looked, registration: Registration, strokes: Strokes, level: float, pen: _Pen, shape: tuple[int, int]
) -> FieldCells:
    images, blanks = _images(looked.ink, strokes, level, pen, shape)
    struck, rects = strokes.struck, list(looked.place.boxes)
    if looked.boxed:
        struck = struck_out(strokes, looked.own, pen.covers)
        noise = looked.strip.noise
        for faint in find_faint(looked.ink, strokes, looked.own, blanks > _DOUBT, pen.level, noise):
            pieces = find_pieces(faint.ink, faint.level, noise)
            image, blank = _images(faint.ink, whole(pieces), faint.level, pen, shape)
            images[faint.number], blanks[faint.number] = image[0], blank[0]
    else:
        rects = [_on_sheet(looked.strip, box) for box in strokes.boxes.tolist()]
    boxes = _upright(registration, [looked.place.area, *rects])
    cells = zip(images, blanks.tolist(), struck.tolist(), boxes[1:], strict=True)
    return FieldCells(tuple(Cell(*cell) for cell in cells), None, strokes.stray, boxes[0])


def _images(
    ink: Grey, strokes: Strokes, level: float, pen: _Pen, shape: tuple[int, int]
) -> tuple[list[Grey | None], Floats]:
    """Return the characters' images and the probabilities that they are none, float64 (N,)."""
    images, levels = crops(ink, strokes, level, shape)
    area, extent = strokes.largest / PX_PER_MM**2, strokes.extent / PX_PER_MM
    return images, blank_probability(area, extent, levels / pen.level)


def _checkbox(looked: _Looked, registration: Registration, strokes: Strokes, contrast: float) -> FieldCells:
    inset = _WITHIN * (looked.own[0, 2] - looked.own[0, 0])
    left, top, right, bottom = looked.own[0] + np.array([1, 1, -1, -1]) * inset
    rows, columns = np.nonzero(strokes.owner == 1)
    within = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    rows, columns = rows[within], columns[within]
    extent = float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0
    ticked = tick_probability(len(rows) / PX_PER_MM**2, extent / PX_PER_MM, contrast)
    (box,) = _upright(registration, [looked.place.area])
    return FieldCells((Cell(None, 1 - ticked, False, box),), ticked, strokes.stray, box)


def _overlap(rects: Floats, rect: Rect) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = rects.T
    found = (left < rect.right) & (rect.x < right) & (top < rect.bottom) & (rect.y < bottom)
    return np.asarray(found, dtype=np.bool_)


def _on_sheet(strip: Strip, box: Sequence[int]) -> Rect:
    left, top, right, bottom = (side / PX_PER_MM for side in box)
    return Rect(strip.rect.x + left, strip.rect.y + top, right - left, bottom - top)


def _upright(registration: Registration, rects: Sequence[Rect]) -> list[Box]:
    """Return the upright bounding boxes of rectangles of the sheet in the image."""
    corners = registration.pixels(np.concatenate([rect.corners for rect in rects])).reshape(-1, 4, 2)
    low, high = np.floor(corners.min(axis=1)).astype(int), np.ceil(corners.max(axis=1)).astype(int)
    sizes = np.maximum(high - low, 1)
    return [(x, y, w, h) for (x, y), (w, h) in zip(low.tolist(), sizes.tolist(), strict=True)]
