"""Texts, a hand and a pen -> ink on a sheet, as it would be before it is scanned.

Glyphs are enlarged smoothly and drawn where their smooth surface passes a level, which is the pen's width. Ink takes
light away from whatever lies under it. Positions in mm on the sheet; a sheet's pixel centres are at whole coordinates.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.fields import AmountField, CheckboxField
from hwr_export.scanner.form.layout import Place, Rect
from scripts.pages.hand import BELOW, EDGE, LONGER, SIDE, SMALL, SMOOTH, TILE, VISIBLE, Floats, Grey, PageHand, Pen, Rng

Points = npt.NDArray[np.float64]

FREE_MM = 0.35  # of a box's width that a character leaves free
TOUCHES_MM = 0.15  # beyond its box, that a character reaches at most on a page where none crosses
GRAIN = 0.06  # of full ink, roughness of its edge
UNBROKEN = 0.62  # of the surface along most of a glyph's strokes: the highest level that it is drawn at
PALE = 0.08  # of its darkness, that ink loses in places


@dataclass(frozen=True)
class Sheet:
    """Paper: uint8 (H, W), 255 where nothing is printed. `scale`: its pixels a mm, across and down."""

    grey: Grey
    scale: tuple[float, float]

    def pixels(self, points: Points) -> Points:
        """Return where points in mm lie, float64 (N, 2)."""
        return np.asarray(points * np.array(self.scale) - 0.5, dtype=np.float64)

    def window(self, low: Points, high: Points) -> tuple[int, int, int, int]:
        """Return the pixels between two points in pixels: left, top, right, bottom, as far as there is paper."""
        height, width = self.grey.shape
        left, top = (max(0, int(np.floor(v))) for v in low)
        right, bottom = min(width, int(np.ceil(high[0])) + 1), min(height, int(np.ceil(high[1])) + 1)
        return left, top, max(left, right), max(top, bottom)


@dataclass(frozen=True)
class _Shape:
    """A glyph as it will be written: mm a glyph's pixel, and the box of its ink around its middle."""

    matrix: Points
    middle: Points
    low: Points
    high: Points

    @property
    def size(self) -> Points:
        return self.high - self.low


def write_field(sheet: Sheet, place: Place, text: str, hand: PageHand, pen: Pen, rng: Rng) -> list[tuple[str, int]]:
    """Write a text into a field; return the glyphs it is written with."""
    letters = any(c.isalpha() for c in place.field.alphabet) and place.field.kind != "id"  # type: ignore[union-attr]
    glyphs = [hand.glyph(c, letters) for c in text]
    if place.field.boxes is None:  # type: ignore[union-attr]
        _write_line(sheet, place.area, text, [g[2] for g in glyphs], pen, rng)
    else:
        boxes = place.boxes[-len(text) :] if isinstance(place.field, AmountField) else place.boxes[: len(text)]
        for box, character, (_, _, image) in zip(boxes, text, glyphs, strict=True):
            shape = _shape(image, character, pen, rng, box)
            _draw(sheet, image, shape, _target(shape, character, box, place.area.x, pen, rng), pen, rng)
    return [(source, number) for source, number, _ in glyphs]


def tick(sheet: Sheet, box: Rect, pen: Pen, rng: Rng) -> str:
    """Tick a box, with a cross or a hook; return which."""
    centre = np.array([box.x + box.width / 2, box.y + box.height / 2]) + rng.normal(0, 0.3, 2)
    half = box.width / 2 * rng.uniform(0.65, 1.05)

    def near(x: float, y: float) -> Points:
        return np.asarray(centre + half * (np.array([x, y]) + rng.normal(0, 0.1, 2)))

    if rng.random() < 0.6:
        for start, end in (((-1, -1), (1, 1)), ((1, -1), (-1, 1))):
            a, b = near(*start), near(*end)
            _stroke(sheet, np.array([a, (a + b) / 2 + rng.normal(0, 0.15, 2), b]), pen, rng)
        return "cross"
    _stroke(sheet, np.array([near(-0.9, 0.0), near(-0.35, 0.85), near(1.1, -1.1)]), pen, rng, sharp=True)
    return "hook"


def strike(sheet: Sheet, place: Place, written: int, pen: Pen, rng: Rng) -> str:
    """Strike out what is written in a field, with lines or a scribble; return which."""
    boxes = place.boxes[-written:] if isinstance(place.field, AmountField) else place.boxes[:written]
    if len(place.boxes) == 1 and not isinstance(place.field, CheckboxField):
        boxes = place.boxes
    left, right = boxes[0].x + rng.uniform(-0.8, 0.8), boxes[-1].right + rng.uniform(-0.8, 0.8)
    middle, height = boxes[0].y + boxes[0].height / 2, boxes[0].height
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 3))):
            x = np.linspace(left, right, max(4, 2 * written))
            y = (
                middle
                + rng.normal(0, 0.5)
                + np.linspace(-1, 1, len(x)) * rng.normal(0, 0.5)
                + rng.normal(0, 0.12, len(x))
            )
            _stroke(sheet, np.column_stack([x, y]), pen, rng)
        return "line"
    turns = max(4, int((right - left) / 1.2))
    x = np.linspace(left, right, turns) + rng.normal(0, 0.25, turns)
    y = middle + height * 0.38 * np.where(np.arange(turns) % 2, 1, -1) + rng.normal(0, 0.3, turns)
    _stroke(sheet, np.column_stack([x, y]), pen, rng, sharp=True)
    return "scribble"


def _write_line(sheet: Sheet, area: Rect, text: str, images: list[Grey], pen: Pen, rng: Rng) -> None:
    x = area.x + float(rng.uniform(0.8, 2.5))
    for character, image in zip(text, images, strict=True):
        shape = _shape(image, character, pen, rng, Rect(0, 0, area.height, area.height))
        box = Rect(x, area.y, float(shape.size[0]), area.height)
        target = _target(shape, character, box, area.x, pen, rng)
        # Along a line only what follows says where a character belongs: the hand drifts up and down alone.
        target[0] = x - shape.low[0]
        _draw(sheet, image, shape, target, pen, rng)
        x += float(shape.size[0] + rng.uniform(0.7, 1.6))


def _shape(image: Grey, character: str, pen: Pen, rng: Rng, box: Rect) -> _Shape:
    rows, columns = np.nonzero(image > VISIBLE)
    ink = np.column_stack([columns, rows]).astype(np.float64)
    if not len(ink):
        ink = np.array([[SIDE / 2, SIDE / 2]])
    middle = (ink.min(axis=0) + ink.max(axis=0)) / 2
    angle = np.deg2rad(pen.tilt_deg + rng.normal(0, 1.5))
    shear = pen.slant + rng.normal(0, 0.025)
    size = pen.height / LONGER * rng.normal(1, 0.035) * (0.7 if character in SMALL else 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, -shear], [0.0, 1.0]]) @ np.diag([size * rng.normal(1, 0.03), size])
    reach = (ink - middle) @ matrix.T
    half = size / 2
    width, height = reach.max(axis=0) - reach.min(axis=0) + size
    factor = min(1.0, (box.width - FREE_MM) / width, (box.height - FREE_MM) / height)
    low, high = (reach.min(axis=0) - half) * factor, (reach.max(axis=0) + half) * factor
    return _Shape(matrix * factor, middle, low, high)


def _target(shape: _Shape, character: str, box: Rect, start: float, pen: Pen, rng: Rng) -> Points:
    """Return where the glyph's middle comes to lie, mm."""
    height = float(shape.size[1])
    nominal = min(pen.height, box.height - FREE_MM)
    x = box.x + box.width / 2 + pen.drift[0] + rng.normal(0, 0.22) - (shape.low[0] + shape.high[0]) / 2
    below = 0.7 * (nominal - height) / 2  # what is low stands nearer to the line than to its middle
    if character in SMALL:
        below = (nominal - height) / 2
    elif character in BELOW:
        below = 0.25 * height
    y = box.y + box.height / 2 + pen.drift[1] + rng.normal(0, 0.22) + below - (shape.low[1] + shape.high[1]) / 2
    y += pen.slope * (box.x - start)
    if not pen.crossing:
        x = _within(x, box.x - TOUCHES_MM - shape.low[0], box.right + TOUCHES_MM - shape.high[0])
        y = _within(y, box.y - TOUCHES_MM - shape.low[1], box.bottom + TOUCHES_MM - shape.high[1])
        return np.array([x, y])
    # Most of it is the hand's and the same all over the page, some is the character's.
    away = pen.crossing * np.array([np.cos(pen.direction), np.sin(pen.direction)]) * rng.uniform(0.3, 0.75)
    own = pen.crossing * 0.25 * rng.uniform(-1, 1, 2)
    return np.asarray(np.array([x, y]) + away + own)


def _within(value: float, low: float, high: float) -> float:
    return (low + high) / 2 if low > high else min(max(value, low), high)


def _draw(sheet: Sheet, image: Grey, shape: _Shape, target: Points, pen: Pen, rng: Rng) -> None:
    scale = np.array(sheet.scale)
    matrix = scale[:, None] * shape.matrix
    at = sheet.pixels(target[None])[0] - matrix @ shape.middle
    margin = 0.4 * scale
    left, top, right, bottom = sheet.window(
        sheet.pixels((target + shape.low)[None])[0] - margin, sheet.pixels((target + shape.high)[None])[0] + margin
    )
    if right - left < 2 or bottom - top < 2:
        return
    smooth = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), SMOOTH)
    placed = np.column_stack([matrix, at - (left, top)])
    surface = np.asarray(
        cv2.warpAffine(smooth, placed, (right - left, bottom - top), flags=cv2.INTER_CUBIC), dtype=np.float32
    )
    # A thin pen must not break a stroke that is faint already.
    strokes = smooth[image > VISIBLE]
    level = min(pen.level, UNBROKEN * float(np.percentile(strokes, 60))) if len(strokes) else pen.level
    _lay(sheet, surface, (left, top), pen, rng, level)


def _stroke(sheet: Sheet, points: Points, pen: Pen, rng: Rng, sharp: bool = False) -> None:
    """Draw a stroke along points in mm, rounded between them unless it is `sharp`."""
    path = points if sharp else _rounded(points)
    at = sheet.pixels(path)
    width = pen.stroke_mm * sheet.scale[0]
    left, top, right, bottom = sheet.window(at.min(axis=0) - 2 * width, at.max(axis=0) + 2 * width)
    if right - left < 2 or bottom - top < 2:
        return
    drawn = np.zeros((bottom - top, right - left), dtype=np.uint8)
    fixed = np.round((at - (left, top)) * 16).astype(np.int32)
    cv2.polylines(drawn, [fixed], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    surface = cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), max(0.5, 0.08 * sheet.scale[0]))
    _lay(sheet, np.asarray(surface, dtype=np.float32), (left, top), pen, rng, 0.45)


def _rounded(points: Points) -> Points:
    """Return a polygon with its corners cut three times (Chaikin 1974), ends kept."""
    for _ in range(3):
        a, b = points[:-1], points[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points


def _lay(sheet: Sheet, surface: Floats, corner: tuple[int, int], pen: Pen, rng: Rng, level: float) -> None:
    """Take the light away that ink takes where a surface, float32 (H, W) of 0 to 1, is above a level."""
    height, width = surface.shape
    fine, coarse = _texture()
    y, x = (int(rng.integers(TILE)) for _ in range(2))
    rows, columns = np.arange(y, y + height) % TILE, np.arange(x, x + width) % TILE
    grain, cloud = fine[np.ix_(rows, columns)], coarse[np.ix_(rows, columns)]
    rough = surface + GRAIN * grain * np.minimum(1, 3 * np.abs(surface))
    cover = np.clip((rough - level) / EDGE + 0.5, 0, 1)
    taken = cover * pen.darkness * (1 - PALE * np.clip(0.5 + cloud, 0, 2))
    left, top = corner
    part = sheet.grey[top : top + height, left : left + width]
    part[:] = np.round(part * (1 - taken))


@cache
def _texture() -> tuple[Floats, Floats]:
    """Return fine and coarse unevenness, each float32 (TILE, TILE) of deviation 1, that repeats without a seam."""
    rng = np.random.default_rng(5)
    found = []
    for sigma in (1.6, 9.0):
        noise = rng.standard_normal((TILE, TILE)).astype(np.float32)
        around = cv2.copyMakeBorder(noise, 64, 64, 64, 64, cv2.BORDER_WRAP)
        smooth = cv2.GaussianBlur(around, (0, 0), sigma)[64:-64, 64:-64]
        found.append(np.asarray(smooth / smooth.std(), dtype=np.float32))
    return found[0], found[1]
