"""A filled sheet -> what a scanner delivers of it, uint8 (H, W), and exactly where the sheet lies on that.

Every distortion has a strength from 0 to 1, drawn anew for each page; those of a page are alike (correlation SHARED),
so that there are gentle and harsh pages. The sheet is resampled once. Pixel centres are at whole coordinates.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import CORNERS, Layout, Rect
from scripts.pages.hand import Grey, Rng
from scripts.pages.ink import Sheet

Matrix = npt.NDArray[np.float64]

SHARED = 0.5
DPI = (150, 200, 300)
# Drawn of every page, and the share of pages on which the others happen.
ALWAYS = ("rotation", "scale", "shift", "perspective", "blur", "noise", "jpeg", "fading", "lighting")
SOMETIMES = {"stain": 0.35, "crossing": 0.35, "upside-down": 0.1, "lost-mark": 0.1}
KINDS = (*ALWAYS, *SOMETIMES)
ROTATION_DEG, SCALE, SHIFT_PX, PERSPECTIVE = 5.0, 0.03, 10.0, 0.005
BLUR_MM, OPTICS_PX, NOISE, JPEG = 0.09, 0.45, 10.0, (95, 50)
PALER, GAMMA, DARKER = 0.45, 0.3, 0.3
STAIN = 0.35
CROSSING_MM = 1.5
PAPER = (0.9, 0.98)  # of white
LID, BACKING = (225, 250), (20, 70)  # what lies around a page: the scanner's lid, or a dark backing
TIGHT = 0.4  # share of pages of which the scan is cut to the page's size, where nothing of the form is lost by it
KEEP_MM = 1.0  # around marks and fields, that such a cut leaves


@dataclass(frozen=True)
class Scan:
    """All that is drawn of a scan before it is made; `drawn` are the amounts by kind, each with its strength."""

    dpi: int
    strength: float
    strengths: dict[str, float]
    homography: Matrix  # float64 (3, 3): mm on the sheet -> pixels of the scan
    size: tuple[int, int]  # width, height of the scan
    around: int
    drawn: dict[str, dict[str, Any]] = field(default_factory=dict)


def draw_strengths(rng: Rng, most: float) -> tuple[float, dict[str, float]]:
    """Return a page's strength and those of its distortions; what does not happen has 0."""
    page = float(rng.standard_normal())
    found = {}
    for kind in KINDS:
        own = math.sqrt(SHARED) * page + math.sqrt(1 - SHARED) * float(rng.standard_normal())
        happens = bool(rng.random() < SOMETIMES.get(kind, 1.0)) and most > 0
        found[kind] = most * _share(own) if happens else 0.0
        if kind in ("upside-down", "lost-mark") and happens:
            found[kind] = 1.0
    return most * _share(page), found


def draw_scan(rng: Rng, layout: Layout, strength: float, strengths: dict[str, float], dpi: int) -> Scan:
    """Draw where a page lies and how it is scanned."""
    drawn: dict[str, dict[str, Any]] = {}

    def note(kind: str, **amounts: Any) -> None:
        if strengths[kind] > 0:
            drawn[kind] = {"strength": strengths[kind], **amounts}

    def both(kind: str, most: float, shape: int) -> Matrix:
        # The strength is that of the largest of them.
        values = rng.uniform(-1, 1, shape)
        return np.asarray(values / np.abs(values).max() * most * strengths[kind], dtype=np.float64)

    rotation = float(both("rotation", ROTATION_DEG, 1)[0])
    scale, shift = both("scale", SCALE, 2), both("shift", SHIFT_PX, 2)
    corners = both("perspective", PERSPECTIVE, 8).reshape(4, 2)
    note("rotation", degrees=rotation)
    note("upside-down")
    note("scale", across=1 + scale[0], down=1 + scale[1])
    note("shift", px=shift.tolist())
    note("perspective", corners=corners.tolist())
    turned = rotation + (180 if strengths["upside-down"] else 0)
    homography, size, tight = _lie(rng, layout, dpi, turned, 1 + scale, shift, corners, distorted=strength > 0)
    light = bool(rng.random() < 0.65) or strength == 0
    around = int(rng.integers(*(LID if light else BACKING)))
    drawn["page"] = {"strength": 0.0, "cut_to_page": tight, "around": around, "paper": float(rng.uniform(*PAPER))}
    note("blur", mm=BLUR_MM * strengths["blur"])
    note("noise", levels=NOISE * strengths["noise"])
    note("jpeg", quality=round(JPEG[0] - (JPEG[0] - JPEG[1]) * strengths["jpeg"]))
    gamma = 1 + GAMMA * strengths["fading"] * float(rng.choice((-1, 1)))
    note("fading", paler=PALER * strengths["fading"], gamma=gamma)
    note("lighting", darker=DARKER * strengths["lighting"], towards_deg=float(rng.uniform(0, 360)))
    if strengths["lost-mark"] and layout.marks:
        note("lost-mark", corner=CORNERS[int(rng.integers(4))], how=str(rng.choice(("covered", "torn"))))
    return Scan(dpi, strength, strengths, homography, size, around, drawn)


def plain_scan(layout: Layout, dpi: int) -> Scan:
    """Return the scan of a page that lies straight, with no distortion at all."""
    size = round(layout.width * dpi / 25.4), round(layout.height * dpi / 25.4)
    homography = np.array([[dpi / 25.4, 0, -0.5], [0, dpi / 25.4, -0.5], [0, 0, 1]])
    return Scan(dpi, 0.0, dict.fromkeys(KINDS, 0.0), homography, size, 255)


def stain_sheet(sheet: Sheet, layout: Layout, scan: Scan, rng: Rng) -> None:
    """Put stains on a sheet, and take one of its marks away, where the scan says so."""
    if strength := scan.strengths["stain"]:
        scan.drawn["stain"] = {"strength": strength, "stains": _stain(sheet, layout, strength, rng)}
    if lost := scan.drawn.get("lost-mark"):
        rect = layout.marks[CORNERS.index(lost["corner"])].rect
        torn = _corner(layout, CORNERS.index(lost["corner"]), rect, rng)
        if lost["how"] == "torn" and not any(_inside(torn, place.area) for place in layout.places):
            cv2.fillPoly(sheet.grey, [_fixed(sheet, torn)], scan.around, cv2.LINE_AA, 4)
        else:
            lost["how"] = "covered"
            over = rect.grown(float(rng.uniform(0.3, 1.5)))
            patch = over.corners + rng.uniform(-0.8, 0.8, (4, 2))
            cv2.fillPoly(sheet.grey, [_fixed(sheet, patch)], int(rng.integers(120, 256)), cv2.LINE_AA, 4)


def scan_sheet(sheet: Sheet, layout: Layout, scan: Scan, rng: Rng) -> Grey:
    """Scan a sheet."""
    x, y = sheet.scale
    to_mm = np.array([[1 / x, 0, 0.5 / x], [0, 1 / y, 0.5 / y], [0, 0, 1]])
    # As a sensor sees areas and no points: every second pixel of the finer sheet has its share of all of them.
    finer = cv2.GaussianBlur(sheet.grey, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
    grey = cv2.warpPerspective(
        finer, scan.homography @ to_mm, scan.size, flags=cv2.INTER_LINEAR, borderValue=scan.around
    )
    if "page" not in scan.drawn:
        return np.asarray(grey, dtype=np.uint8)
    edges = _project(scan.homography, Rect(0, 0, layout.width, layout.height).corners)
    shadow = round(scan.around * 0.75) if scan.around > 128 else scan.around
    cv2.polylines(grey, [np.round(edges * 16).astype(np.int32)], True, shadow, max(1, scan.dpi // 150), cv2.LINE_AA, 4)
    amounts = scan.drawn
    sigma = math.hypot(OPTICS_PX, amounts.get("blur", {"mm": 0.0})["mm"] * scan.dpi / 25.4)
    grey = cv2.GaussianBlur(grey, (0, 0), sigma)
    grey = cv2.LUT(grey, _tones(amounts["page"]["paper"], amounts.get("fading", {"paler": 0.0, "gamma": 1.0})))
    if "lighting" in amounts or "noise" in amounts:
        lit = grey.astype(np.float32)
        if "lighting" in amounts:
            lit *= _light(scan.size, rng, **{k: v for k, v in amounts["lighting"].items() if k != "strength"})
        levels = amounts.get("noise", {"levels": 0.0})["levels"]
        if levels:
            lit += np.float32(levels) * rng.standard_normal(lit.shape, dtype=np.float32)
        grey = cv2.convertScaleAbs(np.maximum(lit, 0, out=lit))
    if "jpeg" in amounts:
        data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, amounts["jpeg"]["quality"]])[1]
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return np.asarray(grey, dtype=np.uint8)


def _share(normal: float) -> float:
    return 0.5 * (1 + math.erf(normal / math.sqrt(2)))


def _lie(
    rng: Rng,
    layout: Layout,
    dpi: int,
    degrees: float,
    scale: Matrix,
    shift: Matrix,
    moved: Matrix,
    distorted: bool,
) -> tuple[Matrix, tuple[int, int], bool]:
    """Return the homography, the scan's size, and whether the scan is cut to the page's size."""
    per_mm = dpi / 25.4
    page = np.array([layout.width, layout.height])
    corners = Rect(0, 0, *page.tolist()).corners
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    lying = ((corners + moved * page - page / 2) * scale) @ turn.T * per_mm
    size = np.round(page * per_mm)
    want_cut = bool(rng.random() < TIGHT) or not distorted
    margins = rng.uniform(0.5, 7.0, 4) * per_mm
    homography = _through(corners, lying + size / 2 - 0.5 + shift)
    keep = [rect.grown(KEEP_MM) for rect in [*(m.rect for m in layout.marks), *(p.area for p in layout.places)]]
    inside = _project(homography, np.concatenate([rect.corners for rect in keep]))
    if want_cut and (inside >= 0).all() and (inside <= size - 1).all():
        return homography, (int(size[0]), int(size[1])), True
    low, high = lying.min(axis=0) - margins[:2], lying.max(axis=0) + margins[2:]
    size = np.ceil(high - low) + 2 * np.ceil(np.abs(shift))
    homography = _through(corners, lying - low - 0.5 + np.ceil(np.abs(shift)) + shift)
    return homography, (int(size[0]), int(size[1])), False


def _through(points: Matrix, targets: Matrix) -> Matrix:
    """Return the homography that takes four points to four others, in float64."""
    rows = []
    for (x, y), (u, v) in zip(points, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution = np.linalg.solve(np.array(rows), targets.reshape(-1))
    return np.append(solution, 1.0).reshape(3, 3)


def _project(homography: Matrix, points: Matrix) -> Matrix:
    projected = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(projected[:, :2] / projected[:, 2:], dtype=np.float64)


def _tones(paper: float, fading: dict[str, float]) -> Grey:
    """Return what becomes of each grey level: print and ink pale, all goes through a gamma, paper is not white."""
    levels = np.arange(256) / 255
    paled = 1 - (1 - levels) * (1 - fading["paler"])
    return np.asarray(np.round(255 * paper * paled ** fading["gamma"]), dtype=np.uint8)


def _light(size: tuple[int, int], rng: Rng, darker: float, towards_deg: float) -> npt.NDArray[np.float32]:
    """Return the share of light over a scan, float32 (H, W): a slope, and a shadow along one edge."""
    width, height = size
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    angle = math.radians(towards_deg)
    along = (x * math.cos(angle) + y * math.sin(angle)) / (abs(math.cos(angle)) + abs(math.sin(angle)))
    edge = np.exp(-(x + 1) / 0.08) if rng.random() < 0.5 else np.exp(-(1 - y) / 0.08)
    field_ = 1 - darker * (0.7 * (along + 1) / 2 + 0.3 * edge)
    return np.asarray(cv2.resize(field_.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def _stain(sheet: Sheet, layout: Layout, strength: float, rng: Rng) -> list[dict[str, Any]]:
    """Put rings, smudges and specks on a sheet; all let through what lies under them."""
    found: list[dict[str, Any]] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = str(rng.choice(("ring", "smudge", "smudge", "specks")))
        at = rng.uniform(0, 1, 2) * (layout.width, layout.height)
        dark = STAIN * strength * float(rng.uniform(0.6, 1.0))
        if kind == "specks":
            for spot in at + rng.normal(0, 25, (int(rng.integers(5, 30)), 2)):
                _speck(sheet, spot, float(rng.uniform(0.05, 0.16)), int(rng.integers(90, 190)))
        else:
            radius = float(rng.uniform(18, 36) if kind == "ring" else rng.uniform(5, 18))
            _shade(sheet, at, radius, dark, kind == "ring", rng)
        found.append({"kind": kind, "at_mm": [round(float(v), 1) for v in at], "dark": round(dark, 3)})
    return found


def _speck(sheet: Sheet, at: Matrix, radius: float, grey: int) -> None:
    """Put a dot of a radius in mm on a sheet; what is darker stays as it is."""
    reach, centre = radius * sheet.scale[0], sheet.pixels(at[None])[0]
    left, top, right, bottom = sheet.window(centre - reach - 2, centre + reach + 2)
    part = sheet.grey[top:bottom, left:right]
    if part.size:
        dot, (x, y) = np.full_like(part, 255), np.round((centre - (left, top)) * 16).astype(int).tolist()
        cv2.circle(dot, (x, y), round(reach * 16), grey, -1, cv2.LINE_AA, 4)
        np.minimum(part, dot, out=part)


def _shade(sheet: Sheet, at: Matrix, radius: float, dark: float, ring: bool, rng: Rng) -> None:
    """Darken a ring, or a smudge, of a radius in mm."""
    reach = radius * 1.3 * np.array(sheet.scale)
    centre = sheet.pixels(at[None])[0]
    left, top, right, bottom = sheet.window(centre - reach, centre + reach)
    if right - left < 8 or bottom - top < 8:
        return
    # At a quarter of the resolution: a stain has no fine detail.
    x = (np.arange(left, right, 4) - centre[0]) / (radius * sheet.scale[0])
    y = (np.arange(top, bottom, 4) - centre[1]) / (radius * sheet.scale[1])
    angle, waves = np.arctan2(y[:, None], x[None]), rng.uniform(0, 2 * np.pi, 4)
    uneven = sum(np.cos((k + 1) * angle + wave) for k, wave in enumerate(waves)) / 4
    squeezed = 1.0 if ring else float(rng.uniform(0.4, 1.0))
    away = np.hypot(x[None], y[:, None] / squeezed) * (1 + (0.015 if ring else 0.12) * uneven)
    if ring:
        thick = float(rng.uniform(0.025, 0.05))
        share = np.exp(-(((away - 0.95) / thick) ** 2)) * np.clip(0.65 + 0.6 * uneven, 0, 1) + 0.06 * (away < 0.95)
    else:
        share = np.clip(1.2 - 1.2 * away, 0, 1) * (0.8 + 0.2 * uneven)
    light = (1 - dark * np.clip(share, 0, 1)).astype(np.float32)
    part = sheet.grey[top:bottom, left:right]
    part[:] = part * cv2.resize(light, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)


def _corner(layout: Layout, corner: int, mark: Rect, rng: Rng) -> Matrix:
    """Return a corner of the page that is torn off through a mark or beyond it, float64 (N, 2) in mm."""
    x = np.array([mark.x, mark.right]) if corner in (0, 3) else layout.width - np.array([mark.x, mark.right])[::-1]
    y = np.array([mark.y, mark.bottom]) if corner in (0, 1) else layout.height - np.array([mark.y, mark.bottom])[::-1]
    # Between the mark's middle and its far corner.
    legs = (x.mean() + y.mean()) + rng.uniform(0, 1) * (x[1] + y[1] - x.mean() - y.mean())
    across = legs * float(rng.uniform(0.85, 1.15))
    down = legs / (across / legs)
    share = np.linspace(0, 1, 14)
    torn = np.column_stack([across * (1 - share), down * share]) + rng.normal(0, 0.35, (14, 2)) * (share > 0)[:, None]
    torn = np.concatenate([[[-5.0, -5.0], [across, -5.0]], torn, [[-5.0, down]]])
    if corner in (1, 2):
        torn[:, 0] = layout.width - torn[:, 0]
    if corner in (2, 3):
        torn[:, 1] = layout.height - torn[:, 1]
    return np.asarray(torn, dtype=np.float64)


def _inside(polygon: Matrix, area: Rect) -> bool:
    """Tell whether a torn corner comes within 2 mm of a field."""
    outline = polygon.astype(np.float32).reshape(-1, 1, 2)
    grown = area.grown(2.0)
    return any(cv2.pointPolygonTest(outline, (float(x), float(y)), False) >= 0 for x, y in grown.corners)


def _fixed(sheet: Sheet, points: Matrix) -> npt.NDArray[np.int32]:
    """Return points in mm as OpenCV draws them, with 4 bits behind the point."""
    return np.asarray(np.round(sheet.pixels(points) * 16), dtype=np.int32)
