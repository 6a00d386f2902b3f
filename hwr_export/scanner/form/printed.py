"""A form and its layout -> what is printed besides boxes and marks, and where: title, labels, hints, small print.

No text lies on a box, a mark, the frame or another text, and black text keeps `TEXT_CLEAR_MM` from all boxes: it is
made smaller and broken into lines until it fits, and a form whose texts do not fit is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import Form, PrintedText
from hwr_export.scanner.form.fields import AmountField, CheckboxField, DateField
from hwr_export.scanner.form.font import ASCENT, DESCENT, LEADING, MM_PER_POINT, broken, width_mm
from hwr_export.scanner.form.layout import FRAME_MM, TEXT_CLEAR_MM, Layout, Place, Rect, quiet_mm

# Sizes in points; a text is broken into lines before the second range is taken.
TITLE_SIZES = ((15.0, 14.0, 13.0, 12.0, 11.0), (10.0, 9.0, 8.0))
LABEL_SIZES = ((8.0, 7.5, 7.0, 6.5), (6.0, 5.5))
SMALL_SIZES = ((6.0, 5.5, 5.0),)
LABEL, SMALLEST = LABEL_SIZES[0][0], LABEL_SIZES[-1][-1]
HINT_SIZE = 6.0
EDGE_MM = 4.0  # nothing is printed nearer to the paper's edge
BESIDE_MM = 1.8  # between a box and what is printed on its right
HINT_MM = 0.6  # between a box and the hint below it
BAR_MM = 0.5  # height of a tinted rule under a heading
UNDER_MM = 0.9  # from a heading to its rule
START_MM = 4.0  # of a label's beginning, which other labels leave free
MIDDLE = 0.36  # of the size: from the middle of capitals down to their baseline


@dataclass(frozen=True)
class Text:
    """One line of text. `x` and `baseline` in mm from the page's top left corner, `size` in points."""

    text: str
    x: float
    baseline: float
    size: float
    bold: bool = False
    tint: bool = False

    @property
    def rect(self) -> Rect:
        mm = self.size * MM_PER_POINT
        return Rect(
            self.x,
            self.baseline - ASCENT * mm,
            width_mm(self.text, self.size, self.bold),
            (ASCENT + DESCENT) * mm,
        )


@dataclass(frozen=True)
class Printed:
    """All texts, and tinted rules under headings."""

    texts: tuple[Text, ...]
    bars: tuple[Rect, ...]


Lines = tuple[Text, ...]


class Sheet:
    """What is printed so far, and the room that it takes."""

    def __init__(self, layout: Layout) -> None:
        self.texts: list[Text] = []
        self.bars: list[Rect] = []
        self._page = Rect(0, 0, layout.width, layout.height).grown(-EDGE_MM)
        self._taken = _rows(
            [mark.rect.grown(quiet_mm(mark.rect.width)) for mark in layout.marks]
            + [place.area.grown(TEXT_CLEAR_MM) for place in layout.places]
            + list(frame_rules(layout.frame))
        )

    def put(self, lines: Lines, also: Sequence[Rect] = (), but: Rect | None = None, bar_mm: float = 0.0) -> bool:
        """Print lines if there is room for them, and tell whether there was.

        Args:
            lines: texts that do not lie on each other.
            also: what has to stay free besides what is taken.
            but: what may be lain on, though it is taken.
            bar_mm: length of the rule below them, 0 for none.
        """
        rects = [line.rect for line in lines]
        bars = []
        if bar_mm and lines:
            bars = [Rect(lines[0].x, max(r.bottom for r in rects) + UNDER_MM, bar_mm, BAR_MM)]
        taken = np.concatenate([self._taken, _rows(also)])
        if but is not None:
            taken = taken[~(taken == _rows([but])).all(axis=1)]
        if not all(self._page.contains(r) and not _overlap(r, taken).any() for r in rects + bars):
            return False
        self._taken = np.concatenate([self._taken, _rows(rects + bars)])
        self.texts.extend(lines)
        self.bars.extend(bars)
        return True

    def put_first(self, ways: Iterable[Lines], also: Sequence[Rect] = ()) -> bool:
        """Print the first of several ways for which there is room."""
        return any(self.put(lines, also) for lines in ways)

    @property
    def printed(self) -> Printed:
        return Printed(tuple(self.texts), tuple(self.bars))


def compose(form: Form, layout: Layout) -> Printed:
    """Return all that is printed besides boxes and marks.

    Raises:
        FormError: something does not fit, or has characters that the fonts do not have.
    """
    sheet = Sheet(layout)
    # What has one place alone comes first.
    for text in form.texts:
        if not sheet.put(lines_of(text), bar_mm=text.rule):
            raise FormError(
                f"the text {_short(text.text)!r} at ({text.x:g}, {text.y:g}) mm lies on a field, a mark or another "
                f"text, or within {EDGE_MM:g} mm of the paper's edge; move it, or make it smaller"
            )
    for place in layout.places:
        if isinstance(place.field, AmountField) and place.field.currency and not sheet.put(_currency(place)):
            raise FormError(
                f"the currency {place.field.currency!r} does not fit behind the field {place.field.name!r}: "
                "leave more room on its right"
            )
    room = _room(layout)
    # The rule under the title is for the looks: it is left out before the title is made smaller.
    title = " ".join(form.title.split())
    if title and not any(sheet.put(lines, bar_mm=room.width) or sheet.put(lines) for lines in _title(title, room)):
        raise FormError(
            f"the title does not fit into the {room.width:.0f} mm at the head of the page: "
            "shorten it, or move down what lies there"
        )
    if not sheet.put_first(_small_print(form, layout, room)):
        raise FormError(
            f"the form's id and version do not fit into the {room.width:.0f} mm at the foot of the page: "
            "move up what lies there"
        )
    _put_labels(sheet, layout)
    for place in layout.places:
        if isinstance(place.field, DateField):
            sheet.put(_hints(place, place.field), but=place.area.grown(TEXT_CLEAR_MM))
    return sheet.printed


def lines_of(text: PrintedText) -> Lines:
    """Return a text of the definition line by line."""
    mm = text.size * MM_PER_POINT
    lines = [line.rstrip() for line in text.text.split("\n")]
    return tuple(
        Text(line, text.x, text.y + (ASCENT + i * LEADING) * mm, text.size, text.bold)
        for i, line in enumerate(lines)
        if line
    )


def frame_rules(frame: Rect | None) -> tuple[Rect, ...]:
    """Return the black rules of a frame, whose middle it is: top, right, bottom, left."""
    if frame is None:
        return ()
    outer = frame.grown(FRAME_MM / 2)
    return (
        Rect(outer.x, outer.y, outer.width, FRAME_MM),
        Rect(outer.right - FRAME_MM, outer.y, FRAME_MM, outer.height),
        Rect(outer.x, outer.bottom - FRAME_MM, outer.width, FRAME_MM),
        Rect(outer.x, outer.y, FRAME_MM, outer.height),
    )


def _rows(rects: Iterable[Rect]) -> npt.NDArray[np.float64]:
    """Return rectangles as float64 (N, 4): left, top, right, bottom."""
    return np.array([(r.x, r.y, r.right, r.bottom) for r in rects], dtype=np.float64).reshape(-1, 4)


def _overlap(rect: Rect, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = rows.T
    return np.asarray((rect.x < right) & (left < rect.right) & (rect.y < bottom) & (top < rect.bottom), dtype=np.bool_)


def _short(text: str) -> str:
    line = text.split("\n", maxsplit=1)[0]
    return line if len(line) <= 40 else line[:37] + "..."


def _room(layout: Layout) -> Rect:
    """Return the page between what stands at its edges: the title lies along its top, the small print its bottom."""
    if layout.marks:
        mark = layout.marks[0].rect
        x = mark.right + quiet_mm(mark.width) + 2.5
        return Rect(x, mark.y, max(0.0, layout.width - 2 * x), layout.height - 2 * mark.y)
    if layout.frame:
        return layout.frame.grown(-3.0)
    return Rect(0, 0, layout.width, layout.height).grown(-10.0)


def _title(title: str, room: Rect) -> Iterator[Lines]:
    for size, lines in broken(title, TITLE_SIZES, room.width, bold=True):
        mm = size * MM_PER_POINT
        yield tuple(
            Text(line, room.x, room.y + (ASCENT + i * LEADING) * mm, size, bold=True) for i, line in enumerate(lines)
        )


def _small_print(form: Form, layout: Layout, room: Rect) -> Iterator[Lines]:
    code = "-".join(f"{number:03d}" for number in layout.code)
    for size, lines in broken(f"{form.id} version\u00a0{form.version} {code}", SMALL_SIZES, room.width):
        mm = size * MM_PER_POINT
        last = room.bottom - DESCENT * mm
        yield tuple(Text(line, room.x, last - i * LEADING * mm, size) for i, line in enumerate(reversed(lines)))


def _put_labels(sheet: Sheet, layout: Layout) -> None:
    # A label may run to the right until another one begins, the wider the less there is.
    labels = [(place, label) for place in layout.places if (label := _label(place))]
    starts = [_start(place) for place, _ in labels]
    for i, (place, label) in enumerate(labels):
        if not sheet.put_first(_labels(label, place), starts[i + 1 :]):
            where = "on its right" if isinstance(place.field, CheckboxField) else "above it"
            raise FormError(
                f"the label of the field {place.field.name!r} does not fit, not even in letters of "
                f"{SMALLEST:g} pt: shorten it, or leave more room {where}"
            )


def _label(place: Place) -> str:
    label = " ".join(place.field.label.split())
    return f"{label} *".lstrip() if place.field.required else label


def _start(place: Place) -> Rect:
    height = (ASCENT + DESCENT) * SMALLEST * MM_PER_POINT
    area = place.area
    if isinstance(place.field, CheckboxField):
        return Rect(area.right + BESIDE_MM, area.y + (area.height - height) / 2, START_MM, height)
    return Rect(area.x, area.y - TEXT_CLEAR_MM - height, START_MM, height)


def _labels(label: str, place: Place) -> Iterator[Lines]:
    """Yield ways of printing a label, few lines and large letters first."""
    area = place.area
    for size, lines in broken(label, LABEL_SIZES, None):
        mm = size * MM_PER_POINT
        height = (len(lines) - 1) * LEADING * mm
        if isinstance(place.field, CheckboxField):
            x, last = area.right + BESIDE_MM, area.y + area.height / 2 + MIDDLE * mm + height / 2
        else:  # a hair more than asked for, against rounding
            x, last = area.x, area.y - TEXT_CLEAR_MM - DESCENT * mm - 0.01
        yield tuple(Text(line, x, last - i * LEADING * mm, size) for i, line in enumerate(reversed(lines)))


def _currency(place: Place) -> Lines:
    assert isinstance(place.field, AmountField)
    size, area = LABEL, place.area
    baseline = area.y + area.height / 2 + MIDDLE * size * MM_PER_POINT
    return (Text(place.field.currency, area.right + BESIDE_MM, baseline, size),)


def _hints(place: Place, field: DateField) -> Lines:
    """Return the letters of a date's order, each below its box; below a line, in a row."""
    baseline = place.area.bottom + HINT_MM + ASCENT * HINT_SIZE * MM_PER_POINT
    if field.boxes is None:
        return (Text(" ".join(field.order), place.area.x + 1.0, baseline, HINT_SIZE, bold=True, tint=True),)
    return tuple(
        Text(
            letter,
            box.x + (box.width - width_mm(letter, HINT_SIZE, bold=True)) / 2,
            baseline,
            HINT_SIZE,
            bold=True,
            tint=True,
        )
        for letter, box in zip(field.order, place.boxes, strict=True)
    )
