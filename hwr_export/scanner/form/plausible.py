"""A homography and a layout -> whether a sheet of paper on a scanner can lie so, and what of it lies on the image."""

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Layout

Floats = npt.NDArray[np.float64]

ASPECT = 1.10  # between the scales along and across the sheet
PERSPECTIVE = 1.15  # between the scales at one point of the sheet and at another
HORIZON, FAR = 1e-3, 1e7
SKEW = 0.10  # cosine of the angle that right angles have become


def project(homography: Floats, points: Floats) -> Floats:
    """Return where points lie: float64 (N, 2) -> float64 (N, 2); far away, of what would lie behind the horizon."""
    found = points @ homography[:, :2].T + homography[:, 2]
    depth = found[:, 2:]
    return np.asarray(np.where(depth > HORIZON, found[:, :2] / np.maximum(depth, HORIZON), FAR), dtype=np.float64)


def implausible(homography: Floats, layout: Layout) -> str | None:
    """Return what a sheet cannot look like, None where nothing is strange.

    Args:
        homography: float64 (3, 3), mm -> px.
    """
    points = np.array([[0.5, 0.5], [0, 0], [1, 0], [1, 1], [0, 1]]) * [layout.width, layout.height]
    jacobians = _jacobians(homography, points)
    if jacobians is None or not np.isfinite(jacobians).all():
        return "it would vanish in the distance"
    if (np.linalg.det(jacobians) <= 0).any():
        return "it would be a mirror image"
    scales = np.linalg.norm(jacobians, axis=1)  # px per mm along x and y
    if (scales < 1e-6).any():
        return "it would be a line"
    aspect = scales[:, 0] / scales[:, 1]
    if not ((aspect > 1 / ASPECT) & (aspect < ASPECT)).all():
        return f"it would be stretched by {100 * (aspect[0] - 1):+.0f} %"
    cosine = np.abs((jacobians[:, :, 0] * jacobians[:, :, 1]).sum(axis=1)) / scales.prod(axis=1)
    if (cosine > SKEW).any():
        return f"its right angles would be off by {np.degrees(np.arcsin(min(1.0, cosine.max()))):.0f} degrees"
    areas = np.sqrt(np.linalg.det(jacobians))
    if areas.max() > PERSPECTIVE * areas.min():
        return f"one end of it would be {100 * (areas.max() / areas.min() - 1):.0f} % larger than the other"
    return None


def dpi_of(homography: Floats, layout: Layout) -> float:
    """Return dots per inch in the middle of the sheet."""
    jacobians = _jacobians(homography, np.array([[layout.width / 2, layout.height / 2]]))
    return 0.0 if jacobians is None else float(25.4 * np.sqrt(abs(np.linalg.det(jacobians[0]))))


def outside(homography: Floats, layout: Layout, shape: tuple[int, ...], slack_mm: float) -> list[str]:
    """Return the names of the fields that lie outside of an image of `shape` (H, W) by more than `slack_mm`."""
    slack = slack_mm * dpi_of(homography, layout) / 25.4 + 0.5  # an image ends half a pixel beyond its last centre
    found = []
    for place in layout.places:
        points = project(homography, place.area.corners)
        if (points < -slack).any() or (points > np.array([shape[1], shape[0]]) - 1 + slack).any():
            found.append(place.field.name)
    return found


def _jacobians(homography: Floats, points: Floats) -> Floats | None:
    """Return px per mm about points, float64 (N, 2, 2); None where one is at the horizon."""
    projected = np.c_[points, np.ones(len(points))] @ homography.T
    depth = projected[:, 2]
    if (depth <= 1e-9).any():
        return None
    at = projected[:, :2] / depth[:, None]
    return np.asarray(
        (homography[None, :2, :2] - at[:, :, None] * homography[None, 2:, :2]) / depth[:, None, None], dtype=np.float64
    )
