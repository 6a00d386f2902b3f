"""A field and what a person wrote for it -> the value, and what speaks against it, in words for that person.

Valid is what `decode` would call a valid text: the same alphabets, check digits, calendars and cross-field rules.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hwr_export.scanner.form.checks import CHECK_LENGTH, IBAN_LENGTHS, valid, valid_card, valid_iban
from hwr_export.scanner.form.decode import text_of, value_of
from hwr_export.scanner.form.definition import Form, RangeRule, Rule, SumRule
from hwr_export.scanner.form.fields import (
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
from hwr_export.scanner.form.grammar import parts_of
from hwr_export.scanner.form.rules import fields_of, keeps

YES, NO = "yes", "no"
_PARTS = {"YYYY": "year", "YY": "year in two digits", "MM": "month", "DD": "day"}


@dataclass(frozen=True)
class Judged:
    """What was written, as results have it, and why it may not stand there; no reason where it may."""

    value: str
    problems: tuple[str, ...] = ()


def judge(field: FormField, written: str) -> Judged:
    """Judge what stands in a field's boxes by itself.

    Args:
        written: box by box, a space for an empty box; of a checkbox `yes`, `no` or nothing.
    """
    text = written.replace(" ", "")
    if isinstance(field, CheckboxField):
        known = text in (YES, NO)
        return Judged(text, () if known else ("Say whether it is ticked.",))
    if not text:
        return Judged("", ("It must be filled in.",) if field.required else ())
    if strange := [c for c in dict.fromkeys(text) if c not in field.alphabet]:
        shown = ", ".join(strange)
        return Judged(text, (f"{shown} may not stand here, only {ranges(field.alphabet)}.",))
    if problem := _of_kind(field, text):
        return Judged(text, (problem,))
    has_gap = field.boxes is not None and " " in written.strip()
    value = str(_day(field, text)) if isinstance(field, DateField) else value_of(field, text)
    return Judged(value, ("There is an empty box between the characters.",) if has_gap else ())


def may_stand(field: FormField) -> list[str]:
    """Say in a few sentences what may stand in a field."""
    if isinstance(field, CheckboxField):
        return ["A box that is ticked or not."]
    said = [_kind(field), *([f"Only {ranges(field.alphabet)}."] if field.characters is not None else [])]
    return [*said, "It must be filled in."] if field.required else said


def shown_value(field: FormField, value: str) -> str:
    """Return a valid value as people write it."""
    if isinstance(field, DateField) and value:
        day = dt.date.fromisoformat(value)
        return f"{day.day} {day:%B} {day.year}, a {day:%A}"
    if isinstance(field, AmountField) and value:
        whole, _, decimals = value.partition(".")
        amount = f"{int(whole):,}".replace(",", " ") + (f".{decimals}" if decimals else "")
        return f"{amount} {field.currency}".rstrip()
    if isinstance(field, IbanField | CardField):
        return " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    return value


def written_of(field: FormField, value: str) -> str:
    """Return a value as it stands box by box, amounts at the right end."""
    if isinstance(field, CheckboxField):
        return value
    text = text_of(field, value)
    return text.rjust(field.boxes) if isinstance(field, AmountField) and field.boxes and text else text


def rules_about(form: Form, name: str) -> list[Rule]:
    """Return the rules that a field is under."""
    return [rule for rule in form.rules if name in fields_of(rule)]


def rule_says(form: Form, rule: Rule) -> str:
    """Say a rule in words, with fields by their printed labels."""
    labels = {field.name: field.label or field.name for field in form.fields}
    if isinstance(rule, SumRule):
        return f"{labels[rule.total]} is the sum of {_and([labels[part] for part in rule.parts])}"
    if isinstance(rule, RangeRule):
        bounds = [("at least", rule.least), ("at most", rule.most)]
        said = [f"{words} {bound:g}" for words, bound in bounds if bound is not None]
        return f"{labels[rule.field]} is {' and '.join(said)}"
    return f"{labels[rule.earlier]} is not after {labels[rule.later]}"


def is_kept(rule: Rule, values: Mapping[str, str | None]) -> bool | None:
    """Tell whether values keep a rule, None where one of them is not known yet or no valid one."""
    known = {name: values.get(name) for name in fields_of(rule)}
    if any(value is None for value in known.values()):
        return None
    return keeps(rule, {name: value or "" for name, value in known.items()})


def is_valid(field: FormField, value: str) -> bool:
    """Tell whether a value is one that results may hold for a field."""
    try:
        return not judge(field, written_of(field, value)).problems
    except (ValueError, KeyError):  # no day, where a day ought to be
        return False


def ranges(characters: str) -> str:
    """Return characters shortly, as `0-9, A-Z`."""
    runs: list[str] = []
    for c in sorted(characters):
        if runs and ord(c) == ord(runs[-1][-1]) + 1 and c.isdigit() == runs[-1][-1].isdigit():
            runs[-1] += c
        else:
            runs.append(c)
    return ", ".join(", ".join(run) if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs)


def _of_kind(field: WrittenField, text: str) -> str:
    """Return what speaks against a text of allowed characters, nothing if nothing does."""
    if isinstance(field, DateField):
        return _no_day(field, text)
    if isinstance(field, AmountField) and len(text) <= field.decimals:
        return f"An amount has at least {field.decimals + 1} digits: the last {field.decimals} stand behind the point."
    if isinstance(field, PhoneField) and len(text) < field.at_least:
        return f"A number has at least {field.at_least} digits; these are {len(text)}."
    if isinstance(field, IdField):
        return _no_id(field, text)
    if isinstance(field, CardField) and not valid_card(text):
        length = f"A card's number has 12 to 19 digits; these are {len(text)}."
        return length if not 12 <= len(text) <= 19 else "The check digit at the end does not fit the others."
    return _no_iban(field, text) if isinstance(field, IbanField) else ""


def _no_day(field: DateField, text: str) -> str:
    if len(text) != len(field.order):
        return f"A day has {len(field.order)} digits here ({field.order}); these are {len(text)}."
    if _day(field, text) is not None:
        return ""
    exists = any(_days(field, text, 1, 9999))
    return (
        f"It must lie between {field.first} and {field.last}." if exists else f"There is no such day ({field.order})."
    )


def _day(field: DateField, text: str) -> dt.date | None:
    """Return the day that may stand in the field and is written so."""
    days = _days(field, text, field.first.year, field.last.year)
    return next((day for day in days if field.first <= day <= field.last), None)


def _days(field: DateField, text: str, first: int, last: int) -> Iterator[dt.date]:
    """Yield the days that are written so, of the years between two."""
    starts = [sum(map(len, parts_of(field.order)[:i])) for i in range(3)]
    named = {part: int(text[a : a + len(part)]) for part, a in zip(parts_of(field.order), starts, strict=True)}
    if "YYYY" in named:
        years = [named["YYYY"]] if first <= named["YYYY"] <= last else []
    else:
        years = [year for year in range(first, last + 1) if year % 100 == named["YY"]]
    for year in years:
        with contextlib.suppress(ValueError):
            yield dt.date(year, named["MM"], named["DD"])


def _no_id(field: IdField, text: str) -> str:
    if field.boxes is not None and len(text) != field.boxes:
        return f"It has {field.boxes} characters; these are {len(text)}."
    if valid(field.check, text):
        return ""
    last = (
        "The check digits at the end do" if CHECK_LENGTH.get(field.check, 1) > 1 else "The check digit at the end does"
    )
    return f"{last} not fit the others."


def _no_iban(field: IbanField, text: str) -> str:
    country = text[:2]
    if country not in IBAN_LENGTHS:
        return f"No country has the code {country}."
    if field.countries and country not in field.countries:
        return f"Only accounts of {_and(list(field.countries))} may stand here."
    if len(text) != IBAN_LENGTHS[country]:
        return f"An IBAN of {country} has {IBAN_LENGTHS[country]} characters; these are {len(text)}."
    return "" if valid_iban(text) else "The check digits after the country do not fit the rest."


def _kind(field: WrittenField) -> str:
    """Say in one sentence what a field of a kind takes."""
    up_to = "" if field.boxes is None else f"up to {field.boxes} "
    if isinstance(field, DateField):
        order = ", ".join(_PARTS[part] for part in parts_of(field.order))
        return f"A day from {field.first} to {field.last}, written {field.order} ({order})."
    if isinstance(field, AmountField):
        behind = f"; the last {field.decimals} digits stand behind the point" if field.decimals else ", whole"
        return f"An amount{f' in {field.currency}' if field.currency else ''}{behind}."
    if isinstance(field, IbanField):
        countries = f"of {_and(list(field.countries))}" if field.countries else "any country"
        return f"An IBAN with its check digits, {countries}."
    if isinstance(field, CardField):
        return "A payment card's number: 12 to 19 digits, the last a check digit."
    if isinstance(field, IdField):
        size = "" if field.boxes is None else f"{field.boxes} characters, "
        return f"A number: {size}at its end check digits ({field.check})."
    if isinstance(field, PhoneField):
        return f"A telephone number: {up_to}digits, at least {field.at_least}."
    small = "capitals" if not any(c.islower() for c in field.alphabet) else "letters, capital or small"
    named = {"digits": "digits", "letters": small, "alphanumeric": f"digits and {small}"}[field.kind]
    return f"{up_to}{named}.".capitalize() if up_to else f"{named.capitalize()}."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
