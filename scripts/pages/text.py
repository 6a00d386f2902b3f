"""A form -> values that may stand in its fields, drawn uniformly: days exist, sums add up, check digits are right.

Values are as results have them (`hwr_export.scanner.form.decode.value_of`); an empty field has the value "".
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from hwr_export.errors import FormError
from hwr_export.labels import DIGITS
from hwr_export.scanner.form.checks import CHECK_LENGTH, IBAN_LENGTHS, complete, complete_iban
from hwr_export.scanner.form.decode import text_of, value_of
from hwr_export.scanner.form.definition import Form, SumRule
from hwr_export.scanner.form.fields import (
    MOD11_LONGEST,
    AmountField,
    CardField,
    CheckboxField,
    DateField,
    FormField,
    IbanField,
    IdField,
    PhoneField,
    WrittenField,
)
from hwr_export.scanner.form.grammar import CARD_LENGTHS
from hwr_export.scanner.form.rules import fields_of, keeps

TRIES = 3000  # to draw values that keep the rules
WRITABLE_TRIES = 60  # valid draws, among which one is looked for that the writer has all characters of
CHARACTER_MM = 5.5  # of a line, that a character takes
MOST_ON_A_LINE = 12
TICKED = "yes", "no"

Rng = np.random.Generator


@dataclass(frozen=True)
class Habits:
    """How a page is filled in."""

    empty: float = 0.06  # share of optional fields that are left empty
    short: float = 0.3  # share of pages on which fields of free length are not filled to the end


def draw_values(
    form: Form, rng: Rng, writable: Callable[[WrittenField, str], bool] | None = None, habits: Habits | None = None
) -> dict[str, str]:
    """Return a value for every field, in the form's order.

    Args:
        writable: tells whether the writer has the characters of a text; values of which he has all are preferred.

    Raises:
        FormError: no values were found that keep the rules.
    """
    habits = habits or Habits()
    fields = {field.name: field for field in form.fields}
    short = bool(rng.random() < habits.short)
    values: dict[str, str] = {}
    for names in _joined(form):
        values |= _group(form, {name: fields[name] for name in names}, rng, writable, habits.empty, short)
    return {name: values[name] for name in fields}


def room(field: WrittenField) -> int:
    """Return how many characters a field takes."""
    return field.boxes or max(1, min(MOST_ON_A_LINE, int((field.line or 0) / CHARACTER_MM)))


def _joined(form: Form) -> list[list[str]]:
    """Return the fields' names in groups that rules join."""
    groups = [[field.name] for field in form.fields]
    for rule in form.rules:
        named = set(fields_of(rule))
        together = [name for group in groups if named & set(group) for name in group]
        groups = [*(group for group in groups if not named & set(group)), together]
    return groups


def _group(
    form: Form,
    fields: dict[str, FormField],
    rng: Rng,
    writable: Callable[[WrittenField, str], bool] | None,
    empty: float,
    short: bool,
) -> dict[str, str]:
    rules = [rule for rule in form.rules if fields_of(rule)[0] in fields]
    first: dict[str, str] | None = None
    valid = 0
    left: set[str] = set()
    for attempt in range(TRIES):
        if not valid and attempt % (TRIES // 10) == 0:
            # Not with every draw: texts that the writer cannot write would make empty fields likelier.
            optional = {n for n, f in fields.items() if not f.required and not isinstance(f, CheckboxField)}
            left = {name for name in fields if name in optional and rng.random() < empty}
        values: dict[str, str | None] = {
            name: "" if name in left else _value(field, rng, short) for name, field in fields.items()
        }
        for rule in rules:
            if isinstance(rule, SumRule):
                values[rule.total] = _total(fields[rule.total], [values[part] for part in rule.parts])
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) < len(values) or not all(keeps(rule, known) for rule in rules):
            continue
        first = first or known
        valid += 1
        if writable is None or all(
            writable(field, text_of(field, known[name]))
            for name, field in fields.items()
            if not isinstance(field, CheckboxField)
        ):
            return known
        if valid >= WRITABLE_TRIES:
            break
    if first is None:
        raise FormError(
            f"{TRIES:,} draws gave no values for {', '.join(fields)} that may stand there together; "
            "widen the fields or their rules"
        )
    return first


def _value(field: FormField, rng: Rng, short: bool) -> str | None:
    """Return a value, None where the draw gave none that may stand there."""
    if isinstance(field, CheckboxField):
        return TICKED[int(rng.integers(2))]
    text = _text(field, rng, short)
    if text is None or not set(text) <= set(field.alphabet):
        return None
    return value_of(field, text)


def _text(field: WrittenField, rng: Rng, short: bool) -> str | None:
    most = room(field)
    if isinstance(field, DateField):
        days = (field.last - field.first).days
        day = field.first + dt.timedelta(days=int(rng.integers(days + 1)))
        return text_of(field, day.isoformat()) if len(field.order) <= most else None
    if isinstance(field, IdField):
        most = min(most, MOD11_LONGEST) if field.check == "mod11" else most
        length = most - CHECK_LENGTH.get(field.check, 1)
        return complete(field.check, _digits(length, rng)) if length > 0 else None
    if isinstance(field, CardField):
        lengths = [n for n in CARD_LENGTHS if n <= most]
        return complete("luhn", _digits(int(rng.choice(lengths)) - 1, rng)) if lengths else None
    if isinstance(field, IbanField):
        countries = [c for c in field.countries or IBAN_LENGTHS if IBAN_LENGTHS.get(c, 99) <= most]
        if not countries:
            return None
        country = str(rng.choice(countries))
        return complete_iban(country, _digits(IBAN_LENGTHS[country] - 4, rng))
    if isinstance(field, AmountField):
        least = field.decimals + 1
        if least > most:
            return None
        length = int(rng.integers(least, most + 1))
        text = _digits(length, rng)
        # Nobody writes zeros in front of an amount.
        return text if length == least or text[0] != "0" else str(rng.integers(1, 10)) + text[1:]
    if isinstance(field, PhoneField):
        if field.at_least > most:
            return None
        return "0" + _digits(int(rng.integers(max(field.at_least, most - 3), most + 1)) - 1, rng)
    length = int(rng.integers(1, most + 1)) if short else most
    return "".join(rng.choice(list(field.alphabet), length))


def _digits(length: int, rng: Rng) -> str:
    return "".join(rng.choice(list(DIGITS), length))


def _total(field: FormField, parts: list[str | None]) -> str | None:
    """Return the sum as the field has it, None where it does not fit."""
    if any(part is None for part in parts) or isinstance(field, CheckboxField):
        return None
    if not any(parts):
        return "" if not field.required else None
    decimals = field.decimals if isinstance(field, AmountField) else 0
    total = sum(Decimal(part or "0") for part in parts)
    value = f"{total:.{decimals}f}"
    fits = (
        Decimal(value) == total
        and len(text_of(field, value)) <= room(field)
        and set(text_of(field, value)) <= set(field.alphabet)
    )
    return value if fits else None
