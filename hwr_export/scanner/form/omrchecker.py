"""OMRChecker's `template.json` -> a form's definition, and a list of what did not map.

A bubble becomes a checkbox where it lies; a column of digits, which one bubble of ten tells, becomes one box for a
handwritten digit, and columns that the template joins become one field. What labelled the bubbles is printed anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwr_export.errors import FormError
from hwr_export.labels import DIGITS
from hwr_export.scanner.form.definition import MOST_FIELDS, Form, PrintedText, dump_form, parse_form
from hwr_export.scanner.form.font import ASCENT, DESCENT, MM_PER_POINT, width_mm
from hwr_export.scanner.form.layout import TEXT_CLEAR_MM, lay_out
from hwr_export.scanner.form.omrchecker_template import (
    EMPTY,
    Notes,
    Question,
    Template,
    expanded,
    questions_of,
    read_template,
)
from hwr_export.scanner.form.printed import LABEL_SIZES, Sheet, compose, lines_of
from hwr_export.spec import first_problem

DIGIT_WIDTH_MM, DIGIT_HEIGHT_MM = 5.0, 7.0
LEAST_MM = 2.5  # side of a box
APART_MM = 0.9  # between boxes
BORDERS_MM = (0.0, 6.0, 12.0, 18.0, 24.0, 30.0)  # white around the template, until the marks have room
LAID_STRAIGHT = ("Crop", "Align", "Rotate", "Warp")  # words in the names of steps that do so

Group = tuple[str, list[Question]]  # a field of digits by its name, or one question


@dataclass(frozen=True)
class Unmapped:
    """Something of the template that the form does not have as it was: where it stands, and what became of it."""

    where: str
    what: str


@dataclass(frozen=True)
class Imported:
    form: Form
    unmapped: tuple[Unmapped, ...]


def import_template(path: Path, form_id: str, page_width: float = 210.0) -> Imported:
    """Return the form of a template's file.

    Args:
        path: of `template.json`.
        form_id: the form's id is this name, in small letters.
        page_width: of the paper, mm; the template's page is fitted into it.

    Raises:
        FormError: no template, or one that leaves no room to write in.
    """
    template = read_template(path)
    form_id = re.sub(r"[^a-z0-9]+", "-", form_id.lower()).strip("-")[:40] or "form"
    notes = Notes()
    try:
        questions = questions_of(template, notes)
        _tell(template, questions, notes)
        groups = _grouped(template, questions, notes)
        form = _fitted(template, groups, form_id, page_width, notes)
        parse_form(dump_form(form).encode(), "its form")
    except FormError as err:
        raise FormError(f"{path}: {err}") from err
    return Imported(form, tuple(Unmapped(", ".join(places), what) for what, places in notes.found.items()))


def _tell(template: Template, questions: list[Question], notes: Notes) -> None:
    """Note what holds for the template as a whole."""
    for q in questions:
        if q.is_digit:
            what = "columns of bubbles that tell a digit are boxes in which the digit is written"
        else:
            what = "each bubble is a checkbox with a result of its own; that only one is ticked is not checked"
        notes.add(f"fieldBlocks.{q.block}", what)
    for step in template.steps:
        name = str(step.get("name"))[:60]
        straight = any(word in name for word in LAID_STRAIGHT)
        what = "pages are laid straight by the form's own marks" if straight else "pages are read as they are scanned"
        notes.add(f"preProcessors.{name}", f"left out: {what}")
    if template.empty:
        notes.add("emptyValue", EMPTY)
    for key in sorted(template.model_extra or {}):
        notes.add(key, "left out: it has no counterpart")


def _grouped(template: Template, questions: list[Question], notes: Notes) -> list[Group]:
    """Return what becomes of the questions in the order of results; joined columns of digits are one group."""
    by_label = {q.label: q for q in questions}
    groups: list[Group] = []
    for name, labels_of in template.joined.items():
        runs: list[list[Question]] = []
        for label in (label for text in labels_of for label in expanded(text)):
            if (q := by_label.pop(label, None)) is None:
                notes.add(f"customLabels.{name}", f"the label {label!r} is not there, or is joined to others already")
            elif runs and _follows(runs[-1], q):
                runs[-1].append(q)
            else:
                runs.append([q])
        whole = len(runs) == 1 and runs[0][0].is_digit
        named = [(name if whole else "-".join(dict.fromkeys((run[0].label, run[-1].label))), run) for run in runs]
        groups += named
        if not whole:
            parts = ", ".join(part for part, _ in named) or "nothing"
            notes.add(f"customLabels.{name}", f"not joined: {parts} stand by themselves")
    groups += [(q.label, [q]) for q in by_label.values()]
    order = template.columns if isinstance(template.columns, tuple) else template.columns.get("customOrder", ())
    columns = [label for text in order for label in expanded(str(text))]
    ranks = {label: i for i, label in reversed(list(enumerate(columns)))}
    places = {q.label: i for i, q in enumerate(questions)}
    groups.sort(key=lambda group: (ranks.get(group[0], len(ranks)), places[group[1][0].label]))
    if ranks and any(name not in ranks for name, _ in groups):
        notes.add("outputColumns", "these come first, in their order; results have the other fields as well")
    return groups


def _follows(run: list[Question], q: Question) -> bool:
    """Tell whether a column of digits stands where the next box of a row would."""
    last = run[-1]
    if not (q.is_digit and q.vertical and last.vertical and q.block == last.block and q.values == last.values):
        return False
    step = run[1].x - run[0].x if len(run) > 1 else q.x - last.x
    return step > 0 and abs(q.x - last.x - step) < 0.01 * step and len(run) < 64


def _fitted(template: Template, groups: list[Group], form_id: str, page_width: float, notes: Notes) -> Form:
    """Return the form, with as little white around the template as leaves the marks and the small print their room."""
    count = sum(1 if run[0].is_digit else len(run[0].values) for _, run in groups)
    if count > MOST_FIELDS:
        raise FormError(f"it would have {count:,} fields; a form has {MOST_FIELDS:,} at most")
    refused: FormError | None = None
    for border in BORDERS_MM:
        page = _Page(template, page_width, border)
        try:
            form = page.form(form_id, groups)
            break
        except FormError as err:
            refused = refused or err
    else:
        assert refused is not None
        raise refused
    if border:
        notes.add("pageDimensions", f"made smaller, for {border:g} mm of white around it in which the marks stand")
    return _labelled(form, page, groups, notes)


class _Page:
    """The template's page on the paper: pixels -> mm."""

    def __init__(self, template: Template, width: float, border: float) -> None:
        self.width, self.border = width, border
        self.scale = (width - 2 * border) / template.page[0]
        self.height = round(template.page[1] * self.scale + 2 * border, 1)
        if not 50 <= self.height <= 1000:
            raise FormError(
                f"on paper {width:g} mm wide the template's page of {template.page[0]:g} x {template.page[1]:g} pixels "
                f"would be {self.height:g} mm high; sheets are 50 to 1,000 mm"
            )

    def form(self, form_id: str, groups: list[Group]) -> Form:
        fields: list[dict[str, Any]] = []
        names: set[str] = set()
        for name, run in groups:
            fields += [self.digits(name, run)] if run[0].is_digit else self.checkboxes(run[0])
        for field in fields:
            field["name"] = _free_name(field["name"], names)
            names.add(field["name"])
        page = {"width": self.width, "height": self.height}
        try:
            form = Form.model_validate({"schema": 1, "id": form_id, "page": page, "fields": fields})
        except ValidationError as err:
            raise FormError(first_problem(err)) from err
        compose(form, lay_out(form))
        return form

    def mm(self, x: float, y: float) -> tuple[float, float]:
        return self.border + x * self.scale, self.border + y * self.scale

    def size(self, q: Question, room: float) -> float:
        """Return a box's side, mm, which leaves the boxes around it their distance."""
        side = min([room, *(gap * self.scale - APART_MM for gap in (q.gap, q.pitch) if gap)])
        if side < LEAST_MM:
            raise FormError(
                f"the bubbles of {q.label!r} lie so near to each other that boxes would be {side:.1f} mm wide, "
                f"and {LEAST_MM:g} mm is the least; give a larger --page-width"
            )
        return side

    def digits(self, name: str, run: list[Question]) -> dict[str, Any]:
        q = run[0]
        pitch = (run[1].x - q.x) * self.scale if len(run) > 1 else 0.0
        if q.vertical:
            width = min(DIGIT_WIDTH_MM, (pitch or q.pitch * self.scale or 2 * DIGIT_WIDTH_MM) - APART_MM)
            column = ((len(q.values) - 1) * q.gap + q.bubble[1]) * self.scale
            height = min(DIGIT_HEIGHT_MM, max(column, LEAST_MM))
        else:
            width = DIGIT_WIDTH_MM
            height = min(DIGIT_HEIGHT_MM, (q.pitch * self.scale or 2 * DIGIT_HEIGHT_MM) - APART_MM)
        if min(width, height) < LEAST_MM:
            raise FormError(
                f"the columns of {q.label!r} leave no room to write in: {min(width, height):.1f} mm, and "
                f"{LEAST_MM:g} mm is the least; give a larger --page-width"
            )
        x, y = self.mm(q.x, q.y)
        x = max(0.0, x + (q.bubble[0] * self.scale - width) / 2)
        box = {"width": _mm(width), "height": _mm(height), "pitch": _mm(max(pitch, width))}
        allowed = {} if len(q.values) == len(DIGITS) else {"characters": "".join(dict.fromkeys(q.values))}
        place = {"x": _mm(x), "y": _mm(y), "boxes": len(run), "box": box}
        return {"kind": "digits", "name": name, **place, **allowed}

    def checkboxes(self, q: Question) -> list[dict[str, Any]]:
        size = self.size(q, min(q.bubble) * self.scale)
        return [
            {
                "kind": "checkbox",
                "name": f"{q.label}_{value}",
                "x": _mm(x - size / 2),
                "y": _mm(y - size / 2),
                "size": _mm(size),
            }
            for value, (x, y) in self.middles(q)
        ]

    def middles(self, q: Question) -> Iterator[tuple[str, tuple[float, float]]]:
        """Yield values with the middles of their bubbles, mm."""
        for i, value in enumerate(q.values):
            at = i * q.gap
            x, y = (q.x, q.y + at) if q.vertical else (q.x + at, q.y)
            yield value, self.mm(x + q.bubble[0] / 2, y + q.bubble[1] / 2)


def _labelled(form: Form, page: _Page, groups: list[Group], notes: Notes) -> Form:
    """Return the form with the names of its fields and of the values printed beside them, where there is room."""
    sheet = Sheet(lay_out(form))
    sheet.put(compose(form, lay_out(form)).texts)
    printed: list[PrintedText] = []
    unprinted: dict[str, list[str]] = {}

    def put(q: Question, text: str, ways: Iterator[PrintedText]) -> None:
        try:
            printed.append(next(way for way in ways if sheet.put(lines_of(way))))
        except (StopIteration, FormError):  # no room, or not in the font
            unprinted.setdefault(q.block, []).append(text)

    for name, run in groups:
        q = run[0]
        side = page.size(q, min(q.bubble) * page.scale) if not q.is_digit else DIGIT_WIDTH_MM
        half = side / 2
        middles = list(page.middles(q))
        (x, y) = middles[0][1]
        if q.is_digit:
            put(q, name, _above(name, x - half, y - page.scale * q.bubble[1] / 2))
        elif q.vertical:
            put(q, q.label, _above(q.label, x - half, y - half))
        else:
            put(q, q.label, _left_of(q.label, x - half, y))
        if q.is_digit or not q.first:
            continue
        for value, (x, y) in middles:
            put(q, value, _left_of(value, x - half, y) if q.vertical else _above(value, x, y - half, centred=True))
    for block, missing in unprinted.items():
        shown = ", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        notes.add(f"fieldBlocks.{block}", f"there is no room to print {shown}")
    return form.model_copy(update={"texts": tuple(printed)})


def _above(text: str, x: float, y: float, centred: bool = False) -> Iterator[PrintedText]:
    for size in chain(*LABEL_SIZES):
        left = x - width_mm(text, size) / 2 if centred else x
        yield PrintedText(
            text=text, x=_mm(max(0.0, left)), y=_mm(max(0.0, y - TEXT_CLEAR_MM - 0.02 - _height(size))), size=size
        )


def _left_of(text: str, x: float, y: float) -> Iterator[PrintedText]:
    for size in chain(*LABEL_SIZES):
        left = x - TEXT_CLEAR_MM - 0.02 - width_mm(text, size)
        yield PrintedText(text=text, x=_mm(max(0.0, left)), y=_mm(max(0.0, y - _height(size) / 2)), size=size)


def _height(size: float) -> float:
    return (ASCENT + DESCENT) * size * MM_PER_POINT


def _free_name(wanted: str, names: set[str]) -> str:
    """Return a field's name that is allowed and not given yet."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)[:60]
    name = name if re.match("[A-Za-z]", name) else f"f{name}"[:60]
    number = 2
    free = name
    while free in names:
        free, number = f"{name}_{number}", number + 1
    return free


def _mm(value: float) -> float:
    return round(value, 2)
