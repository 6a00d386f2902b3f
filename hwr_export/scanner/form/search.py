"""A page and a layout -> about where the sheet may lie on it, by the printed lines alone: within a millimetre or two.

The page's skew, then lines summed along rows and columns against those of the layout, for every scale and way up that
can be. What is returned are guesses; which of them is right is found out by looking for every line.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.pieces import Pieces
from hwr_export.scanner.form.plausible import project
from hwr_export.scanner.form.shrink import back, shrunk
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]

COARSE_PER_MM = 2.9  # pixels, at least, in which the page is looked at
MOST_SKEW = 8.0  # degrees
SCALES = np.exp(np.linspace(-0.12, 0.12, 61))  # of the sheet against the page's size
STRONGEST = 40  # grey levels: no line counts more, however black
USUAL_PERCENTILE = 96
GUESSES = 6  # along each axis and way up
MOST_KEPT = 3  # of the whole sheet, for each way up
APART_MM = 2.0  # two guesses, at least


@dataclass(frozen=True)
class _Along:
    """Where one axis of the sheet lies along a row or column of the page: mm * scale + shift."""

    score: float
    scale: float
    shift: float


def guesses(page: Grey, layout: Layout, lines: Pieces) -> list[Floats]:
    """Return guesses, a few for each way up, the best first: float64 (3, 3), mm -> px.

    Args:
        lines: all of the layout's.
    """
    estimate = np.sqrt(page.shape[0] * page.shape[1] / (layout.width * layout.height))
    small, times = shrunk(page, estimate / COARSE_PER_MM)
    dark = darkness(cv2.GaussianBlur(small, (3, 3), 0), estimate / times)
    turned, unturn = _upright(dark, _skew(dark))
    into = back(times) @ unturn
    found = []
    sheet = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [layout.width, layout.height]
    for turns in ways(layout, page.shape):
        placed = sorted(_placed(turned, turns, layout, lines, estimate / times), key=lambda guess: -guess[0])
        kept: list[Floats] = []
        for score, homography in placed:
            corners = project(homography, sheet)
            if all(np.abs(corners - project(k, sheet)).max() > APART_MM * estimate / times for k in kept):
                kept.append(homography)
                found.append((score, into @ homography))
            if len(kept) == MOST_KEPT:
                break
    return [homography for _, homography in sorted(found, key=lambda guess: -guess[0])]


def darkness(page: Grey, per_mm: float) -> Grey:
    """Return by how much thin things are darker than what is around them, uint8 (H, W), cut off at `STRONGEST`."""
    side = max(3, round(1.6 * per_mm)) | 1
    paper = cv2.morphologyEx(page, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return np.asarray(cv2.min(cv2.subtract(paper, page), STRONGEST))


def _skew(dark: Grey) -> float:
    """Return the angle, in degrees, by which rows and columns of what is printed are turned, clockwise."""
    y, x = np.nonzero(dark > STRONGEST // 4)
    if len(x) == 0:
        return 0.0
    step = 1 + len(x) // 20_000
    x, y, weights = x[::step], y[::step], dark[y[::step], x[::step]].astype(np.float64)
    x, y = x - dark.shape[1] / 2, y - dark.shape[0] / 2
    reach = int(np.hypot(*dark.shape) / 2) + 2

    def sharpness(degrees: float, bins: float) -> float:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        total = 0.0
        for along in (y * cos - x * sin, x * cos + y * sin):
            total += float((np.bincount(((along + reach) / bins).astype(np.int64), weights) ** 2).sum())
        return total

    coarse = max(np.arange(-MOST_SKEW, MOST_SKEW + 0.1, 0.25), key=lambda degrees: sharpness(degrees, 3.0))
    return float(max(np.arange(coarse - 0.3, coarse + 0.31, 0.05), key=lambda degrees: sharpness(degrees, 1.0)))


def _upright(dark: Grey, degrees: float) -> tuple[Grey, Floats]:
    """Return it turned back by an angle, whole, and what takes the new pixels to the old ones."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    height, width = dark.shape
    new = int(abs(width * cos) + abs(height * sin)) + 1, int(abs(height * cos) + abs(width * sin)) + 1
    about = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    middle = np.array([[1, 0, -(new[0] - 1) / 2], [0, 1, -(new[1] - 1) / 2], [0, 0, 1]])
    unturn = about @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ middle
    return cv2.warpAffine(dark, unturn[:2], new, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), unturn


def ways(layout: Layout, shape: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Return the quarter turns (clockwise) that a sheet may have made to fill a page of a shape, its own by default."""
    sheet = np.log(layout.width / layout.height)
    page = sheet if shape is None else np.log(shape[1] / shape[0])
    return tuple(turns for turns in range(4) if abs(page - (sheet, -sheet)[turns % 2]) < 0.3)


def _placed(dark: Grey, turns: int, layout: Layout, lines: Pieces, per_mm: float) -> Iterator[tuple[float, Floats]]:
    """Yield guesses for one way up, each with a score: float64 (3, 3), mm -> px of `dark`."""
    along_x, along_y = _profile(dark, 0), _profile(dark, 1)
    # A quarter turn clockwise takes the sheet's x down and its y to the left.
    spans = ((0, layout.width, along_x), (1, layout.height, along_y))
    if turns % 2:
        spans = ((0, layout.width, along_y), (1, layout.height, along_x))
    backwards = ((False, False), (False, True), (True, True), (True, False))[turns]
    x, y = (
        _matches(profile, _printed(lines, axis), length, per_mm, back)
        for (axis, length, profile), back in zip(spans, backwards, strict=True)
    )
    soft = cv2.blur(dark, (3, 3))
    for a in x:
        for b in y:
            if abs(np.log(abs(a.scale / b.scale))) < 0.1:
                rows = [[a.scale, 0, a.shift], [0, b.scale, b.shift], [0, 0, 1]]
                if turns % 2:
                    rows = [rows[1], rows[0], rows[2]]
                homography = np.array(rows, dtype=np.float64)
                yield _score(soft, homography, lines), homography


def _profile(dark: Grey, axis: int) -> Floats:
    """Return how much stands in lines across an axis (0: x, from lines that stand; 1: y), along it."""
    long, short = (11, 1) if axis else (1, 11), (1, 11) if axis else (11, 1)
    lines = cv2.subtract(cv2.blur(dark, long), cv2.blur(dark, short))
    # Roots, so that a frame around all the page does not outweigh what is in it.
    total = np.sqrt(lines.sum(axis=1 if axis else 0, dtype=np.float64))
    total = np.minimum(total, np.percentile(total, USUAL_PERCENTILE))
    return np.asarray(total - cv2.blur(total[None], (61, 1))[0])


def _printed(lines: Pieces, axis: int) -> Floats:
    """Return where lines across an axis lie along it, and how long they are: float64 (N, 2), mm."""
    across = np.abs(lines.normals[:, axis]) > 0.5
    length = 2 * np.linalg.norm(lines.halves[across], axis=1)
    return np.stack([lines.centres[across, axis], length], axis=1)


def _matches(profile: Floats, printed: Floats, length: float, per_mm: float, backwards: bool) -> list[_Along]:
    """Return the best few placings of the layout's lines on a profile."""
    size = 1 << int(np.ceil(np.log2(2 * len(profile))))
    spectrum = np.fft.rfft(profile, size)
    found: list[_Along] = []
    for ratio in SCALES:
        scale = per_mm * float(ratio)
        at = (length - printed[:, 0] if backwards else printed[:, 0]) * scale
        count = int(length * scale) + 2
        if count > size // 2 + len(profile) // 2:
            continue
        pattern = np.bincount(np.clip(np.round(at).astype(np.int64), 0, count - 1), printed[:, 1], count)
        pattern = np.sqrt(pattern)
        pattern = cv2.GaussianBlur(pattern[None], (0, 0), 0.5 * per_mm / 2.0)[0]
        pattern = pattern - cv2.blur(pattern[None], (61, 1))[0]
        pattern /= np.linalg.norm(pattern) + 1e-9
        scores = np.fft.irfft(spectrum * np.conj(np.fft.rfft(pattern, size)), size)
        # A sheet may begin before the page does, by a tenth of itself.
        slack = int(0.12 * count)
        shifts = np.r_[np.arange(0, slack + max(0, len(profile) - count)), np.arange(-slack, 0)]
        best = int(shifts[np.argmax(scores[shifts])])
        found.append(
            _Along(float(scores[best]), -scale if backwards else scale, best + (length * scale if backwards else 0.0))
        )
    kept: list[_Along] = []
    for guess in sorted(found, key=lambda guess: -guess.score):
        ends = np.array([guess.shift, guess.shift + guess.scale * length])
        if all(np.abs(ends - [k.shift, k.shift + k.scale * length]).max() > APART_MM * per_mm for k in kept):
            kept.append(guess)
        if len(kept) == GUESSES:
            break
    return kept


def _score(dark: Grey, homography: Floats, lines: Pieces) -> float:
    """Return how much darker the page is on the lines than beside them, grey levels."""
    beside = 0.8 * lines.normals
    levels = []
    for points in (lines.centres, lines.centres + beside, lines.centres - beside):
        at = project(homography, points).astype(np.float32)
        levels.append(cv2.remap(dark, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR).mean(dtype=np.float64))
    return float(levels[0] - (levels[1] + levels[2]) / 2)
