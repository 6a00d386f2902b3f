"""A sheet shows what its layout says, where it says so; what does not fit is refused, never printed over something."""

import json
import os
import re
import subprocess
import sys
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import Form, load_form, parse_form
from hwr_export.scanner.form.font import MOST_LINES
from hwr_export.scanner.form.layout import TEXT_CLEAR_MM, Layout, Rect, lay_out, quiet_mm
from hwr_export.scanner.form.printed import LABEL, Printed, compose
from hwr_export.scanner.form.sheet import LINE_MM, TINT, TINT_GREY, preview_png, sheet_pdf
from tests.conftest import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "payment-order.yaml"


def form(*fields: dict[str, object], **changes: object) -> Form:
    """Return a form of such fields, each of five digits at (30, 40) where nothing else is said."""
    placed = []
    for i, said in enumerate(fields):
        length = {} if "line" in said or said.get("kind") == "checkbox" else {"boxes": 5}
        placed.append({"kind": "digits", "name": f"f{i}", "x": 30, "y": 40} | length | said)
    return parse_form(json.dumps({"schema": 1, "id": "slip", "fields": placed, **changes}).encode(), "slip")


def grey(form: Form, dpi: float) -> npt.NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(preview_png(form, dpi), np.uint8), cv2.IMREAD_GRAYSCALE)


def printed(form: Form) -> Printed:
    return compose(form, lay_out(form))


def pixels(image: npt.NDArray[np.uint8], layout: Layout, rect: Rect) -> npt.NDArray[np.uint8]:
    """Return the whole pixels of a rectangle."""
    height, width = image.shape
    across, down = width / layout.width, height / layout.height
    return image[
        int(np.ceil(rect.y * down - 1e-6)) : int(rect.bottom * down + 1e-6),
        int(np.ceil(rect.x * across - 1e-6)) : int(rect.right * across + 1e-6),
    ]


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_same_form_is_the_same_bytes_in_any_process() -> None:
    code = (
        "import hashlib, sys; from pathlib import Path; from hwr_export.scanner.form.definition import load_form\n"
        "from hwr_export.scanner.form.sheet import sheet_pdf\n"
        "print(hashlib.sha256(sheet_pdf(load_form(Path(sys.argv[1])))).hexdigest())"
    )
    told = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            [sys.executable, "-c", code, str(EXAMPLE)], env=environment, capture_output=True, text=True, check=True
        )
        told.add(ran.stdout)
    assert len(told) == 1
    assert sheet_pdf(load_form(EXAMPLE)) == sheet_pdf(load_form(EXAMPLE))


def test_the_sheet_is_one_page_of_vectors_in_its_true_size() -> None:
    data = sheet_pdf(load_form(EXAMPLE))
    document = pypdfium2.PdfDocument(data)
    assert len(document) == 1
    assert document[0].get_size() == pytest.approx((210 / 25.4 * 72, 297 / 25.4 * 72), abs=0.01)
    kinds = {found.type for found in document[0].get_objects()}
    assert kinds == {pypdfium2.raw.FPDF_PAGEOBJ_PATH, pypdfium2.raw.FPDF_PAGEOBJ_TEXT}
    text = document[0].get_textpage().get_text_range()
    assert "IBAN *" in text
    assert re.search(r"payment-order version.1 \d{3}-\d{3}-\d{3}-\d{3}", text)
    document.close()
    assert b"/PrintScaling /None" in data
    assert data.count(b"/FontFile2") == 2  # both fonts are in it


def test_a_preview_is_in_colour_and_bounded() -> None:
    picture = cv2.imdecode(np.frombuffer(preview_png(load_form(EXAMPLE), 50), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (585, 414, 3)
    assert (picture[:, :, 2].astype(int) - picture[:, :, 0]).max() > 60
    with pytest.raises(FormError, match=r"a preview of 1000 x 1000 mm at 300 dpi would have more than 100,000,000 pix"):
        preview_png(form({}, page={"width": 1000, "height": 1000}), 300)


# -- marks and boxes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dpi", [150, 300])
@pytest.mark.parametrize("size", [6, 10])
def test_marks_are_found_where_they_ought_to_be(dpi: int, size: int) -> None:
    sheet = form({}, marks={"size": size, "margin": 7})
    layout, image = lay_out(sheet), grey(sheet, dpi)
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_1000)
    corners, ids, _ = cv2.aruco.ArucoDetector(dictionary, parameters).detectMarkers(image)
    found = {int(number): quad[0] for number, quad in zip(ids.ravel(), corners, strict=True)}
    assert sorted(found) == sorted(mark.id for mark in layout.marks)
    scale = np.array([image.shape[1] / layout.width, image.shape[0] / layout.height])
    for mark in layout.marks:
        assert np.abs(found[mark.id] - (mark.rect.corners * scale - 0.5)).max() < 0.6
        around = [pixels(image, layout, mark.rect.grown(by)) < 250 for by in (quiet_mm(size), 0.2)]
        assert around[0].sum() == around[1].sum()


def test_boxes_lie_where_the_layout_says_and_are_white_inside() -> None:
    sheet = load_form(EXAMPLE)
    layout, image = lay_out(sheet), grey(sheet, 100)
    boxes = [box for place in layout.places for box in place.boxes]
    assert len(boxes) > 90
    for box in boxes:
        assert (pixels(image, layout, box.grown(-LINE_MM - 0.26)) == 255).all()
        across, down = box.width - 1.2, box.height - 1.2
        for side in (
            Rect(box.x + 0.6, box.y - 0.2, across, 0.7),
            Rect(box.x + 0.6, box.bottom - 0.5, across, 0.7),
            Rect(box.x - 0.2, box.y + 0.6, 0.7, down),
            Rect(box.right - 0.5, box.y + 0.6, 0.7, down),
        ):
            darkest = pixels(image, layout, side).min(axis=0 if side.width > side.height else 1)
            assert darkest.max() < 240, box


def test_only_tint_stands_near_a_box_and_a_grey_scan_shows_it_light() -> None:
    assert pytest.approx(TINT_GREY, abs=1) == np.dot(TINT, (0.299, 0.587, 0.114))
    sheet = load_form(EXAMPLE)
    layout, image = lay_out(sheet), grey(sheet, 300)
    for place in layout.places:
        near = pixels(image, layout, place.area.grown(TEXT_CLEAR_MM))
        assert TINT_GREY - 2 <= near.min() <= TINT_GREY + 2, place.field.name


def test_a_point_stands_before_the_decimals() -> None:
    apart, tight = {"kind": "amount", "boxes": 6}, {"kind": "amount", "boxes": 6, "box": {"width": 5, "pitch": 5.2}}
    for field in (apart, {**apart, "groups": [4, 2]}, tight):
        sheet = form(field)
        layout, image = lay_out(sheet), grey(sheet, 300)
        before, behind = layout.places[0].boxes[3:5]
        between = pixels(image, layout, Rect((before.right + behind.x) / 2 - 0.1, before.y, 0.2, 7.0))
        assert 200 <= between.min() < 215
    for field in ({**apart, "decimals": 0}, {"kind": "digits", "boxes": 6}):
        sheet = form(field)
        layout, image = lay_out(sheet), grey(sheet, 300)
        before = layout.places[0].boxes[3]
        assert (pixels(image, layout, Rect(before.right + 0.1, before.y, 0.8, 7.0)) == 255).all()


def test_lines_and_checkboxes_are_boxes() -> None:
    sheet = form({"line": 80}, {"kind": "checkbox", "y": 60, "size": 4})
    layout, image = lay_out(sheet), grey(sheet, 200)
    for place in layout.places:
        assert (pixels(image, layout, place.area.grown(-LINE_MM - 0.13)) == 255).all()
        assert pixels(image, layout, place.area).min() < 210


def test_a_sheet_without_marks_has_a_frame_around_its_fields() -> None:
    sheet = form({}, marks={"kind": "none", "margin": 8})
    layout, image = lay_out(sheet), grey(sheet, 150)
    assert layout.frame == Rect(8, 8, 194, 281)
    for x, y in ((8, 100), (202, 100), (100, 8), (100, 289), (8, 8), (202, 289)):
        assert pixels(image, layout, Rect(x - 0.2, y - 0.2, 0.4, 0.4)).max() < 20
    assert lay_out(form({"x": 6}, marks={"kind": "none", "margin": 8})).frame is None
    assert lay_out(form({})).frame is None


# -- texts -----------------------------------------------------------------------------------------------------------


def test_a_required_field_has_an_asterisk() -> None:
    texts = [text.text for text in printed(form({"label": "One"}, {"label": "Two", "required": True, "y": 60})).texts]
    assert "One" in texts
    assert "Two *" in texts


def test_a_label_is_made_smaller_and_broken_before_it_is_refused() -> None:
    label = "A rather long label that says at length what one has to write here"
    neighbour = {"x": 62, "boxes": 3, "label": "Next"}
    wide = [t for t in printed(form({"label": label})).texts if t.text in label]
    assert [(t.text, t.size) for t in wide] == [(label, LABEL)]
    narrow = [t for t in printed(form({"label": label}, neighbour)).texts if t.text in label]
    assert 2 <= len(narrow) <= MOST_LINES
    assert " ".join(t.text for t in sorted(narrow, key=lambda t: t.baseline)) == label
    with pytest.raises(
        FormError, match=r"label of the field 'f0' does not fit, not even in letters of 5.5 pt: shorten"
    ):
        printed(form({"label": label}, {"y": 31, "boxes": 1}, {**neighbour, "x": 61.5}))


def test_hints_stand_below_dates_where_there_is_room() -> None:
    date = {"kind": "date", "boxes": 8, "groups": [2, 2, 4]}
    hints = [t for t in printed(form(date)).texts if t.tint]
    assert "".join(t.text for t in hints) == "DDMMYYYY"
    assert [t for t in printed(form(date, {"y": 48})).texts if t.tint] == []
    assert [t.text for t in printed(form({"kind": "date", "line": 60})).texts if t.tint] == ["D D M M Y Y Y Y"]


def test_a_title_takes_lines_and_loses_its_rule_before_it_is_refused() -> None:
    title = "Declaration of what was sent to whom and when, by those who sent it and those whom it was sent to"
    one, two = printed(form({}, title="Note")), printed(form({}, title=title))
    assert len(one.bars) == 1
    assert len([t for t in two.texts if t.bold]) == 2
    assert printed(form({"x": 60, "y": 17.2}, title="Note")).bars == ()


@pytest.mark.parametrize(
    ("field", "changes", "said"),
    [
        ({"label": "Имя"}, {}, "'И' in 'Имя' cannot be printed: the sheet's font has the letters of Western Europe"),
        ({"label": "a\tb", "y": 5, "x": 60}, {}, "the label of the field 'f0' does not fit"),
        ({"kind": "amount", "currency": "EUR", "x": 174}, {}, "currency 'EUR' does not fit behind the field 'f0'"),
        ({"x": 25, "y": 10}, {"title": "Note"}, "title does not fit into the 164 mm at the head of the page"),
        ({"x": 30, "y": 280}, {}, "id and version do not fit into the 164 mm at the foot of the page"),
        ({"kind": "checkbox", "x": 195, "label": "Indeed"}, {}, "'f0' does not fit, .* leave more room on its right"),
        ({}, {"texts": [{"text": "Here", "x": 32, "y": 42}]}, r"text 'Here' at \(32, 42\) mm lies on a field, a mark"),
        ({}, {"texts": [{"text": "Here", "x": 1, "y": 42}]}, "or within 4 mm of the paper's edge; move it"),
        ({}, {"texts": [{"text": t, "x": 32, "y": 60} for t in ("A", "B" * 50)]}, "text 'B{37}...' at"),
        ({}, {"texts": [{"text": "A", "x": 32, "y": 34.4, "rule": 20}]}, "text 'A' at"),
    ],
)
def test_what_does_not_fit_is_refused(field: dict[str, object], changes: dict[str, object], said: str) -> None:
    with pytest.raises(FormError, match=said):
        sheet_pdf(form(field, **changes))


def test_umlauts_and_the_euro_are_printed() -> None:
    sheet = form({"label": "Größe, Œuvre, Señor, Ålesund", "kind": "amount", "currency": "€"})
    assert sheet_pdf(sheet)


LABELS = st.text("abcdefghijklm nopqrstuvwxyzÄÖé", max_size=40).map(lambda text: " ".join(text.split()))


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """Draw a form that leaves its labels room: rows 18 mm apart, with one or two fields each."""
    fields: list[dict[str, object]] = []
    for row in range(draw(st.integers(1, 12))):
        for x in (25.0, 110.0)[: draw(st.integers(1, 2))]:
            kind = draw(st.sampled_from(["digits", "letters", "date", "amount", "phone", "iban", "checkbox", "line"]))
            field = {"name": f"f{len(fields)}", "label": draw(LABELS), "required": draw(st.booleans())}
            field |= {"x": x + draw(st.integers(0, 5)), "y": 40 + 18 * row + draw(st.floats(0, 2))}
            if kind == "line":
                field |= {"kind": "alphanumeric", "line": draw(st.floats(5, 60))}
            elif kind != "checkbox":
                field |= {"kind": kind, "boxes": 8 if kind == "date" else draw(st.integers(3, 10))}
            else:
                field |= {"kind": kind, "size": draw(st.floats(2.5, 8))}
            if kind == "amount":
                field["currency"] = draw(st.sampled_from(["", "EUR", "€"]))
            fields.append(field)
    marks = {"kind": draw(st.sampled_from(["aruco", "none"]))}
    document = {"id": "drawn", "title": draw(LABELS), "fields": fields, "marks": marks}
    return parse_form(json.dumps(document).encode(), "drawn")


@settings(max_examples=30, deadline=None)
@given(forms())
def test_every_form_prints_and_no_text_lies_on_anything(form: Form) -> None:
    assert sheet_pdf(form).startswith(b"%PDF")
    layout, found = lay_out(form), printed(form)
    assert {t.text for t in found.texts if t.size == 6.0 and not t.tint} >= {
        f"drawn version\u00a01 {'-'.join(f'{n:03d}' for n in layout.code)}"
    }
    words = " ".join(text.text for text in found.texts).split()
    assert all(word in words for field in form.fields for word in field.label.split())
    rects = [text.rect for text in found.texts] + list(found.bars)
    for one, other in combinations(rects, 2):
        assert not one.overlaps(other)
    for text in found.texts:
        for mark in layout.marks:
            assert not text.rect.overlaps(mark.rect.grown(quiet_mm(mark.rect.width)))
        for place in layout.places:
            clear = place.area if text.tint else place.area.grown(TEXT_CLEAR_MM)
            assert not text.rect.overlaps(clear)
        assert Rect(0, 0, layout.width, layout.height).contains(text.rect)
