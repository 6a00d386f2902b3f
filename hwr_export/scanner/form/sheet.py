"""A form's definition -> the sheet that is printed, a PDF of vectors; the same bytes for the same form.

What is there to write in is printed in a tint that a grey scan shows far lighter than ink; marks and texts are black.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import AmountField
from hwr_export.scanner.form.font import BOLD, MM_PER_POINT, REGULAR
from hwr_export.scanner.form.layout import MARK_MODULES, Layout, Mark, Place, lay_out
from hwr_export.scanner.form.printed import Text, compose, frame_rules

TINT = (255, 194, 126)  # red, green, blue of boxes, decimal points and hints
TINT_GREY = 204  # of the tint on a grey scan of white paper: 0.299 R + 0.587 G + 0.114 B
LINE_MM = 0.3  # width of a box's line, which lies within the box
POINT_MM = 1.1  # diameter of a decimal point
MOST_PIXELS = 100_000_000  # of a preview


def sheet_pdf(form: Form) -> bytes:
    """Return the sheet as a PDF of one page, in its true size.

    Raises:
        FormError: something does not fit, or cannot be printed.
    """
    from reportlab.pdfgen.canvas import Canvas

    layout = lay_out(form)
    printed = compose(form, layout)
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(_points(layout.width), _points(layout.height)), invariant=1, pageCompression=1)
    canvas.setTitle(form.title or form.id)
    canvas.setSubject(f"{form.id} version {form.version}")
    canvas.setCreator("hwr-export")
    canvas.setViewerPreference("PrintScaling", "None")
    # From here on mm from the top left corner, y down.
    canvas.scale(1 / MM_PER_POINT, -1 / MM_PER_POINT)
    canvas.translate(0, -layout.height)
    for place in layout.places:
        _draw_boxes(canvas, place)
    for bar in printed.bars:
        canvas.rect(bar.x, bar.y, bar.width, bar.height, stroke=0, fill=1)
    _draw_black(canvas, layout)
    for text in printed.texts:
        _draw_text(canvas, text)
    canvas.showPage()
    canvas.save()
    return file.getvalue()


def preview_png(form: Form, dpi: float = 100) -> bytes:
    """Return the printed sheet as a colour image, PNG.

    The page fills the image of whole pixels exactly: x mm lie at x / page width * image width - 0.5, whole coordinates
    being pixels' centres.

    Raises:
        FormError: as `sheet_pdf`, or the image would be too large.
    """
    import cv2
    import pypdfium2

    if form.page.width * form.page.height * (dpi / 25.4) ** 2 > MOST_PIXELS:
        raise FormError(
            f"a preview of {form.page.width:g} x {form.page.height:g} mm at {dpi:g} dpi would have more than "
            f"{MOST_PIXELS:,} pixels; take fewer dots per inch"
        )
    document = pypdfium2.PdfDocument(sheet_pdf(form))
    try:
        pixels = document[0].render(scale=dpi / 72, rev_byteorder=False).to_numpy()
        encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, :3]))[1]
    finally:
        document.close()
    return bytes(encoded)


def mark_modules(number: int) -> npt.NDArray[np.bool_]:
    """Return which modules of a mark of DICT_5X5_1000 are black, bool (7, 7), its border included."""
    import cv2

    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_1000)
    return np.asarray(cv2.aruco.generateImageMarker(dictionary, number, MARK_MODULES) == 0)


def _points(mm: float) -> float:
    return mm / MM_PER_POINT


def _draw_boxes(canvas: Any, place: Place) -> None:
    _colour(canvas, TINT)
    canvas.setLineWidth(LINE_MM)
    for box in place.boxes:
        inner = box.grown(-LINE_MM / 2)
        canvas.rect(inner.x, inner.y, inner.width, inner.height, stroke=1, fill=0)
    field = place.field
    if isinstance(field, AmountField) and field.boxes and field.decimals:
        before, behind = place.boxes[-field.decimals - 1], place.boxes[-field.decimals]
        gap = behind.x - before.right
        middle, radius = before.right + gap / 2, min(POINT_MM, gap - 0.2) / 2
        if radius >= 0.25:
            canvas.circle(middle, before.bottom - radius, radius, stroke=0, fill=1)
        else:  # no room for a point: a heavy rule between the boxes
            canvas.rect(middle - 0.4, before.y, 0.8, before.height, stroke=0, fill=1)


def _draw_black(canvas: Any, layout: Layout) -> None:
    """Draw the marks and the frame; as one path, so that squares side by side leave no hairline between them."""
    _colour(canvas, (0, 0, 0))
    path = canvas.beginPath()
    for mark in layout.marks:
        _add_mark(path, mark)
    for rule in frame_rules(layout.frame):
        path.rect(rule.x, rule.y, rule.width, rule.height)
    canvas.drawPath(path, stroke=0, fill=1, fillMode=1)


def _add_mark(path: Any, mark: Mark) -> None:
    module = mark.rect.width / MARK_MODULES
    for row, column in zip(*np.nonzero(mark_modules(mark.id)), strict=True):
        path.rect(mark.rect.x + column * module, mark.rect.y + row * module, module, module)


def _draw_text(canvas: Any, text: Text) -> None:
    _colour(canvas, TINT if text.tint else (0, 0, 0))
    canvas.saveState()
    canvas.translate(text.x, text.baseline)
    canvas.scale(1, -1)
    canvas.setFont(BOLD if text.bold else REGULAR, text.size * MM_PER_POINT)
    canvas.drawString(0, 0, text.text)
    canvas.restoreState()


def _colour(canvas: Any, rgb: tuple[int, int, int]) -> None:
    red, green, blue = (value / 255 for value in rgb)
    canvas.setFillColorRGB(red, green, blue)
    canvas.setStrokeColorRGB(red, green, blue)
