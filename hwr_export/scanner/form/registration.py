"""A page, grey uint8 (H, W), and a form's layout -> where the sheet lies on it; whatever is not that sheet is refused."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError

Floats = npt.NDArray[np.float64]


class PageRefused(FormError):
    """A page that is not read: `code` says what kind of page it is, the message why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Registration:
    """The sheet on the scan. Pixel centres are at whole coordinates, x to the right and y down."""

    homography: Floats  # float64 (3, 3): mm on the sheet -> pixels of the image
    residual_px: float  # worst distance of a reference point from where the homography puts it
    marks: int  # found; none on a form without
    dpi: float  # of the scan, by the homography

    def pixels(self, points_mm: Floats) -> Floats:
        """Return where points of the sheet lie on the image: float64 (N, 2), mm -> float64 (N, 2), pixels."""
        projected = np.c_[points_mm, np.ones(len(points_mm))] @ self.homography.T
        return np.asarray(projected[:, :2] / projected[:, 2:], dtype=np.float64)
