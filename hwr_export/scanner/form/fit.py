"""How far things are off from where a homography puts them -> the small motion that puts all of them right.

Least squares, robustly (Huber 1981; Tukey's weights at the end): what contradicts all others has no say.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.measured import BLOCK, CORNERS, Measured
from hwr_export.statistics import median

Floats = npt.NDArray[np.float64]
Frame = tuple[float, float, float]  # centre (x, y) and unit, px, of a motion's numbers

PERSPECTIVE_PER_MM = 7e-5  # by which a scale changes along a sheet, usually: 2 % over A4
ASTRAY_MM, ASTRAY = 3.0, 0.02  # by which places, and lengths and angles, are off before anything is measured
TURNS, GENTLE_TURNS = 12, 4


@dataclass(frozen=True)
class Fit:
    """A motion of points in px, and how sure it is."""

    motion: Floats  # (3, 3), px -> px
    weights: Floats  # (N,), from 0 (has no say) to 1
    gains: Floats  # (4,), by how many px black is larger than it should be in each mark
    covariance: Floats  # (8, 8), px^2
    frame: Frame

    def doubt_px(self, points: Floats) -> Floats:
        """Return the standard deviation of where points lie: float64 (N, 2), px -> float64 (N,), px."""
        rows = _motions(points, self.frame)
        return np.asarray(np.sqrt(np.einsum("nip,pq,niq->n", rows, self.covariance, rows)))


def fit(measured: Measured, per_mm: float, least: int = 12, astray: float = ASTRAY) -> Fit | None:
    """Return the motion that takes what was expected to what was measured; None where fewer than `least` agree.

    Args:
        per_mm: pixels.
        astray: standard deviation of the homography's lengths and angles, before anything is measured.
    """
    seen = measured.seen
    if seen.sum() < least:
        return None
    points, best = measured.points[seen], measured.best[seen]
    low, high = points.min(axis=0), points.max(axis=0)
    frame = (*((low + high) / 2), max(1.0, float(np.max(high - low)) / 2))
    rows = np.einsum("nip,ni->np", _motions(points, frame), measured.normals[seen])
    kind = measured.kind[seen]
    of_mark = (kind[:, None] == np.arange(CORNERS)).astype(np.float64)
    rows = np.concatenate([rows, of_mark], axis=1) / best[:, None]
    offsets = measured.offsets[seen] / best
    # Where nothing is measured a homography stays as it is; paper has little perspective, and a mark not seen no gain.
    place = [ASTRAY_MM * per_mm, astray * frame[2], astray * frame[2]] * 2
    usual = [*place, *[PERSPECTIVE_PER_MM * frame[2] ** 2 / per_mm] * 2, *[1.0] * CORNERS]
    prior = np.diag(1 / np.square(usual))
    weights, sigma = np.ones(len(offsets)), np.ones(len(offsets))
    for turn in range(TURNS):
        weighted = rows * (weights / sigma**2)[:, None]
        normal = weighted.T @ rows + prior
        motion: Floats = np.linalg.solve(normal, weighted.T @ offsets).astype(np.float64)
        rest = np.abs(offsets - rows @ motion)
        gentle = turn < GENTLE_TURNS
        # Each kind is as exact as it shows itself to be: what is taken for lines on an empty sheet says nothing.
        sigma = _sigma(rest, kind, np.ones(len(rest), dtype=bool) if gentle else weights > 0)
        away = rest / sigma
        weights = 1 / (1 + (away / 2) ** 2) if gentle else np.clip(1 - (away / 4.7) ** 2, 0, 1) ** 2
        if (weights > 0).sum() < least:
            return None
    every = np.zeros(len(seen))
    every[seen] = weights
    covariance = np.asarray(np.linalg.inv(normal)[:8, :8], dtype=np.float64)
    return Fit(_matrix(motion[:8], frame), every, motion[8:], covariance, frame)


def _sigma(rest: Floats, kind: npt.NDArray[np.int64], counts: npt.NDArray[np.bool_]) -> Floats:
    """Return the standard deviation of each, in units of what it is at best, from all of its kind: float64 (N,)."""
    sigma = np.ones(len(rest))
    for each in range(BLOCK + 1):
        own = kind == each
        if (own & counts).any():
            sigma[own] = max(1.4826 * median(rest[own & counts]), 1.0)
    return sigma


def _motions(points: Floats, frame: Frame) -> Floats:
    """Return how points move with the eight numbers of a small homography: float64 (N, 2, 8)."""
    x, y = (points[:, 0] - frame[0]) / frame[2], (points[:, 1] - frame[1]) / frame[2]
    one, zero = np.ones_like(x), np.zeros_like(x)
    right = np.stack([one, x, y, zero, zero, zero, x * x, x * y], axis=1)
    down = np.stack([zero, zero, zero, one, x, y, x * y, y * y], axis=1)
    return np.stack([right, down], axis=1)


def _matrix(motion: Floats, frame: Frame) -> Floats:
    """Return the homography whose small motion is given, about the frame's centre."""
    x, y, unit = frame
    into = np.array([[1 / unit, 0, -x / unit], [0, 1 / unit, -y / unit], [0, 0, 1]])
    a, b, c, d, e, f, g, h = motion / unit
    inner = np.array([[1 + b, c, a], [e, 1 + f, d], [-g, -h, 1]])
    return np.asarray(np.linalg.inv(into) @ inner @ into)
