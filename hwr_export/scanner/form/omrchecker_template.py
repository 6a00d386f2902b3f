"""OMRChecker's `template.json`, in its released and its newer spelling -> questions with their bubbles, in pixels.

Untrusted: sizes and numbers are bounded, and what is not understood is noted, never guessed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from hwr_export.errors import FormError
from hwr_export.labels import DIGITS
from hwr_export.scanner.form.definition import MAX_BYTES, MOST_FIELDS
from hwr_export.spec import first_problem

Direction = Literal["horizontal", "vertical"]
KINDS: dict[str, tuple[tuple[str, ...], Direction]] = {
    "QTYPE_INT": (tuple(DIGITS), "vertical"),
    "QTYPE_INT_FROM_1": (tuple(DIGITS[1:] + DIGITS[0]), "vertical"),
    "QTYPE_MCQ4": (tuple("ABCD"), "horizontal"),
    "QTYPE_MCQ5": (tuple("ABCDE"), "horizontal"),
    "QTYPE_MCQ4_RTL": (tuple("DCBA"), "horizontal"),
    "QTYPE_MCQ5_RTL": (tuple("EDCBA"), "horizontal"),
}
EMPTY = 'left out: a field in which nothing is written has the value ""'
_RANGE = re.compile(r"([^.\d]+)(\d{1,6})\.{2,3}(\d{1,6})")
Positive = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Label = Annotated[str, Field(min_length=1, max_length=100)]
Size = tuple[Annotated[Positive, Field(ge=1)], Annotated[Positive, Field(ge=1)]]


class Loose(BaseModel):
    """Keys that are not known are kept, to be told."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class Kind(Loose):
    values: tuple[Label, ...] = Field(alias="bubbleValues", min_length=1, max_length=100)
    direction: Direction


class Block(Loose):
    origin: tuple[Positive, Positive]
    bubbles_gap: Positive = Field(alias="bubblesGap")
    labels_gap: Positive | tuple[Positive, ...] = Field(alias="labelsGap")
    labels: tuple[Label, ...] = Field(alias="fieldLabels", min_length=1)
    kind: str | None = Field(None, validation_alias=AliasChoices("fieldType", "bubbleFieldType"))
    values: tuple[Label, ...] | None = Field(None, alias="bubbleValues", min_length=1, max_length=100)
    direction: Direction | None = None
    bubble: Size | None = Field(None, alias="bubbleDimensions")
    empty: str | None = Field(None, alias="emptyValue")
    detection: str = Field("", alias="fieldDetectionType")


class Template(Loose):
    page: Size = Field(validation_alias=AliasChoices("pageDimensions", "templateDimensions"))
    bubble: Size = Field(alias="bubbleDimensions")
    # Blocks are looked at one by one: one that is of another kind is told, and the others are taken.
    blocks: dict[str, dict[str, Any]] = Field(alias="fieldBlocks", min_length=1)
    joined: dict[Label, tuple[Label, ...]] = Field({}, alias="customLabels")
    kinds: dict[str, Kind] = Field({}, alias="customBubbleFieldTypes")
    steps: tuple[dict[str, Any], ...] = Field((), alias="preProcessors")
    columns: tuple[Label, ...] | dict[str, Any] = Field((), alias="outputColumns")
    empty: str = Field("", alias="emptyValue")
    offset: tuple[float, float] = Field((0.0, 0.0), alias="fieldBlocksOffset")


@dataclass(frozen=True)
class Question:
    """One label of a block with its bubbles, in pixels of the template's page."""

    label: str
    block: str
    values: tuple[str, ...]
    vertical: bool  # its bubbles stand one below the other
    x: float  # left edge of the first bubble
    y: float  # its upper edge
    gap: float  # from bubble to bubble
    pitch: float  # to the nearest other label of the block, 0 without one
    bubble: tuple[float, float]
    first: bool  # of its block

    @property
    def is_digit(self) -> bool:
        return len(self.values) > 1 and all(len(value) == 1 and value in DIGITS for value in self.values)


@dataclass
class Notes:
    """What is to be told; what holds for many places is said once."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, where: str, what: str) -> None:
        places = self.found.setdefault(what, [])
        if where not in places:
            places.append(where)

    def copy(self) -> "Notes":
        return Notes({what: list(places) for what, places in self.found.items()})


def read_template(path: Path) -> Template:
    """Return what a file says.

    Raises:
        FormError: missing, too large, no JSON, or no template.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise FormError(f"{path} cannot be read: {err.strerror}; give OMRChecker's template.json") from err
    if len(data) > MAX_BYTES:
        raise FormError(f"{path} is larger than {MAX_BYTES:,} bytes, which no template is")
    try:
        return Template.model_validate(json.loads(data))
    except ValidationError as err:
        raise FormError(f"{path} is no template of OMRChecker: {first_problem(err)}") from err
    except (ValueError, RecursionError) as err:
        raise FormError(f"{path} is no JSON: {str(err)[:200]}") from err


def questions_of(template: Template, notes: Notes) -> list[Question]:
    """Return all questions, block by block.

    Raises:
        FormError: there are none, or too many.
    """
    found: dict[str, Question] = {}
    for name, raw in template.blocks.items():
        for question in _questions(template, name, raw, notes):
            if question.label in found:
                notes.add(f"fieldBlocks.{name}", f"the label {question.label!r} is left out, since it is there already")
            found.setdefault(question.label, question)
            if len(found) > MOST_FIELDS:
                raise FormError(f"it has more than {MOST_FIELDS:,} labels, which do not fit a page")
    if not found:
        raise FormError(f"no block of bubbles is in it that can be taken: {'; '.join(notes.found)}")
    return list(found.values())


def expanded(text: str) -> list[str]:
    """Return the labels that a text stands for: `q1..3` is q1, q2, q3.

    Raises:
        FormError: it stands for none, or for too many.
    """
    if not (found := _RANGE.fullmatch(text)):
        return [text]
    first, last = int(found[2]), int(found[3])
    if not first <= last < first + MOST_FIELDS:
        raise FormError(f"the labels {text!r} are none, or more than {MOST_FIELDS:,}")
    return [f"{found[1]}{number}" for number in range(first, last + 1)]


def _questions(template: Template, name: str, raw: dict[str, Any], notes: Notes) -> Iterator[Question]:
    """Yield a block's questions; what is no block of bubbles is noted."""
    where = f"fieldBlocks.{name}"
    detection = raw.get("fieldDetectionType", "BUBBLES_THRESHOLD")
    if detection != "BUBBLES_THRESHOLD":
        notes.add(where, f"left out: blocks of the kind {detection} are not imported")
        return
    try:
        block = Block.model_validate(raw)
    except ValidationError as err:
        notes.add(where, f"left out: {first_problem(err)}")
        return
    if block.kind in template.kinds:
        values, direction = template.kinds[block.kind].values, template.kinds[block.kind].direction
    elif block.kind in KINDS:
        values, direction = KINDS[block.kind]
    elif block.values and block.direction:
        values, direction = block.values, block.direction
    else:
        notes.add(where, f"left out: its kind {block.kind!r} is not known; give bubbleValues and direction instead")
        return
    for key in sorted(block.model_extra or {}):
        notes.add(f"{where}.{key}", "left out: the key is not known")
    if block.empty:
        notes.add(f"{where}.emptyValue", EMPTY)
    labels = [label for text in block.labels for label in expanded(text)]
    gaps = list(block.labels_gap) if isinstance(block.labels_gap, tuple) else [block.labels_gap] * len(labels)
    gaps = [*gaps, *[0.0] * len(labels)][: len(labels) - 1]
    x, y = block.origin[0] + template.offset[0], block.origin[1] + template.offset[1]
    vertical = direction == "vertical"
    for i, label in enumerate(labels):
        pitch = min(filter(None, gaps[max(0, i - 1) : i + 1]), default=0.0)
        size = block.bubble or template.bubble
        yield Question(label, name, values, vertical, x, y, block.bubbles_gap, pitch, size, i == 0)
        if i < len(gaps):
            x, y = (x + gaps[i], y) if vertical else (x, y + gaps[i])
