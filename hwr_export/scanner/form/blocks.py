"""A page and about where its sheet lies -> where each field's boxes stand, as a block, within a tenth of a millimetre.

For guesses that are too far off to look for single lines: of boxes in a row, one line is like the next.
"""

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Layout, Rect
from hwr_export.scanner.form.measured import BLOCK, Measured
from hwr_export.scanner.form.plausible import project
from hwr_export.scanner.form.search import darkness
from hwr_export.scanner.form.sheet import LINE_MM
from hwr_export.scanner.form.shrink import back, shrunk
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]

PER_MM = 4  # pixels, of the sheet laid straight for this
BLOCK_MM, SHORT_MM = 60.0, 18.0  # length of a block, about; where they would be few
FEW = 6
AROUND_MM = 0.75  # white that belongs to a block
BEST_MM = 0.06  # how exactly a block is found
SOFT = 0.7  # pixels, standard deviation of a blur
LEAST_DARK = 3  # grey levels
LEAST_LIKENESS = 0.35  # correlation


def blocks(layout: Layout) -> list[tuple[Rect, ...]]:
    """Return the boxes of each block: a field's, or part of a long field's."""
    found: list[tuple[Rect, ...]] = []
    long = SHORT_MM if sum(place.area.width for place in layout.places) < FEW * BLOCK_MM else BLOCK_MM
    for place in layout.places:
        parts = max(1, min(len(place.boxes) // 2, round(place.area.width / long)))
        ends = [round(i * len(place.boxes) / parts) for i in range(parts + 1)]
        found += [place.boxes[a:b] for a, b in pairwise(ends)]
    return found


def block_centres(layout: Layout) -> Floats:
    """Return the middle of each block, float64 (N, 2), mm."""
    return np.array([(boxes[0].corners[0] + boxes[-1].corners[2]) / 2 for boxes in blocks(layout)])


def find_blocks(page: Grey, homography: Floats, layout: Layout, reach_mm: Floats) -> Measured:
    """Look for blocks about where a homography puts them.

    Args:
        reach_mm: float64 (N,), how far each may be off; 0: it is not looked for.

    Returns:
        Two rows for each block, along x and y of the sheet; offsets of those not found are 0.
    """
    every = blocks(layout)
    straight = _laid_straight(page, homography, layout)
    points, offsets, seen = block_centres(layout), np.zeros((len(every), 2)), np.zeros(len(every), dtype=bool)
    for i, boxes in enumerate(every):
        if reach_mm[i] > 0:
            away = _away(straight, boxes, reach_mm[i])
            if away is not None:
                offsets[i], seen[i] = away, True
    here, there = project(homography, points), project(homography, points + offsets)
    normals = []
    for step in ([1.0, 0.0], [0.0, 1.0]):
        way = project(homography, points + step) - here
        normals.append(way / np.linalg.norm(way, axis=1, keepdims=True))
    moved = there - here
    return Measured(
        np.concatenate([here, here]),
        np.concatenate(normals),
        np.concatenate([(moved * normal).sum(axis=1) for normal in normals]),
        np.concatenate([seen, seen]),
        np.ones(2 * len(every), dtype=bool),
        np.full(2 * len(every), BLOCK),
        np.full(2 * len(every), BEST_MM * float(np.sqrt(abs(np.linalg.det(homography[:2, :2]))))),
    )


def _laid_straight(page: Grey, homography: Floats, layout: Layout) -> Grey:
    """Return how dark thin things are on the sheet laid straight, `PER_MM` pixels a mm."""
    scale = float(np.sqrt(abs(np.linalg.det(homography[:2, :2]))))
    small, times = shrunk(page, scale / (0.9 * PER_MM))
    zoom = np.array([[1 / PER_MM, 0, 0], [0, 1 / PER_MM, 0], [0, 0, 1]])
    size = int(layout.width * PER_MM) + 1, int(layout.height * PER_MM) + 1
    straight = cv2.warpPerspective(
        small,
        np.linalg.inv(back(times)) @ homography @ zoom,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return darkness(cv2.GaussianBlur(straight, (0, 0), SOFT), PER_MM)


def _away(straight: Grey, boxes: tuple[Rect, ...], reach_mm: float) -> Floats | None:
    """Return how far a block is off, float64 (2,), mm; None where it is not found."""
    left, top = boxes[0].x - AROUND_MM, boxes[0].y - AROUND_MM
    pattern = _pattern(boxes, left, top)
    reach = max(2, round(reach_mm * PER_MM))
    x, y = round(left * PER_MM), round(top * PER_MM)
    # What is beyond the sheet's edge is not looked at.
    x0, y0 = max(0, x - reach), max(0, y - reach)
    window = straight[y0 : y + pattern.shape[0] + reach, x0 : x + pattern.shape[1] + reach]
    if window.shape[0] <= pattern.shape[0] + 2 or window.shape[1] <= pattern.shape[1] + 2:
        return None
    # Ink is cut off at the lines' own darkness, which is what most of what is dark has.
    dark = window[window >= LEAST_DARK]
    if len(dark) == 0:
        return None
    window = np.minimum(window, np.uint8(np.median(dark)))
    likeness = cv2.matchTemplate(window, pattern, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
    if not (likeness[row, column] >= LEAST_LIKENESS and 0 < row < likeness.shape[0] - 1):
        return None
    if not 0 < column < likeness.shape[1] - 1:
        return None
    at = np.array([column + x0, row + y0], dtype=np.float64)
    at += [_peak(likeness[row, column - 1 : column + 2]), _peak(likeness[row - 1 : row + 2, column])]
    return at / PER_MM - [left, top]


def _peak(three: npt.NDArray[np.float32]) -> float:
    bend = 2 * float(three[1]) - float(three[0]) - float(three[2])
    return (float(three[2]) - float(three[0])) / (2 * bend) if bend > 1e-6 else 0.0


def _pattern(boxes: tuple[Rect, ...], left: float, top: float) -> Grey:
    """Return the block as `darkness` has it: uint8 (H, W), its first pixel's centre at (left, top)."""
    fine = 4
    right, bottom = boxes[-1].right + AROUND_MM, boxes[-1].bottom + AROUND_MM
    size = int((bottom - top) * PER_MM) + 1, int((right - left) * PER_MM) + 1
    drawn = np.zeros((size[0] * fine, size[1] * fine), dtype=np.uint8)
    scale, half = PER_MM * fine, (fine - 1) / 2  # a pixel is the mean of fine ones about its centre
    for box in boxes:
        x0, y0 = round((box.x - left) * scale + half), round((box.y - top) * scale + half)
        x1, y1 = round((box.right - left) * scale + half), round((box.bottom - top) * scale + half)
        wide = max(1, round(LINE_MM * scale))
        drawn[y0:y1, x0:x1] = 255
        drawn[y0 + wide : y1 - wide, x0 + wide : x1 - wide] = 0
    small = cv2.resize(drawn, size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), SOFT))
