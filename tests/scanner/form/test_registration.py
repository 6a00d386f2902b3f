"""Real sheets, scanned virtually: where they lie is found to a fraction of a pixel, or the page is refused."""

import os
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.scanner.form.layout import Layout, Rect, lay_out
from hwr_export.scanner.form.registration import PageRefused, Registration, register
from hwr_export.scanner.page import Grey
from scripts.pages.page import Page
from tests.scanner.form.scans import Sheet, any_motion, motion_of, payment_order, spoilt, worst_px

FORM = payment_order()
UNMARKED = payment_order(marks={"kind": "none"})


def refused(page: Grey, layout: Layout) -> tuple[str, str]:
    with pytest.raises(PageRefused) as err:
        register(page, layout)
    return err.value.code, str(err.value)


def scanned(sheet: Sheet, **motion: object) -> Grey:
    return sheet.scan(*motion_of(sheet.layout, **motion))  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from([300.0, 300.0, 200.0, 150.0]))
@settings(max_examples=14)
def test_a_sheet_is_found_to_a_fraction_of_a_pixel(seed: int, dpi: float) -> None:
    rng = np.random.default_rng(seed)
    sheet = Sheet(FORM)
    sheet.write(rng)
    motion, size = any_motion(rng, sheet.layout, dpi)
    page = spoilt(sheet.scan(motion, size, int(rng.choice([255, 30]))), rng, dpi)
    try:
        found = register(page, sheet.layout)
    except PageRefused as err:  # turned by so much that marks have left the page
        assert err.code in ("few-marks", "no-marks")  # noqa: PT017
        return
    assert worst_px(found, motion, sheet.layout, dpi) < 0.5
    assert found.residual_px < 0.12 * dpi / 25.4 * 2.1
    assert found.dpi == pytest.approx(dpi, rel=0.04)


def test_made_pages_lie_where_the_truth_says(scanned: list[Page], proof_layout: Layout) -> None:
    for page in scanned:
        found = register(page.grey, proof_layout)
        assert worst_px(found, np.array(page.scan["homography"]), proof_layout, page.dpi) < 0.5, page.name
        assert found.dpi == pytest.approx(page.dpi, rel=0.05)


def test_an_undistorted_sheet_is_found_to_a_hundredth_of_a_pixel() -> None:
    sheet = Sheet(FORM)
    for degrees in (0.3, 90, 180, 270):
        motion, size = motion_of(sheet.layout, degrees=degrees)
        found = register(sheet.scan(motion, size), sheet.layout)
        assert worst_px(found, motion, sheet.layout) < 0.03
        assert (found.marks, found.residual_px < 0.1) == (4, True)
        assert found.dpi == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("corner", range(4))
def test_three_marks_are_enough(corner: int) -> None:
    rng = np.random.default_rng(corner)
    sheet = Sheet(FORM)
    sheet.lose(corner)
    motion, size = any_motion(rng, sheet.layout, most=1.5)
    found = register(spoilt(sheet.scan(motion, size), rng), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.3) == (3, True)


@pytest.mark.parametrize("corners", [(0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_with_fewer_marks_lines_tell(corners: tuple[int, ...]) -> None:
    sheet = Sheet(FORM)
    sheet.write(np.random.default_rng(5))
    sheet.lose(*corners)
    motion, size = motion_of(sheet.layout, degrees=1.0, stretch=(1.02, 0.99), perspective=(0.002, -0.004))
    found = register(sheet.scan(motion, size), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.3) == (4 - len(corners), True)


def test_a_tint_that_was_dropped_leaves_marks_alone() -> None:
    sheet = Sheet(FORM)
    sheet.paper[sheet.paper > 190] = 255
    motion, size = motion_of(sheet.layout, degrees=-1.0, perspective=(0.004, 0.004))
    found = register(sheet.scan(motion, size), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.05) == (4, True)
    sheet.lose(1)
    found = register(sheet.scan(motion, size), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 1.0) == (3, True)
    sheet.lose(0)
    code, said = refused(spoilt(sheet.scan(motion, size), np.random.default_rng(1)), sheet.layout)
    assert code == "few-marks"
    assert "what is seen of the sheet's 4 marks (bottom right, bottom left)" in said


def test_a_mark_that_is_partly_off_the_page_helps_as_far_as_it_is_seen() -> None:
    sheet = Sheet(FORM)
    motion, size = motion_of(sheet.layout, degrees=3.6)
    found = register(sheet.scan(motion, size, 30), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.1) == (4, True)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
@settings(max_examples=10)
def test_a_form_without_marks_is_found_by_its_boxes(seed: int, framed: bool, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    sheet = Sheet(UNMARKED)
    sheet.write(rng)
    if not framed:  # as of a form that somebody else printed
        frame = sheet.layout.frame
        assert frame
        for rect in (Rect(0, 0, 12, 297), Rect(198, 0, 12, 297), Rect(0, 0, 210, 12), Rect(0, 285, 210, 12)):
            sheet.paint(rect)
    dpi = 150.0 if coarse else 300.0
    motion, size = any_motion(rng, sheet.layout, dpi)
    try:
        found = register(spoilt(sheet.scan(motion, size), rng, dpi), sheet.layout)
    except PageRefused as err:
        assert err.code in ("not-this-form", "cut-off")  # noqa: PT017
        return
    assert (found.marks, worst_px(found, motion, sheet.layout, dpi) < 1.0) == (0, True)


def test_clean_forms_without_marks_are_all_found() -> None:
    sheet = Sheet(UNMARKED)
    for degrees in (-4.0, 88.0, 183.0, 270.0):
        motion, size = motion_of(sheet.layout, degrees=degrees, stretch=(0.98, 1.02), shift=(8, -9))
        found = register(sheet.scan(motion, size), sheet.layout)
        assert worst_px(found, motion, sheet.layout) < 0.1


ROW = {"kind": "digits", "boxes": 10, "y": 100}


@pytest.mark.parametrize(
    ("fields", "moved"),
    [
        # The same when turned; then two fields too many to be mistaken.
        ([ROW | {"name": "a", "x": 40, "y": 50}, ROW | {"name": "b", "x": 111, "y": 240}], False),
        ([ROW | {"name": "a", "x": 40, "y": 50}, ROW | {"name": "b", "x": 40, "y": 70}], True),
    ],
)
def test_a_sheet_that_looks_the_same_turned_is_refused(fields: list[dict[str, object]], moved: bool) -> None:
    form = payment_order(fields=fields, rules=[], marks={"kind": "none"}, texts=[], title="")
    sheet = Sheet(form)
    page = scanned(sheet)
    if moved:
        assert register(page, sheet.layout).marks == 0
        return
    code, said = refused(page, sheet.layout)
    assert code == "ambiguous"
    assert "can lie on the page in two ways" in said


def test_a_row_is_never_read_a_box_further_on() -> None:
    """One row of boxes, cut off at its end: nothing but its ends tell where it begins."""
    form = payment_order(fields=[ROW | {"name": "a", "x": 40, "boxes": 20}], rules=[], marks={"kind": "none"}, texts=[])
    sheet = Sheet(form)
    boxes = sheet.layout.places[0].boxes
    assert register(scanned(sheet), sheet.layout).residual_px < 0.2
    sheet.copy(boxes[-1].grown(0.4), boxes[-1].x + 5.6, boxes[-1].y - 0.4)  # one box too many on the right
    sheet.paint(boxes[0].grown(0.4))
    code, _ = refused(scanned(sheet), sheet.layout)
    assert code in ("not-this-form", "ambiguous")


def test_what_is_not_the_sheet_is_refused() -> None:
    sheet, layout = Sheet(FORM), lay_out(FORM)
    page = scanned(sheet)
    other = lay_out(payment_order(version=2))
    code, said = refused(page, other)
    assert (code, "-".join(f"{number:03d}" for number in other.code) in said) == ("wrong-version", True)
    assert said.startswith("the sheet is payment-order version 1 (code 181-035-033-001); expected is payment-order ver")
    code, said = refused(page, lay_out(payment_order(id="claim")))
    assert code == "wrong-form"
    assert "the sheet's marks have the code 181-035-033-001, which is another form's" in said
    assert refused(cv2.flip(page, 1), layout)[0] == "mirrored"
    assert refused(cv2.bitwise_not(page), layout)[0] == "negative"
    for paper in (np.full((3508, 2480), 240, np.uint8), np.zeros((3508, 2480), np.uint8)):
        assert refused(paper, layout)[0] == refused(paper, lay_out(UNMARKED))[0] == "blank-page"
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1000), dtype=np.uint8)
    assert (refused(noise, layout)[0], refused(noise, lay_out(UNMARKED))[0]) == ("no-marks", "not-this-form")
    text = page.copy()
    text[:450] = text[3000:] = 255
    code, said = refused(text, layout)
    assert (code, "has none of the 4 marks of the form payment-order" in said) == ("no-marks", True)
    other = payment_order(marks={"kind": "none"}, rules=[], fields=[ROW | {"name": "a", "x": 40}])
    code, said = refused(scanned(Sheet(UNMARKED)), lay_out(other))
    assert (code, "the page is not a sheet of payment-order version 1" in said) == ("not-this-form", True)


@pytest.mark.parametrize("name", ["code", "express", "payee"])
def test_a_sheet_without_marks_on_which_a_field_has_moved_is_refused(name: str) -> None:
    sheet = Sheet(UNMARKED)
    place = next(place for place in sheet.layout.places if place.field.name == name)
    area = place.area.grown(0.4)
    sheet.copy(area, area.x, 250)
    sheet.paint(area)
    code, said = refused(scanned(sheet), sheet.layout)
    assert (code, f"no line of the field '{name}' is where the form has them" in said) == ("not-this-form", True)


def test_wrong_forms_are_told_with_one_mark_missing() -> None:
    sheet = Sheet(FORM)
    sheet.lose(2)
    assert refused(scanned(sheet), lay_out(payment_order(version=7)))[0] == "wrong-version"
    assert "181-035-033-001" in refused(scanned(sheet), lay_out(payment_order(id="claim")))[1]


def test_a_page_that_is_cut_off() -> None:
    sheet = Sheet(FORM)
    page = scanned(sheet)
    for part in (page[:2100], page[:, :1900], page[900:]):
        code, said = refused(part, sheet.layout)
        assert (code, "scan the whole sheet" in said) == ("cut-off", True)
    assert register(page[60:3420, 60:2420], sheet.layout).marks == 4


def test_resolutions() -> None:
    sheet = Sheet(FORM)
    for dpi in (100, 600):
        motion, size = motion_of(sheet.layout, dpi=dpi, degrees=1.0)
        found = register(sheet.scan(motion, size), sheet.layout)
        assert found.dpi == pytest.approx(dpi, abs=0.5)
        assert worst_px(found, motion, sheet.layout, dpi) < 0.2
    code, said = refused(scanned(sheet, dpi=80), sheet.layout)
    assert (code, "about 80 dpi" in said) == ("too-small", True)
    assert refused(np.full((40, 30), 255, np.uint8), sheet.layout)[0] == "too-small"
    assert refused(np.full((10, 40_000), 255, np.uint8), sheet.layout)[0] == "too-large"
    turned = np.rot90(scanned(sheet))  # no rows of it lie in a piece
    assert register(turned, sheet.layout).marks == 4


def test_false_marks_give_no_false_place() -> None:
    sheet = Sheet(FORM)
    mark = sheet.layout.marks[0].rect.grown(1)
    # A copy of a mark in the middle of the page changes nothing, nor does one in another's place.
    sheet.copy(mark, 100, 220)
    motion, size = motion_of(sheet.layout)
    found = register(sheet.scan(motion, size), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.05) == (4, True)
    sheet.copy(mark, sheet.layout.marks[1].rect.x - 1, mark.y)
    found = register(sheet.scan(motion, size), sheet.layout)
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.1) == (3, True)
    # Torn off and glued on elsewhere: what is left of the sheet tells.
    moved = Sheet(FORM)
    moved.copy(mark, mark.x, mark.y + 3)
    motion, size = motion_of(moved.layout)
    found = register(moved.scan(motion, size), moved.layout)
    assert (found.marks, worst_px(found, motion, moved.layout) < 0.1) == (3, True)


@pytest.mark.parametrize(("by", "dropped"), [(0.6, False), (1.5, False), (3.0, False), (3.0, True), (6.0, True)])
def test_a_mark_that_contradicts_the_others_never_moves_the_sheet(by: float, dropped: bool) -> None:
    sheet = Sheet(FORM)
    if dropped:
        sheet.paper[sheet.paper > 190] = 255
    mark = sheet.layout.marks[0].rect.grown(1)
    sheet.copy(mark, mark.x + by, mark.y)
    motion, size = motion_of(sheet.layout)
    try:
        found = register(sheet.scan(motion, size), sheet.layout)
    except PageRefused as err:
        assert err.code in ("distorted", "few-marks")  # noqa: PT017
        return
    assert (found.marks, worst_px(found, motion, sheet.layout) < 0.3) == (3, True)


def test_two_sheets_on_one_page_are_refused() -> None:
    sheet = Sheet(FORM)
    page = scanned(sheet, dpi=150)
    code, said = refused(np.concatenate([page, page], axis=1), sheet.layout)
    assert (code, "shows two sheets of the form" in said) == ("two-sheets", True)


def test_paper_that_is_not_flat() -> None:
    sheet = Sheet(FORM)
    page = scanned(sheet)
    y, x = np.indices(page.shape, dtype=np.float32)
    wave = np.sin(np.pi * (x - 150) / 2180) * np.sin(np.pi * (y - 150) / 3200)
    bent = cv2.remap(page, x, y + 12 * wave, cv2.INTER_LINEAR, borderValue=255)
    code, said = refused(bent, sheet.layout)
    assert code == "distorted"
    assert "mm from where it should be, more than 0.12 mm; smooth it and scan it anew" in said
    slightly = cv2.remap(page, x, y + 1.2 * wave, cv2.INTER_LINEAR, borderValue=255)
    motion, _ = motion_of(sheet.layout)
    assert worst_px(register(slightly, sheet.layout), motion, sheet.layout) < 1.5


@given(st.integers(0, 2**32 - 1), st.sampled_from([FORM, UNMARKED]))
@settings(max_examples=8)
def test_whatever_else_is_on_a_page_is_refused(seed: int, form: object) -> None:
    rng = np.random.default_rng(seed)
    page = np.full((1754, 1240), 255, np.uint8)
    for _ in range(int(rng.integers(200))):
        x, y, width, height = (int(v) for v in rng.integers(0, [1240, 1754, 200, 200]))
        cv2.rectangle(page, (x, y), (x + width, y + height), int(rng.integers(255)), int(rng.integers(-1, 4)) or 1)
    layout = lay_out(form)  # type: ignore[arg-type]
    assert refused(page, layout)[0] in ("blank-page", "no-marks", "not-this-form", "wrong-form", "few-marks")


@pytest.mark.slow
@pytest.mark.parametrize("form", [FORM, UNMARKED], ids=["marks", "none"])
def test_two_hundred_pages(form: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the errors over many pages: `pytest -m slow -s`."""
    cv2.setNumThreads(1)
    rows: dict[tuple[float, int], list[tuple[float, float]]] = {}
    codes: dict[str, int] = {}
    for number in range(int(os.environ.get("HWR_PAGES", "200"))):
        rng = np.random.default_rng([8, number])
        sheet = Sheet(form)  # type: ignore[arg-type]
        sheet.write(rng)
        if sheet.layout.marks and rng.random() < 0.3:
            sheet.lose(int(rng.integers(4)))
        dpi = (300.0, 200.0, 150.0)[number % 3]
        motion, size = any_motion(rng, sheet.layout, dpi)
        page = spoilt(sheet.scan(motion, size), rng, dpi)
        began = time.perf_counter()
        try:
            found: Registration = register(page, sheet.layout)
        except PageRefused as err:
            codes[err.code] = codes.get(err.code, 0) + 1
            continue
        took = time.perf_counter() - began
        rows.setdefault((dpi, found.marks), []).append((worst_px(found, motion, sheet.layout, dpi), 1e3 * took))
    with capsys.disabled():
        print(f"\nrefused: {codes}")  # noqa: T201
        for (dpi, marks), values in sorted(rows.items()):
            error, ms = np.array(values).T
            told = "median {:.3f} 95 % {:.3f} worst {:.3f} px".format(*np.percentile(error, [50, 95, 100]))
            print(f"{dpi:.0f} dpi, {marks} marks, {len(values)} pages: {told}; {np.median(ms):.0f} ms")  # noqa: T201
    assert max(error for values in rows.values() for error, _ in values) <= 1.0
    assert sum(codes.values()) < 0.2 * sum(map(len, rows.values()))
