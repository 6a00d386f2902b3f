"""A page that is laid straight -> for every box the character in it as the model takes it, and whether it is empty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.boxlines import without_lines
from hwr_export.scanner.form.crops import crops
from hwr_export.scanner.form.faint import Faint, find_faint
from hwr_export.scanner.form.fields import CheckboxField
from hwr_export.scanner.form.layout import Layout, Place, Rect
from hwr_export.scanner.form.pen import blank_probability, pen_levels, tick_probability
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.form.segments import segment
from hwr_export.scanner.form.sharing import share_out
from hwr_export.scanner.form.strips import PX_PER_MM, Strip, cut_strip
from hwr_export.scanner.form.strokes import Pieces, Strokes, find_pieces, strokes_of
from hwr_export.scanner.form.struck import struck_out
from hwr_export.scanner.page import Box, Grey

MARGIN_MM = 2.0  # around a field, that is looked at with it
_WITHIN_MM = 0.3  # from a checkbox's lines, that ink lies in it

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
    own: npt.NDArray[np.float64]  # (N, 4): left, top, right, bottom of its boxes in the strip
    others: npt.NDArray[np.float64]  # (M, 4), of other fields' boxes
    ink: Grey


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
    levels, pen = pen_levels([each.ink for each in looked], [each.strip.noise for each in looked])
    return [_cells(each, registration, level, pen, shape) for each, level in zip(looked, levels, strict=True)]


def _look(page: Grey, registration: Registration, place: Place, everything: npt.NDArray[np.float64]) -> _Looked:
    rect = place.area.grown(MARGIN_MM)
    strip = cut_strip(page, registration, rect)
    own = strip.boxes(np.array([(r.x, r.y, r.right, r.bottom) for r in place.boxes]))
    others = strip.boxes(everything[_overlap(everything, rect) & ~_overlap(everything, place.area)])
    return _Looked(place, strip, own, others, without_lines(strip, np.concatenate([own, others])))


def _cells(looked: _Looked, registration: Registration, level: float, pen: float, shape: tuple[int, int]) -> FieldCells:
    place = looked.place
    pieces = find_pieces(looked.ink, level, looked.strip.noise)
    whole = _upright(registration, [place.area])[0]
    if isinstance(place.field, CheckboxField):
        return _checkbox(looked, pieces, level / pen, whole)
    if place.field.boxes is None:
        strokes = segment(pieces, looked.own[0], looked.others)
        found = [_on_sheet(looked.strip, box) for box in strokes.boxes.tolist()]
    else:
        strokes = share_out(pieces, looked.own, looked.others)
        found = list(place.boxes)
    images, blanks = _images(looked.ink, strokes, level, pen, shape)
    if place.field.boxes is None:
        struck = strokes.struck
    else:
        struck = struck_out(strokes, looked.own)
        for faint in find_faint(looked.ink, strokes, looked.own, blanks > _DOUBT, pen, looked.strip.noise):
            images[faint.number], blanks[faint.number] = _paler(faint, pen, looked.strip.noise, shape)
    cells = tuple(
        Cell(image, float(blank), bool(out), box)
        for image, blank, out, box in zip(images, blanks, struck, _upright(registration, found), strict=True)
    )
    return FieldCells(cells, None, strokes.stray, whole)


def _images(
    ink: Grey, strokes: Strokes, level: float, pen: float, shape: tuple[int, int]
) -> tuple[list[Grey | None], npt.NDArray[np.float64]]:
    """Return the characters' images and the probabilities that they are none, float64 (N,)."""
    images, levels = crops(ink, strokes, level, shape)
    extent = (strokes.boxes[:, 2:] - strokes.boxes[:, :2]).max(axis=1, initial=0) / PX_PER_MM
    return images, blank_probability(strokes.area / PX_PER_MM**2, extent, np.array(levels) / pen)


def _paler(faint: Faint, pen: float, noise: float, shape: tuple[int, int]) -> tuple[Grey | None, float]:
    pieces = find_pieces(faint.ink, faint.level, noise)
    owner = np.where(pieces.real[pieces.labels], 1, 0).astype(np.uint8)
    strokes = strokes_of(pieces, owner, 1, np.zeros(1, dtype=np.bool_), False)
    images, blanks = _images(faint.ink, strokes, faint.level, pen, shape)
    return images[0], float(blanks[0])


def _checkbox(looked: _Looked, pieces: Pieces, contrast: float, whole: Box) -> FieldCells:
    strokes = share_out(pieces, looked.own, looked.others)
    left, top, right, bottom = looked.own[0] + np.array([1, 1, -1, -1]) * _WITHIN_MM * PX_PER_MM
    rows, columns = np.nonzero(strokes.owner == 1)
    within = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    rows, columns = rows[within], columns[within]
    extent = float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0
    ticked = tick_probability(len(rows) / PX_PER_MM**2, extent / PX_PER_MM, contrast)
    return FieldCells((Cell(None, 1 - ticked, False, whole),), ticked, strokes.stray, whole)


def _overlap(rects: npt.NDArray[np.float64], rect: Rect) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = rects.T
    found = (left < rect.right) & (rect.x < right) & (top < rect.bottom) & (rect.y < bottom)
    return np.asarray(found, dtype=np.bool_)


def _on_sheet(strip: Strip, box: Sequence[int]) -> Rect:
    left, top, right, bottom = (side / PX_PER_MM for side in box)
    return Rect(strip.rect.x + left, strip.rect.y + top, right - left, bottom - top)


def _upright(registration: Registration, rects: Sequence[Rect]) -> list[Box]:
    """Return the upright bounding boxes of rectangles of the sheet in the image."""
    if not rects:
        return []
    corners = registration.pixels(np.concatenate([rect.corners for rect in rects])).reshape(-1, 4, 2)
    low, high = np.floor(corners.min(axis=1)).astype(int), np.ceil(corners.max(axis=1)).astype(int)
    sizes = np.maximum(high - low, 1)
    return [(x, y, w, h) for (x, y), (w, h) in zip(low.tolist(), sizes.tolist(), strict=True)]
