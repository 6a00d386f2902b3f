"""A page and about where pieces of what is printed lie on it -> how far off each is, at a fraction of a pixel.

A piece is measured across itself alone. One under a stain or a pen's stroke is not seen, or is off by itself.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.pieces import Pieces
from hwr_export.scanner.form.plausible import project
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ALONG, HALF = 9, 7  # samples along a piece, and to either side of it
LEAST_EDGE = 20.0  # grey levels between black and white
LEAST_LINE = 4.0  # grey levels that a line is darker than the paper
NEAR_STEPS = 1.5  # of a profile, within which its form is that of the others, moved
LEAST_ALIKE = 20
BEST_PX = 0.03  # how exactly a piece is measured at best
CORNERS, LINE, BLOCK = 4, 4, 5
_U = np.linspace(-1.0, 1.0, ALONG)
_V = np.arange(-HALF, HALF + 1) / HALF


@dataclass(frozen=True)
class Measured:
    """What is seen of N things, in pixels of the page."""

    points: Floats  # (N, 2), where they were expected
    normals: Floats  # (N, 2), of length one
    offsets: Floats  # (N,), from there to where they are, along the normals
    seen: Flags  # (N,), found at all
    inside: Flags  # (N,), on the page at all
    kind: npt.NDArray[np.int64]  # (N,), the corner of a mark's edges, LINE or BLOCK
    best: Floats  # (N,), standard deviation of `offsets` at best

    def __add__(self, other: "Measured") -> "Measured":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Measured(*(np.concatenate(pair) for pair in pairs))


def measure(page: Grey, homography: Floats, pieces: Pieces) -> Measured:
    """Look for pieces about where a homography puts them."""
    points = project(homography, pieces.centres)
    along = (
        project(homography, pieces.centres + pieces.halves) - project(homography, pieces.centres - pieces.halves)
    ) / 2
    outwards = project(homography, pieces.centres + pieces.normals * pieces.reach[:, None]) - points
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    reach = (normals * outwards).sum(axis=1)
    normals, reach = np.where(reach[:, None] < 0, -normals, normals), np.abs(reach)
    levels = _levels(page, points, along, normals * reach[:, None])
    # Along a mark's edge there is nothing else; over a box's line goes a pen.
    profiles = levels.mean(axis=1)
    if not pieces.edge.all():
        profiles[~pieces.edge] = np.median(levels[~pieces.edge], axis=1)
    profiles = profiles.astype(np.float64)
    noise = 1.57 * np.abs(levels - profiles[:, None]).mean(axis=(1, 2)) / np.sqrt(ALONG)
    step = reach / HALF
    offsets, seen = np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    for edge in (True, False):
        for wide in np.unique(pieces.reach[pieces.edge == edge]):
            which = (pieces.edge == edge) & (pieces.reach == wide)
            at, found = (_edges if edge else _lines)(profiles[which], noise[which])
            offsets[which], seen[which] = _sharpened(profiles[which], at, found) * step[which], found
    ends = np.abs(along) + np.abs(normals * reach[:, None])
    height, width = page.shape
    low, high = points - ends, points + ends
    inside = (low >= 0).all(axis=1) & (high[:, 0] <= width - 1) & (high[:, 1] <= height - 1)
    return Measured(
        points,
        normals,
        offsets,
        seen & inside,
        inside,
        np.where(pieces.edge, pieces.corner, LINE),
        np.full(len(points), BEST_PX),
    )


def _levels(page: Grey, points: Floats, along: Floats, across: Floats) -> npt.NDArray[np.float32]:
    """Return grey levels along and across pieces, float32 (N, ALONG, 2 * HALF + 1)."""
    at = points[:, None, None] + along[:, None, None] * _U[:, None, None] + across[:, None, None] * _V[:, None]
    maps = at.astype(np.float32).reshape(len(points), -1, 2)
    grey = np.empty(maps.shape[:2], dtype=np.uint8)
    for start in range(0, len(points), 30_000):  # as large as an image of OpenCV may be
        part = maps[start : start + 30_000]
        grey[start : start + 30_000] = cv2.remap(
            page, part[..., 0], part[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return grey.reshape(len(points), ALONG, 2 * HALF + 1).astype(np.float32)


def _sharpened(profiles: Floats, at: Floats, seen: Flags) -> Floats:
    """Return the places again, by the form that all profiles have in common: as exact as their noise lets them be."""
    near = seen & (np.abs(at) < NEAR_STEPS)
    if near.sum() < LEAST_ALIKE:
        return at
    alike = profiles[near] - profiles[near].mean(axis=1, keepdims=True)
    form = (alike / np.maximum(np.abs(alike).mean(axis=1, keepdims=True), 1e-6)).mean(axis=0)
    # A profile is about level + slope * x + depth * (form - away * form'): linear in all that is not known.
    steps = np.arange(-HALF, HALF + 1.0)
    design = np.stack([np.ones_like(steps), steps, form, -np.gradient(form)], axis=1)
    *_, depth, moved = np.linalg.lstsq(design, profiles.T, rcond=None)[0]
    away = moved / np.where(np.abs(depth) > 1e-6, depth, 1.0)
    better = near & (np.abs(away) < 2 * NEAR_STEPS)
    return np.asarray(np.where(better, away + at[near].mean(), at))


def _edges(profiles: Floats, noise: Floats) -> tuple[Floats, Flags]:
    """Return where black turns into white, in steps of a profile from its middle, and whether it does."""
    black, white = profiles[:, :2].mean(axis=1), profiles[:, -2:].mean(axis=1)
    contrast = white - black
    usual = float(np.median(contrast))
    clear = contrast > max(LEAST_EDGE, 0.4 * usual)
    share = (white[:, None] - profiles) / np.where(clear, contrast, 1.0)[:, None]
    at = share.sum(axis=1) - (HALF + 0.5)
    there_and_back = np.abs(np.diff(profiles, axis=1)).sum(axis=1) / np.where(clear, contrast, 1.0)
    clear &= (contrast > 4 * noise) & (there_and_back < 2.0) & (np.abs(at) < 0.8 * HALF)
    return at, clear


def _lines(profiles: Floats, noise: Floats) -> tuple[Floats, Flags]:
    """Return where a profile is darkest, in steps of it from its middle, and whether a line is there."""
    paper = np.linspace(profiles[:, :2].mean(axis=1), profiles[:, -2:].mean(axis=1), 2 * HALF + 1, axis=1)
    dark = paper - profiles
    smooth = (dark[:, :-2] + dark[:, 1:-1] + dark[:, 2:]) / 3
    peak = np.argmax(smooth, axis=1) + 1
    depth = np.take_along_axis(smooth, peak[:, None] - 1, axis=1)[:, 0]
    # The line alone: what is at least half as dark, near the peak.
    steps = np.arange(-HALF, HALF + 1)
    near = np.abs(steps[None] - (peak[:, None] - HALF)) <= 4
    mass = np.clip(dark - 0.3 * depth[:, None], 0, None) * near
    total = mass.sum(axis=1)
    at = (mass * steps).sum(axis=1) / np.where(total > 0, total, 1.0)
    seen = (depth > LEAST_LINE) & (depth > 4 * noise) & (total > 0) & (np.abs(at) < 0.7 * HALF)
    return at, seen
