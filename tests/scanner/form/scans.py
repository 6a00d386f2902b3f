"""Sheets as a scanner would deliver them, with the homography that made them: mm on the sheet -> px, centres whole."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pypdfium2
import yaml

from hwr_export.scanner.form.definition import Form, parse_form
from hwr_export.scanner.form.layout import Layout, Rect, lay_out
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.form.sheet import sheet_pdf
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "payment-order.yaml"
PRINT_DPI = 300


def payment_order(**changes: Any) -> Form:
    """Return the example's form, with other values for some of its keys."""
    document = yaml.safe_load(EXAMPLE.read_text()) | changes
    return parse_form(yaml.safe_dump(document).encode(), "payment-order")


@cache
def _printed(pdf: bytes) -> Grey:
    document = pypdfium2.PdfDocument(pdf)
    try:
        pixels = document[0].render(scale=PRINT_DPI / 72, grayscale=True).to_numpy()
    finally:
        document.close()
    return np.ascontiguousarray(pixels.reshape(pixels.shape[:2]))


@dataclass
class Sheet:
    """Paper that can be spoilt before it is scanned."""

    form: Form
    layout: Layout = field(init=False)
    paper: Grey = field(init=False)
    to_paper: Floats = field(init=False)  # mm -> px of `paper`

    def __post_init__(self) -> None:
        self.layout = lay_out(self.form)
        self.paper = _printed(sheet_pdf(self.form)).copy()
        self.to_paper = true_homography(self.paper, self.layout)

    def paint(self, rect: Rect, grey: int = 255) -> None:
        """Cover a part of the sheet."""
        scale = PRINT_DPI / 25.4
        x0, y0, x1, y1 = (max(0, round(v * scale)) for v in (rect.x, rect.y, rect.right, rect.bottom))
        self.paper[y0:y1, x0:x1] = grey

    def lose(self, *corners: int) -> None:
        """Cover marks with white."""
        for corner in corners:
            self.paint(self.layout.marks[corner].rect.grown(1))

    def copy(self, rect: Rect, x: float, y: float) -> None:
        """Copy a part of the sheet to another place."""
        scale = PRINT_DPI / 25.4
        x0, y0, width, height = (round(v * scale) for v in (rect.x, rect.y, rect.width, rect.height))
        part = self.paper[y0 : y0 + height, x0 : x0 + width].copy()
        left, top = round(x * scale), round(y * scale)
        self.paper[top : top + height, left : left + width] = part

    def write(self, rng: np.random.Generator) -> None:
        """Scribble into most boxes, across their lines too."""
        for box in (box for place in self.layout.places for box in place.boxes):
            if rng.random() < 0.7:
                corners = np.array([box.x, box.y]) + rng.uniform(-0.05, 1.05, (5, 2)) * [box.width, box.height]
                points = np.round(corners * PRINT_DPI / 25.4 * 16).astype(np.int32)
                cv2.polylines(self.paper, [points], False, int(rng.integers(110)), 5, cv2.LINE_AA, 4)

    def scan(self, motion: Floats, size: tuple[int, int], beyond: int = 255) -> Grey:
        """Return the page, uint8 (H, W): `motion` takes mm to its pixels, `size` is (W, H)."""
        finer = 2 if np.linalg.det(motion[:2, :2]) < (220 / 25.4) ** 2 else 1
        into = np.array([[finer, 0, (finer - 1) / 2], [0, finer, (finer - 1) / 2], [0, 0, 1]])
        page = cv2.warpPerspective(
            self.paper,
            into @ motion @ np.linalg.inv(self.to_paper),
            (size[0] * finer, size[1] * finer),
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=beyond,
        )
        return page if finer == 1 else cv2.resize(page, size, interpolation=cv2.INTER_AREA)


def motion_of(
    layout: Layout,
    dpi: float = 300,
    degrees: float = 0.0,
    stretch: tuple[float, float] = (1.0, 1.0),
    shift: tuple[float, float] = (0.0, 0.0),
    perspective: tuple[float, float] = (0.0, 0.0),
) -> tuple[Floats, tuple[int, int]]:
    """Return a homography, mm -> px, about the sheet's middle, and the page's size (W, H).

    Args:
        shift: px at 300 dpi.
        perspective: by which scales differ between the middle and the sheet's lower edge.
    """
    scale = dpi / 25.4
    size = round(layout.width * scale), round(layout.height * scale)
    if round(degrees / 90) % 2:
        size = size[1], size[0]
    middle = np.array([[1, 0, -layout.width / 2], [0, 1, -layout.height / 2], [0, 0, 1]])
    away = np.eye(3)
    away[2, :2] = np.array(perspective) / (layout.height / 2)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    x, y = (np.array(size) - 1) / 2 + np.array(shift) * dpi / 300
    place = np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])
    return place @ np.diag([*stretch, 1.0]) @ turn @ away @ middle, size


def any_motion(
    rng: np.random.Generator, layout: Layout, dpi: float = 300, most: float = 5.0
) -> tuple[Floats, tuple[int, int]]:
    """Return a motion as scanners make them, any way up."""
    return motion_of(
        layout,
        dpi,
        rng.uniform(-most, most) + 90 * int(rng.integers(4)),
        tuple(rng.uniform(0.97, 1.03, 2)),
        tuple(rng.uniform(-10, 10, 2)),
        tuple(rng.uniform(-0.01, 0.01, 2)),
    )


def spoilt(page: Grey, rng: np.random.Generator, dpi: float = 300) -> Grey:
    """Blur, fade, light unevenly, stain, add noise and compress."""
    blur = rng.uniform(0, 2) * dpi / 300
    levels = (cv2.GaussianBlur(page, (0, 0), blur) if blur > 0.3 else page).astype(np.float32)
    paper = rng.uniform(225, 255)
    levels = paper - (255 - levels) * rng.uniform(0.4, 1.0) * paper / 255
    height, width = page.shape
    levels *= 1 + rng.uniform(-0.08, 0.08) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(3))):
        stain = np.zeros((height // 8, width // 8), dtype=np.float32)
        at = int(rng.integers(width // 8)), int(rng.integers(height // 8))
        cv2.circle(stain, at, int(rng.integers(3, 20)), rng.uniform(0.1, 0.5), -1)
        levels *= 1 - cv2.resize(cv2.GaussianBlur(stain, (0, 0), 2), (width, height))
    levels += rng.standard_normal(page.shape, dtype=np.float32) * rng.uniform(0, 10)
    quality = int(rng.integers(50, 96))
    encoded = cv2.imencode(".jpg", np.clip(levels, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))


def worst_px(found: Registration, truth: Floats, layout: Layout, dpi: float = 300) -> float:
    """Return the worst error over the corners of all boxes, px at 300 dpi."""
    corners = np.concatenate([box.corners for place in layout.places for box in place.boxes])
    right = np.c_[corners, np.ones(len(corners))] @ truth.T
    away = found.pixels(corners) - right[:, :2] / right[:, 2:]
    return float(np.linalg.norm(away, axis=1).max()) * 300 / dpi


def true_homography(grey: Grey, layout: Layout) -> Floats:
    """Return mm -> pixels of a sheet as a renderer makes it, which stretches it to whole pixels."""
    return np.array([[grey.shape[1] / layout.width, 0, -0.5], [0, grey.shape[0] / layout.height, -0.5], [0, 0, 1.0]])
