"""Small forms filled with real digits of MNIST's training part, scanned at 300 dpi with known geometry."""

from dataclasses import dataclass

import cv2
import numpy as np

from hwr_export.datasets import load_mnist
from hwr_export.scanner.form.cells import FieldCells, find_cells
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.layout import Layout, lay_out
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.form.sheet import LINE_MM, TINT_GREY

SCALE = 12.0  # pixels a mm
DIGITS = load_mnist("train")


def form(*fields: dict, width: float = 90.0, height: float = 50.0) -> Layout:
    document = {"id": "t", "fields": fields, "page": {"width": width, "height": height}, "marks": {"kind": "none"}}
    return lay_out(Form.model_validate(document))


def row(boxes: int = 6, **changes: object) -> Layout:
    """One row of boxes of 5 x 7 mm, the first one's corner at (20, 20)."""
    return form({"kind": "digits", "name": "number", "x": 20, "y": 20, "boxes": boxes} | changes)


def digit(label: int, nth: int = 0) -> np.ndarray:
    return DIGITS.images[np.flatnonzero(DIGITS.labels == label)[nth]]


@dataclass
class Sheet:
    """What is drawn so far, float32 (H, W), 1 on paper."""

    layout: Layout
    tint: int = TINT_GREY
    line_mm: float = LINE_MM

    def __post_init__(self) -> None:
        self.paper = np.ones((round(self.layout.height * SCALE), round(self.layout.width * SCALE)), np.float32)
        wide = max(1, round(self.line_mm * SCALE))
        for box in (box for place in self.layout.places for box in place.boxes):
            inner = box.grown(-self.line_mm / 2)
            corners = [tuple(int(v) for v in np.round(inner.corners[i] * SCALE)) for i in (0, 2)]
            cv2.rectangle(self.paper, *corners, self.tint / 255, wide)

    def write(self, image: np.ndarray, x: float, y: float, height: float = 5.0, ink: float = 0.15) -> "Sheet":
        """Write a character with its ink's middle at (x, y) mm and `height` mm of ink."""
        rows, columns = np.nonzero(image)
        cut = np.pad(image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], 2).astype(np.float32) / 255
        by = height * SCALE / (max(cut.shape) - 4)
        alpha = cv2.resize(cut, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC).clip(0, 1)
        top, left = round(y * SCALE - alpha.shape[0] / 2), round(x * SCALE - alpha.shape[1] / 2)
        self.paper[top : top + alpha.shape[0], left : left + alpha.shape[1]] *= 1 - alpha * (1 - ink)
        return self

    def draw(self, *points: tuple[float, float], mm: float = 0.45, ink: float = 0.15) -> "Sheet":
        """Draw a stroke through points in mm."""
        alpha = np.zeros(self.paper.shape, np.uint8)
        pixels = [np.round(np.array(points) * SCALE).astype(np.int32)]
        cv2.polylines(alpha, pixels, False, 255, max(1, round(mm * SCALE)), cv2.LINE_AA)
        self.paper *= 1 - alpha / np.float32(255) * (1 - ink)
        return self

    def fill(self, number: str, place: int = 0, **how: float) -> "Sheet":
        """Write digits into a field's boxes from the left; a space leaves one empty."""
        for i, (character, box) in enumerate(zip(number, self.layout.places[place].boxes, strict=False)):
            if character != " ":
                self.write(digit(int(character), i), box.x + box.width / 2, box.y + box.height / 2, **how)
        return self

    def scanned(
        self, degrees: float = 0.0, fade: float = 1.0, noise: float = 3.0, blur: float = 0.7, paper: int = 245
    ) -> tuple[np.ndarray, Registration]:
        turn = np.eye(3)
        height, width = self.paper.shape
        turn[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        image = cv2.warpPerspective(self.paper, turn, (width, height), borderValue=1.0)
        image = 1 - (1 - cv2.GaussianBlur(image, (0, 0), blur)) * fade
        grain = np.random.default_rng(0).normal(0, noise, image.shape)
        pixel_from_mm = np.array([[SCALE, 0, -0.5], [0, SCALE, -0.5], [0, 0, 1]])
        grey = (image * paper + grain).round().clip(0, 255).astype(np.uint8)
        return grey, Registration(turn @ pixel_from_mm, 0.3, 4, SCALE * 25.4)

    def cells(self, place: int = 0, **how: float) -> FieldCells:
        """Return what is found in one field."""
        grey, registration = self.scanned(**how)
        return find_cells(grey, registration, self.layout)[place]


def inked(cells: FieldCells) -> str:
    """Return X of a box that is plainly written in, a dot of one that is plainly empty, ? of all others."""
    return "".join("X" if c.blank < 0.01 else "." if c.blank > 0.99 else "?" for c in cells.cells)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean difference of two crops, the centre of mass being free to round to either side."""
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return min(float(np.abs(np.roll(a, s, (0, 1)).astype(float) - b).mean()) for s in shifts)
