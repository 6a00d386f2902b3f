"""A page -> the form's own marks on it, by corner, at about half a millimetre; or why they are not there.

A mark counts if its number is the form's and it lies, with the others, as on a sheet of paper: drawings, stains and
marks of other sheets never do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.plausible import implausible, project
from hwr_export.scanner.form.refusal import PageRefused
from hwr_export.scanner.form.shrink import back, shrunk
from hwr_export.scanner.form.strangers import BLANK, is_blank, of_another_form
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]

SIDE_PX = 26.0  # of a mark, at least, on the reduced page on which marks are sought
AGREE_MM = 0.8  # within which marks that are seen agree with one sheet
TOLD_PX = 1200  # of the longer side of a page, at least, on which a mirror image is told
MOST_OF_A_KIND = 3  # marks of one number that are looked at


@dataclass(frozen=True)
class Seen:
    """A mark on the page."""

    id: int
    corners: Floats  # (4, 2), px of the page, from the mark's own top left clockwise


def see_marks(page: Grey, layout: Layout, finer: bool = False) -> list[Seen]:
    """Return all marks of the dictionary that are on the page, whosever they are."""
    height, width = page.shape
    per_mm = max(
        max(height, width) / max(layout.width, layout.height), min(height, width) / min(layout.width, layout.height)
    )
    small, times = shrunk(page, layout.marks[0].rect.width * per_mm / SIDE_PX / (2 if finer else 1))
    found, ids, _ = _detector(finer).detectMarkers(small)
    return [
        Seen(int(number), project(back(times), corners.reshape(4, 2).astype(np.float64)))
        for number, corners in zip(() if ids is None else ids.ravel(), found, strict=True)
    ]


@cache
def _detector(finer: bool) -> Any:
    options = cv2.aruco.DetectorParameters()
    options.adaptiveThreshWinSizeMin, options.adaptiveThreshWinSizeMax = (11, 35) if finer else (9, 25)
    options.adaptiveThreshWinSizeStep = 24 if finer else 16
    options.minMarkerPerimeterRate, options.maxMarkerPerimeterRate = (0.03, 1.0) if finer else (0.05, 1.0)
    options.polygonalApproxAccuracyRate = 0.05
    options.minOtsuStdDev = 3.0
    options.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    return cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_1000), options)


def find_sheet(page: Grey, layout: Layout) -> tuple[dict[int, Seen], Floats]:
    """Return the form's marks on a page, corner -> mark, and the homography by their corners, mm -> px.

    Raises:
        PageRefused: none of them is there, they are another form's, or two sheets lie on the page.
    """
    seen = see_marks(page, layout)
    found = _sheets(seen, layout)
    if not found or len(found[0]) < len(_expected(found[0], layout, page.shape)):
        seen = see_marks(page, layout, finer=True) or seen
        found = _sheets(seen, layout) or found
    others = {mark.id % 4: mark.id for mark in seen if _corner(mark, layout) is None}
    count = len(found[0]) if found else 0
    if count < 3 and len(others) > 1 and len(others) >= count:
        raise of_another_form(list(others.values()), layout)
    if not found:
        raise _without_marks(page, layout)
    if len(found) > 1 and len(found[1]) > 1:
        raise PageRefused(
            "two-sheets",
            f"the page shows two sheets of the form, one by {len(found[0])} marks and one by {len(found[1])}: "
            "scan one sheet at a time",
        )
    start = _agreement(found[0], layout)
    assert start is not None
    return found[0], start


def _expected(sheet: dict[int, Seen], layout: Layout, shape: tuple[int, ...]) -> list[int]:
    """Return the corners whose marks should be seen, all of them being printed: at most three are asked for."""
    homography = _agreement(sheet, layout)
    assert homography is not None
    expected = []
    for mark in layout.marks:
        corners = mark.rect.grown(0.5)
        points = project(homography, corners.corners)
        if (points >= 0).all() and (points <= np.array([shape[1], shape[0]]) - 1).all():
            expected.append(mark.corner)
    return expected[:3]


def _without_marks(page: Grey, layout: Layout) -> PageRefused:
    if is_blank(page):
        return PageRefused("blank-page", BLANK)
    small, _ = shrunk(page, max(page.shape) / TOLD_PX)
    for code, changed, said in (
        ("mirrored", cv2.flip(small, 1), "a mirror image"),
        ("negative", cv2.bitwise_not(small), "a negative, white on black"),
    ):
        if len(see_marks(changed, layout)) > 1:
            return PageRefused(code, f"the page is {said} of a sheet with marks: scan it as it is")
    return PageRefused(
        "no-marks",
        f"the page has none of the 4 marks of the form {layout.form}: it is another kind of page, or its corners are "
        "cut off or covered",
    )


def _sheets(seen: list[Seen], layout: Layout) -> list[dict[int, Seen]]:
    """Return the sheets of this form that the marks make, corner -> mark, those with most marks first.

    No mark belongs to two of them.
    """
    left = [mark for mark in seen if _corner(mark, layout) is not None]
    found: list[dict[int, Seen]] = []
    while sheet := next(_agreeing(left, layout), None):
        found.append(sheet)
        left = [mark for mark in left if all(mark is not other for other in sheet.values())]
    return found


def _corner(mark: Seen, layout: Layout) -> int | None:
    corner = mark.id % 4
    return corner if mark.id == layout.marks[corner].id else None


def _agreeing(seen: list[Seen], layout: Layout) -> Iterator[dict[int, Seen]]:
    of = [[mark for mark in seen if _corner(mark, layout) == corner][:MOST_OF_A_KIND] for corner in range(4)]
    for count in (4, 3, 2, 1):
        for corners in combinations([corner for corner in range(4) if of[corner]], count):
            for marks in product(*(of[corner] for corner in corners)):
                sheet = dict(zip(corners, marks, strict=True))
                if _agreement(sheet, layout) is not None:
                    yield sheet


def _agreement(sheet: dict[int, Seen], layout: Layout) -> Floats | None:
    """Return the homography by the corners that were seen, mm -> px; None where they contradict one another."""
    mm = np.concatenate([layout.marks[corner].rect.corners for corner in sheet])
    px = np.concatenate([mark.corners for mark in sheet.values()])
    homography = _affine(mm, px) if len(sheet) < 3 else cv2.findHomography(mm, px, 0)[0]
    if homography is None or implausible(homography, layout):
        return None
    away = np.linalg.norm(project(homography, mm) - px, axis=1).max()
    per_mm = np.sqrt(abs(np.linalg.det(homography[:2, :2])))
    return homography if away <= AGREE_MM * per_mm else None


def _affine(mm: Floats, px: Floats) -> Floats:
    """Return the homography without perspective that fits best, float64 (3, 3)."""
    solved = np.linalg.lstsq(np.c_[mm, np.ones(len(mm))], px, rcond=None)[0]
    return np.vstack([solved.T, [0.0, 0.0, 1.0]])
