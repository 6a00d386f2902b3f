"""A form's definition, YAML or JSON: what is printed, where its fields lie, what may stand in them.

The printed sheet, its preview, the reader and the review all come from this one document. Lengths in mm.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from hwr_export.errors import FormError
from hwr_export.scanner.form.fields import BoxSize, FormField
from hwr_export.spec import Strict

MAX_BYTES = 200_000
MAX_DEPTH = 12
MOST_FIELDS = 1000  # a sheet of 200 questions with four answers each has 800
_NUMBERS = ("amount", "digits")


class Page(Strict):
    """Paper, upright or lying."""

    width: float = Field(210.0, ge=50, le=1000, description="Of the paper.")
    height: float = Field(297.0, ge=50, le=1000, description="Of the paper.")


class Marks(Strict):
    """Squares in the page's four corners by which a scan is laid straight (ArUco), or none."""

    kind: Literal["aruco", "none"] = Field(
        "aruco", description="`none`: a frame is printed, and the page laid straight by its lines."
    )
    size: float = Field(10.0, ge=6, le=30, description="Side of a mark's black square.")
    margin: float = Field(9.0, ge=4, le=50, description="From the page's edges to a mark, or to the frame.")


class SumRule(Strict):
    """The parts add up to the total; an empty part counts nothing."""

    kind: Literal["sum"]
    total: str = Field(description="Name of a field of numbers.")
    parts: tuple[str, ...] = Field(min_length=2, description="Names of the fields that make it up.")


class RangeRule(Strict):
    """A number lies between two others."""

    kind: Literal["range"]
    field: str = Field(description="Name of a field of numbers.")
    least: float | None = Field(None, description="The smallest that it may be.")
    most: float | None = Field(None, description="The largest that it may be.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("give `least` or `most`")
        return self


class OrderRule(Strict):
    """One date is not after another."""

    kind: Literal["order"]
    earlier: str = Field(description="Name of a field of dates.")
    later: str = Field(description="Name of another, which is the same day or a later one.")


Rule = Annotated[SumRule | RangeRule | OrderRule, Field(discriminator="kind")]


class PrintedText(Strict):
    """Text that is printed beside the fields: a heading, what to do."""

    text: str = Field(min_length=1, max_length=1000, description="Lines end where the text has line breaks.")
    x: float = Field(ge=0, le=2000, description="Left edge.")
    y: float = Field(ge=0, le=2000, description="Upper edge of the first line.")
    size: float = Field(8.0, ge=5, le=40, description="Of the letters, in points.")
    bold: bool = Field(False, description="In heavy letters, as headings are.")
    rule: float = Field(0.0, ge=0, le=1000, description="Length of a tinted rule below it; 0 for none.")


class Form(Strict):
    """The whole document."""

    schema_: Literal[1] = Field(1, alias="schema", description="Of this document; 1 is the only one.")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Name of the form, printed on it.")
    version: int = Field(1, ge=1, le=9999, description="Raised whenever something on the sheet moves.")
    title: str = Field("", max_length=120, description="Printed at the head of the page.")
    page: Page = Field(Page(), description="The paper; else A4, upright.")
    marks: Marks = Field(Marks(), description="What is printed in the corners.")
    box: BoxSize = Field(BoxSize(), description="Of all fields that say nothing else.")
    fields: tuple[FormField, ...] = Field(
        min_length=1, max_length=MOST_FIELDS, description="What is filled in; results have it in this order."
    )
    rules: tuple[Rule, ...] = Field((), description="What holds between fields.")
    texts: tuple[PrintedText, ...] = Field((), max_length=2 * MOST_FIELDS, description="What else is printed.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        names = [field.name for field in self.fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two fields are called {twice[0]!r}: give each a name of its own")
        for rule in self.rules:
            self._fits(rule)
        return self

    def _fits(self, rule: SumRule | RangeRule | OrderRule) -> None:
        kinds = {field.name: field.kind for field in self.fields}
        named, allowed = _of_rule(rule)
        for name in named:
            if name not in kinds:
                raise ValueError(f"a rule of kind {rule.kind} names the field {name!r}, which the form does not have")
            if kinds[name] not in allowed:
                raise ValueError(
                    f"a rule of kind {rule.kind} names the field {name!r} of kind {kinds[name]}; "
                    f"it can speak of {' and '.join(allowed)}"
                )
        if len(set(named)) != len(named):
            raise ValueError(f"a rule of kind {rule.kind} names a field twice")


def form_schema() -> dict[str, Any]:
    """Return the JSON Schema of definitions."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Form.model_json_schema(by_alias=True),
    }


def load_form(path: Path) -> Form:
    """Read and check a definition.

    Raises:
        FormError: missing, too large, neither YAML nor JSON, not as the schema says, or boxes overlap or lie outside.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise FormError(f"{path} cannot be read: {err.strerror}; give a form's definition, YAML or JSON") from err
    if len(data) > MAX_BYTES:
        raise FormError(f"{path} is larger than {MAX_BYTES:,} bytes, which no form's definition is")
    return parse_form(data, str(path))


def parse_form(data: bytes, name: str) -> Form:
    """Return a definition out of its bytes; errors call it `name`.

    Raises:
        FormError: as `load_form`.
    """
    from hwr_export.scanner.form.layout import lay_out

    try:
        form = Form.model_validate(_parsed(data))
        lay_out(form)
    except ValidationError as err:
        raise FormError(f"{name}: {_said(err)}") from err
    except FormError as err:
        raise FormError(f"{name}: {err}") from err
    return form


def dump_form(form: Form) -> str:
    """Return a definition as YAML, without what it does not have to say."""
    document = form.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text: str = yaml.safe_dump({"schema": 1, **document}, sort_keys=False, allow_unicode=True, width=120)
    return text


def _parsed(data: bytes) -> Any:
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            return json.loads(text)
        _check_shape(text)
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as err:
        raise FormError(f"it is neither YAML nor JSON: {str(err).splitlines()[0][:200]}") from err


def _check_shape(text: str) -> None:
    """Refuse what takes a YAML reader down: the C reader descends without a limit of its own."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise FormError("it refers to a part of itself (`*name`); write the part out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise FormError(f"it is more than {MAX_DEPTH} levels deep, which no form's definition is")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _said(err: ValidationError) -> str:
    first = err.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"]) or "document"
    if first["type"] == "extra_forbidden":
        return f"{where} is no key; docs/forms.md lists them"
    return f"{where}: {first['msg'].removeprefix('Value error, ')[:400]}"


def _of_rule(rule: SumRule | RangeRule | OrderRule) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the fields that a rule names, and the kinds that they may have."""
    if isinstance(rule, SumRule):
        return (rule.total, *rule.parts), _NUMBERS
    if isinstance(rule, RangeRule):
        return (rule.field,), _NUMBERS
    return (rule.earlier, rule.later), ("date",)
