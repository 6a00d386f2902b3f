"""Where a sheet lies is found to a pixel, whatever the scanner did to it; all that is not the sheet is refused."""

import cv2
import numpy as np
import pytest

from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.layout import Layout, lay_out
from hwr_export.scanner.form.registration import PageRefused, Registration, register
from hwr_export.scanner.form.sheet import sheet_pdf
from scripts.pages.page import Page, print_sheet

DPI = 200
UNMARKED = {
    "id": "plain",
    "marks": {"kind": "none"},
    "fields": [
        {"kind": "digits", "name": "number", "x": 30, "y": 40, "boxes": 8},
        {"kind": "letters", "name": "name", "x": 30, "y": 60, "boxes": 12},
        {"kind": "date", "name": "day", "x": 100, "y": 90, "boxes": 8},
        {"kind": "amount", "name": "sum", "x": 40, "y": 150, "boxes": 9},
        {"kind": "digits", "name": "last", "x": 120, "y": 240, "boxes": 6},
    ],
}


def off_px(layout: Layout, found: Registration, truth: np.ndarray) -> float:
    """Return the furthest that a corner of a box is from where it is, in pixels of the image."""
    corners = np.concatenate([box.corners for place in layout.places for box in place.boxes])
    true = np.c_[corners, np.ones(len(corners))] @ truth.T
    return float(np.linalg.norm(found.pixels(corners) - true[:, :2] / true[:, 2:], axis=1).max())


def true_homography(grey: np.ndarray, layout: Layout) -> np.ndarray:
    """Return mm -> pixels of a sheet that was rendered as it is."""
    x, y = grey.shape[1] / layout.width, grey.shape[0] / layout.height
    return np.array([[x, 0, -0.5], [0, y, -0.5], [0, 0, 1.0]])


def test_scanned_pages_lie_where_the_truth_says(scanned: list[Page], proof_layout: Layout) -> None:
    for page in scanned:
        found = register(page.grey, proof_layout)
        error = off_px(proof_layout, found, np.array(page.scan["homography"]))
        assert error * 300 / page.dpi <= 1.0, page.name
        assert found.dpi == pytest.approx(page.dpi, rel=0.05)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_any_way_up(blank_sheet: np.ndarray, proof_layout: Layout, turns: int) -> None:
    height, width = blank_sheet.shape
    turn = {
        0: np.eye(3),
        1: np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1.0]]),
        2: np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1.0]]),
        3: np.array([[0, -1, height - 1], [1, 0, 0], [0, 0, 1.0]]),
    }[turns]
    found = register(np.rot90(blank_sheet, turns), proof_layout)
    assert found.marks == 4
    assert off_px(proof_layout, found, turn @ true_homography(blank_sheet, proof_layout)) < 0.3


@pytest.mark.parametrize("corner", [0, 1, 2, 3])
def test_one_mark_may_be_missing(blank_sheet: np.ndarray, proof_layout: Layout, corner: int) -> None:
    page, scale = blank_sheet.copy(), DPI / 25.4
    rect = proof_layout.marks[corner].rect.grown(1)
    page[int(rect.y * scale) : int(rect.bottom * scale), int(rect.x * scale) : int(rect.right * scale)] = 255
    found = register(page, proof_layout)
    assert found.marks == 3
    assert off_px(proof_layout, found, true_homography(page, proof_layout)) < 0.67  # a pixel at 300 dpi


def refused(page: np.ndarray, layout: Layout) -> tuple[str, str]:
    with pytest.raises(PageRefused) as raised:
        register(page, layout)
    return raised.value.code, str(raised.value)


def test_what_is_not_the_sheet_is_refused(blank_sheet: np.ndarray, proof: Form, proof_layout: Layout) -> None:
    code, said = refused(np.full_like(blank_sheet, 250), proof_layout)
    assert (code, "the page is blank" in said) == ("blank-page", True)
    rng = np.random.default_rng(0)
    assert refused(rng.integers(0, 256, (1400, 1000), dtype=np.uint8), proof_layout)[0] == "no-marks"
    other = lay_out(Form.model_validate({**UNMARKED, "marks": {"kind": "aruco"}}))
    assert refused(blank_sheet, other)[0] == "wrong-form"
    next_version = lay_out(proof.model_copy(update={"version": proof.version + 1}))
    assert refused(blank_sheet, next_version)[0] in ("wrong-form", "wrong-version")
    assert refused(blank_sheet[:, ::-1], proof_layout)[0] not in ("", "blank-page")


def test_a_page_that_is_cut_off_is_refused(blank_sheet: np.ndarray, proof_layout: Layout) -> None:
    height, width = blank_sheet.shape
    lowest = max(place.area.bottom for place in proof_layout.places)
    rows = int((lowest - 4) * DPI / 25.4)
    assert refused(blank_sheet[:rows], proof_layout)[0] in ("cut-off", "no-marks", "distorted", "few-marks")
    assert refused(blank_sheet[: height // 4, : width // 4], proof_layout)[0] != ""


def test_a_page_of_few_pixels_is_refused(blank_sheet: np.ndarray, proof_layout: Layout) -> None:
    small = cv2.resize(blank_sheet, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    code, said = refused(small, proof_layout)
    assert code in ("too-small", "no-marks")
    assert "dpi" in said or "mark" in said


def test_a_mark_that_somebody_drew_elsewhere_does_not_move_the_page(
    blank_sheet: np.ndarray, proof_layout: Layout
) -> None:
    """A copy of a corner in the middle of the page: the page is read as it lies, or refused."""
    page, scale = blank_sheet.copy(), DPI / 25.4
    rect = proof_layout.marks[0].rect.grown(1)
    mark = page[int(rect.y * scale) : int(rect.bottom * scale), int(rect.x * scale) : int(rect.right * scale)]
    height, width = mark.shape
    page[1900 : 1900 + height, 700 : 700 + width] = mark
    try:
        found = register(page, proof_layout)
    except PageRefused:
        return
    assert off_px(proof_layout, found, true_homography(page, proof_layout)) < 0.67


@pytest.mark.parametrize("degrees", [-3.0, 0.0, 2.0, 180.0])
def test_a_sheet_without_marks_lies_by_its_lines(degrees: float) -> None:
    form = Form.model_validate(UNMARKED)
    layout = lay_out(form)
    sheet = print_sheet(sheet_pdf(form), DPI, layout.width, layout.height).grey
    height, width = sheet.shape
    turn = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0), [0, 0, 1]])
    page = cv2.warpPerspective(sheet, turn, (width, height), flags=cv2.INTER_CUBIC, borderValue=255)
    found = register(page, layout)
    assert found.marks == 0
    assert off_px(layout, found, turn @ true_homography(sheet, layout)) < 1.0  # 1.5 at 300 dpi
    with pytest.raises(PageRefused):
        register(np.full_like(page, 255), layout)
