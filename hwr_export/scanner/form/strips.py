"""A page and where the sheet lies on it -> the part around one field, laid straight, as darkness against the paper.

Uint8 (H, W) of `PX_PER_MM` pixels a mm, 0 on paper and 255 on what reflects nothing. Shading, stains and a yellowed
sheet are paper; whatever is narrower than a stroke is wide is not.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Rect
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.page import Grey

PX_PER_MM = 8.0
MM_PER_INCH = 25.4
_REDUCED = 4  # the paper's level is looked at in blocks of so many pixels
_NEAR_MM = 3.0  # ink narrower than this is never paper
_FAR_MM = 9.0  # a box blackened whole is narrower than this
_DARKEST_PAPER = 0.75  # of the paper around it, that a stain leaves; darker is ink


@dataclass(frozen=True)
class Strip:
    """A piece of the sheet."""

    rect: Rect  # mm; its top left corner is the corner of the first pixel
    dark: Grey  # uint8 (H, W)
    noise: float  # standard deviation of `dark` on bare paper

    def boxes(self, sheet: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return where rectangles of the sheet lie: float64 (N, 4), left, top, right, bottom, mm -> pixels."""
        return np.asarray((sheet - np.array([self.rect.x, self.rect.y] * 2)) * PX_PER_MM - 0.5, dtype=np.float64)


def cut_strip(page: Grey, registration: Registration, rect: Rect) -> Strip:
    """Return a rectangle of the sheet; what lies beyond the page goes on as the page ends."""
    width, height = (max(8, round(side * PX_PER_MM)) for side in (rect.width, rect.height))
    grey = _straight(page, registration.homography @ _sheet_from_strip(rect), (width, height))
    dark, noise = _against_paper(grey)
    return Strip(rect, dark, noise)


def _sheet_from_strip(rect: Rect) -> npt.NDArray[np.float64]:
    """Return what takes a strip's pixels to mm; pixel centres are at whole coordinates."""
    step = 1 / PX_PER_MM
    return np.array([[step, 0, rect.x + step / 2], [0, step, rect.y + step / 2], [0, 0, 1]])


def _straight(page: Grey, page_from_strip: npt.NDArray[np.float64], size: tuple[int, int]) -> Grey:
    width, height = size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]], np.float64)
    projected = corners @ page_from_strip.T
    points = projected[:, :2] / projected[:, 2:]
    per_pixel = float(np.linalg.norm(points[1] - points[0])) / (width - 1)
    by = max(1, int(per_pixel + 0.3))
    low = np.clip(np.floor(points.min(axis=0)) - 2 * by, 0, np.array(page.shape[::-1]) - 1).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 2 * by + 1, low + 1, page.shape[::-1]).astype(int)
    cut = page[low[1] : high[1], low[0] : high[0]]
    to_cut = np.array([[1.0, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    if by > 1:
        # Blocks are averaged first: picking pixels out of a fine scan would let its noise through.
        across, down = max(1, cut.shape[1] // by), max(1, cut.shape[0] // by)
        cut = cv2.resize(cut[: down * by, : across * by], (across, down), interpolation=cv2.INTER_AREA)
        to_cut = np.array([[1 / by, 0, (1 / by - 1) / 2], [0, 1 / by, (1 / by - 1) / 2], [0, 0, 1]]) @ to_cut
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = np.ascontiguousarray(cut)
    return np.asarray(
        cv2.warpPerspective(cut, to_cut @ page_from_strip, size, flags=flags, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.uint8,
    )


def _against_paper(grey: Grey) -> tuple[Grey, float]:
    """Return the darkness against the local paper, and its noise."""
    height, width = grey.shape
    small = cv2.resize(grey, (max(2, width // _REDUCED), max(2, height // _REDUCED)), interpolation=cv2.INTER_AREA)
    near, far = (cv2.morphologyEx(small, cv2.MORPH_CLOSE, _square(mm)) for mm in (_NEAR_MM, _FAR_MM))
    paper = cv2.max(near, cv2.convertScaleAbs(far, alpha=_DARKEST_PAPER))
    paper = cv2.resize(cv2.blur(paper, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    dark = cv2.bitwise_not(cv2.divide(grey, cv2.max(paper, 1), scale=255))
    # The paper that was found is its lightest part: the middle of all is where it is bare.
    share = np.cumsum(histogram(dark)) / dark.size
    middle, lower = int(np.searchsorted(share, 0.45)), int(np.searchsorted(share, 0.14))
    return np.asarray(cv2.subtract(dark, float(middle)), dtype=np.uint8), max(1.0, float(middle - lower))


def histogram(image: Grey) -> npt.NDArray[np.int64]:
    """Return how many pixels of each level there are, int64 (256,)."""
    return np.asarray(cv2.calcHist([image], [0], None, [256], [0, 256]).ravel(), dtype=np.int64)


def _square(mm: float) -> npt.NDArray[np.uint8]:
    side = max(3, round(mm * PX_PER_MM / _REDUCED))
    return np.ones((side, side), dtype=np.uint8)
