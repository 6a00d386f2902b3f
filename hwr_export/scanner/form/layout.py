"""A form's definition -> where everything on the sheet lies, in mm from the page's top left corner.

One place for the sheet's geometry: what prints it, what fills it and what reads it ask here.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import BoxSize, CheckboxField, FormField

CORNERS = ("top left", "top right", "bottom right", "bottom left")
CODE_VALUES = 250  # of a corner; ArUco's dictionaries of 1,000 marks hold four corners of them
QUIET_MODULES = 1.0  # white around a mark, in its own modules
MARK_MODULES = 7  # of a mark's side in DICT_5X5_1000: five and a black border
NEIGHBOUR_MM = 0.8  # the least distance between boxes of different fields
TEXT_CLEAR_MM = 1.2  # no black is printed nearer to a box; hints, which are tinted, may be
FRAME_MM = 0.6  # width of the frame's rule


@dataclass(frozen=True)
class Rect:
    """Upright rectangle in mm."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """Float64 (4, 2), clockwise from the top left."""
        return np.array(
            [[self.x, self.y], [self.right, self.y], [self.right, self.bottom], [self.x, self.bottom]], dtype=np.float64
        )

    def grown(self, by: float) -> "Rect":
        """Return it with `by` mm more on every side."""
        return Rect(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def contains(self, other: "Rect") -> bool:
        across = self.x <= other.x and other.right <= self.right
        return across and self.y <= other.y and other.bottom <= self.bottom

    def overlaps(self, other: "Rect") -> bool:
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom


@dataclass(frozen=True)
class Mark:
    """A square that is found on the scan: its number in DICT_5X5_1000, and its black square."""

    id: int
    corner: int  # index in CORNERS
    rect: Rect


@dataclass(frozen=True)
class Place:
    """A field on the sheet: its boxes in reading order (one for a line or a checkbox) and what they take together."""

    field: FormField
    boxes: tuple[Rect, ...]
    area: Rect


@dataclass(frozen=True)
class Layout:
    """The whole sheet."""

    width: float
    height: float
    marks: tuple[Mark, ...]  # four, in the order of CORNERS, or none
    places: tuple[Place, ...]  # in the order of the form's fields
    code: tuple[int, int, int, int]
    form: str  # its id
    version: int
    # Middle of the black rule that a sheet without marks has around it, where all of its fields lie within. A help, not
    # a promise: of a form that others printed, the boxes alone are sure.
    frame: Rect | None = None


def lay_out(form: Form) -> Layout:
    """Return where everything lies.

    Raises:
        FormError: something lies outside of the page, or on something else.
    """
    code = form_code(form)
    marks = _marks(form, code) if form.marks.kind == "aruco" else ()
    places = tuple(_place(field, form.box) for field in form.fields)
    _check(form, marks, places)
    frame = None if marks else _frame(form, places)
    return Layout(form.page.width, form.page.height, marks, places, code, form.id, form.version, frame)


def form_code(form: Form) -> tuple[int, int, int, int]:
    """Return the numbers in the four corners that tell a form and its version: any three of them give the fourth."""
    return code_of(form.id, form.version)


def code_of(form: str, version: int) -> tuple[int, int, int, int]:
    """Return `form_code` of the form that has an id."""
    digest = hashlib.sha256(f"{form} {version}".encode()).digest()
    first, second, third = (int.from_bytes(digest[4 * i : 4 * i + 4], "big") % CODE_VALUES for i in range(3))
    return first, second, third, -(first + second + third) % CODE_VALUES


def _marks(form: Form, code: tuple[int, int, int, int]) -> tuple[Mark, ...]:
    size, margin = form.marks.size, form.marks.margin
    right, bottom = form.page.width - margin - size, form.page.height - margin - size
    if right < margin + 2 * size or bottom < margin + 2 * size:
        raise FormError(f"marks of {size:g} mm do not fit a page of {form.page.width:g} x {form.page.height:g} mm")
    at = ((margin, margin), (right, margin), (right, bottom), (margin, bottom))
    return tuple(Mark(4 * code[i] + i, i, Rect(x, y, size, size)) for i, (x, y) in enumerate(at))


def quiet_mm(size: float) -> float:
    """Return the white that a mark's side of `size` mm wants around it."""
    return size / MARK_MODULES * QUIET_MODULES


def _frame(form: Form, places: tuple[Place, ...]) -> Rect | None:
    frame = Rect(0, 0, form.page.width, form.page.height).grown(-form.marks.margin)
    inside = frame.grown(-FRAME_MM / 2 - TEXT_CLEAR_MM)
    return frame if all(inside.contains(place.area) for place in places) else None


def _place(field: FormField, usual: BoxSize) -> Place:
    if isinstance(field, CheckboxField):
        box = Rect(field.x, field.y, field.size, field.size)
        return Place(field, (box,), box)
    size = field.box or usual
    if field.boxes is None:
        line = Rect(field.x, field.y, float(field.line or 0.0), size.height)
        return Place(field, (line,), line)
    boxes = tuple(
        Rect(field.x + x, field.y, size.width, size.height) for x in _offsets(field.boxes, field.groups, size)
    )
    return Place(field, boxes, Rect(field.x, field.y, boxes[-1].right - field.x, size.height))


def _offsets(count: int, groups: tuple[int, ...], size: BoxSize) -> list[float]:
    starts = {sum(groups[: i + 1]) for i in range(len(groups) - 1)}
    gaps = [size.width / 2 if i in starts else 0.0 for i in range(count)]
    return [i * size.pitch + sum(gaps[: i + 1]) for i in range(count)]


def _check(form: Form, marks: tuple[Mark, ...], places: tuple[Place, ...]) -> None:
    page = form.page
    for place in places:
        area = place.area
        if area.right > page.width or area.bottom > page.height:
            raise FormError(
                f"the field {place.field.name!r} reaches to ({area.right:g}, {area.bottom:g}) mm, "
                f"beyond the page of {page.width:g} x {page.height:g} mm"
            )
        for mark in marks:
            if area.overlaps(mark.rect.grown(quiet_mm(form.marks.size))):
                raise FormError(
                    f"the field {place.field.name!r} lies on the {CORNERS[mark.corner]} mark or the white around it"
                )
    # Sorted from the top, only fields that begin before one ends can lie on it.
    ordered = sorted(places, key=lambda place: place.area.y)
    for i, place in enumerate(ordered):
        grown = place.area.grown(NEIGHBOUR_MM)
        for other in ordered[i + 1 :]:
            if other.area.y >= grown.bottom:
                break
            if grown.overlaps(other.area):
                raise FormError(
                    f"the fields {place.field.name!r} and {other.field.name!r} are less than {NEIGHBOUR_MM:g} mm apart"
                )
