"""A page -> the page with fewer pixels, for looking about; halves are averaged quickly, other parts are not."""

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.page import Grey


def shrunk(page: Grey, most: float) -> tuple[Grey, int]:
    """Return a page with 1, 2, 4 ... times fewer pixels along each side, at most `most` times, and how many times."""
    times = 1
    while 2 * times <= most and min(page.shape) > 1:
        height, width = page.shape[0] // 2, page.shape[1] // 2
        page = cv2.resize(page[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        times *= 2
    return page, times


def back(times: int) -> npt.NDArray[np.float64]:
    """Return what takes pixels of a page shrunk so many times to those of the page itself, float64 (3, 3)."""
    return np.array([[times, 0, (times - 1) / 2], [0, times, (times - 1) / 2], [0, 0, 1]])
