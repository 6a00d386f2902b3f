"""A strip's darkness and where boxes are printed in it -> the ink alone, with the printed lines taken out of it.

A line's own darkness is measured across it where no ink crosses, and divided out: paper printed in a tint is darker
paper. Where a line is too dark to see ink on it, strokes that go on at both of its sides are joined through it.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.strips import PX_PER_MM, Strip
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_REACH = 5  # pixels from where a line ought to be, within which it is looked for
_OVERLAP = 2  # pixels by which a line goes on where it meets another
_INSET = 6  # pixels at the ends of a side, where other sides meet it
_PIECE = 48  # pixels of a long line that are measured together
_BARE = 0.4  # quantile along a line that is taken for the line without ink
_LESS_DARK = 0.4  # quantile of a field's lines that says what they are like
_SLACK = 1.25  # a line may be so much darker than the others of its field
_OPAQUE = 0.42  # darkness in the middle of a line on which ink is not seen
_HIDES = 0.35  # darkness at the edge of such a line, within which it is not
_HINT = 1.35  # times the lines' darkness, below which what is beside the boxes is printed in their tint
_VISIBLE = 46  # levels by which ink is darker than an opaque line, to be seen on it


@dataclass(frozen=True)
class _Line:
    """What the sides of a field's boxes are like."""

    centre: float  # pixels from the edge of the box, inwards
    darkness: float
    half: float  # of its width, pixels


def without_lines(strip: Strip, boxes: Floats) -> Grey:
    """Return the ink, uint8 (H, W).

    Args:
        boxes: float64 (N, 4) as `Strip.boxes` returns them, all that are printed within the strip.
    """
    model = np.zeros(strip.dark.shape, dtype=np.uint8)
    # Columns of a picture laid on its side are rows: one way of looking for lines serves both. And fields of one kind
    # have the same boxes at the same places of their strips.
    lying, upright = np.round(boxes, 2), np.round(boxes[:, [1, 0, 3, 2]], 2)
    sides = [_pieces(b.tobytes(), d.shape) for b, d in ((lying, strip.dark), (upright, strip.dark.T))]
    profiles = [_profiles(d, s) for d, s in zip((strip.dark, strip.dark.T), sides, strict=True)]
    line = _typical(np.concatenate(profiles))
    if line.darkness < 2 * strip.noise:
        return strip.dark
    for picture, pieces, found in zip((model, model.T), sides, profiles, strict=True):
        _draw(picture, pieces, found, line)
    ink = cv2.divide(cv2.subtract(strip.dark, model), cv2.bitwise_not(model), scale=255)
    if line.darkness > 255 * _OPAQUE:
        return _joined(strip.dark, ink, model)
    return _without_hints(ink, boxes, line.darkness)


def _without_hints(ink: Grey, boxes: Floats, tint: float) -> Grey:
    """Return ink without what is printed beside the boxes in their tint: decimal points, letters of a date's order."""
    found = cv2.threshold(ink, _HINT * tint, 255, cv2.THRESH_TOZERO)[1]
    for left, top, right, bottom in np.maximum(np.round(boxes), 0).astype(np.int64).tolist():
        found[top : bottom + 1, left : right + 1] = ink[top : bottom + 1, left : right + 1]
    return np.asarray(found, dtype=np.uint8)


def _draw(model: Grey, sides: Ints, profiles: Floats, line: _Line) -> None:
    """Write the darkness of lines that lie in rows into `model`, where it has less."""
    # A side may lie a little off the others; what is darker or wider than they are is ink along it.
    away = np.arange(-_REACH, _REACH + 1) - line.centre
    near = np.where(np.abs(away) <= 2, profiles, 0)
    shift = (near * away).sum(axis=1) / np.maximum(near.sum(axis=1), 1)
    shift[near.max(axis=1, initial=0) < line.darkness / 2] = 0
    cap = _SLACK * line.darkness * np.clip(line.half + 1.5 - np.abs(away - shift[:, None]), 0, 1)
    drawn = np.minimum(profiles, cap).round().astype(np.uint8)[:, :, None]
    # Lines on opposite sides may be near to each other, those on the same side are not.
    both = {1: np.zeros_like(model), -1: np.zeros_like(model)}
    for (row, start, length, inward), across in zip(sides.tolist(), drawn, strict=True):
        top = max(0, row - _REACH)
        part = both[inward][top : row + _REACH + 1, start : start + length]
        above = top - row + _REACH
        part[:] = across[::inward][above : above + len(part)]
    np.maximum(model, np.maximum(both[1], both[-1]), out=model)


@lru_cache(maxsize=256)
def _pieces(boxes: bytes, shape: tuple[int, ...]) -> Ints:
    """Return pieces of the boxes' upper and lower sides, int64 (N, 4): row, first column, length, way into the box."""
    left, top, right, bottom = np.frombuffer(boxes).reshape(-1, 4).T
    first = np.round(left).astype(np.int64) - _OVERLAP
    last = np.minimum(first + np.round(right - left).astype(np.int64) + 2 * _OVERLAP + 1, shape[1])
    first = np.maximum(first, 0)
    count = np.maximum(1, np.round((last - first) / _PIECE).astype(np.int64))
    size = -(-(last - first) // count)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    first, last, size, top, bottom, count = (np.repeat(v, count) for v in (first, last, size, top, bottom, count))
    start = first + np.round(number * (last - first - size) / np.maximum(1, count - 1)).astype(np.int64)
    rows = np.round(np.concatenate([top, bottom])).astype(np.int64)
    found = np.stack([rows, np.tile(start, 2), np.tile(size, 2), np.repeat([1, -1], len(start))], axis=1)
    return found[(found[:, 2] > 2 * _INSET + 4) & (rows >= 0) & (rows < shape[0])]


def _profiles(dark: Grey, sides: Ints) -> Floats:
    """Return how dark it is across each piece, into the box, float64 (N, 2 * _REACH + 1); 0 beyond the strip."""
    rows = sides[:, :1] + np.arange(-_REACH, _REACH + 1) * sides[:, 3:]
    beyond = (rows < 0) | (rows >= dark.shape[0])
    rows = np.clip(rows, 0, dark.shape[0] - 1)
    profiles = np.empty(rows.shape)
    for length in np.unique(sides[:, 2]).tolist():
        chosen = sides[:, 2] == length
        columns = sides[chosen, 1, None] + np.arange(_INSET, length - _INSET)
        along = dark[rows[chosen, :, None], columns[:, None, :]]
        kth = int(_BARE * along.shape[2])
        profiles[chosen] = np.partition(along, kth, axis=2)[:, :, kth]
    profiles[beyond] = 0
    return profiles


def _typical(profiles: Floats) -> _Line:
    """Return what the lines of a field are like. Ink can only make them darker: those less dark are asked."""
    if not len(profiles):
        return _Line(0.0, 0.0, 1.0)
    kth = int(_LESS_DARK * (len(profiles) - 1))
    middle = np.partition(profiles, kth, axis=0)[kth]
    darkness = float(np.partition(profiles.max(axis=1), kth)[kth])
    mass = float(middle.sum())
    if mass <= 0:
        return _Line(0.0, darkness, 1.0)
    centre = float((middle * np.arange(-_REACH, _REACH + 1)).sum()) / mass
    return _Line(centre, darkness, max(1.0, mass / max(1.0, float(middle.max())) / 2))


def _joined(dark: Grey, ink: Grey, model: Grey) -> Grey:
    """Return ink on which opaque lines are bridged by the strokes that end at both of their sides."""
    lost = np.asarray(model > 255 * _HIDES, dtype=np.uint8)
    seen = np.where(cv2.subtract(dark, model) > _VISIBLE, ink, 0)
    outside = np.where(lost > 0, 0, ink).astype(np.uint8)
    bridged = np.zeros_like(outside)
    for kernel in _bridges():
        bridged = cv2.max(bridged, cv2.morphologyEx(outside, cv2.MORPH_CLOSE, kernel))
    return np.where(lost > 0, np.maximum(bridged, seen), ink).astype(np.uint8)


def _bridges() -> list[npt.NDArray[np.uint8]]:
    """Return thin lines in all directions, longer than a printed line is wide."""
    length = round(1.3 * PX_PER_MM)
    kernels = []
    for degrees in range(0, 180, 30):
        kernel = np.zeros((length, length), dtype=np.uint8)
        middle = (length - 1) / 2
        step = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]) * middle
        ends = [tuple(round(float(middle + sign * s)) for s in step) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1)
        kernels.append(kernel)
    return kernels
