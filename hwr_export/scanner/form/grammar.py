"""A field and a number of boxes -> every way of filling them: which boxes, and which texts in those are valid.

One `Branch` for each number of characters (or country): the characters' places, all others empty, and what judges them.
"""

import datetime as dt
import itertools
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.checks import DEAD, IBAN_LENGTHS, Machine, iban_machine, machine
from hwr_export.scanner.form.fields import (
    AmountField,
    CardField,
    DateField,
    IbanField,
    IdField,
    PhoneField,
    WrittenField,
)

CARD_LENGTHS = range(12, 20)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTH_DAYS = tuple((month, day) for month in range(1, 13) for day in range(1, _LONGEST[month - 1] + 1))


@dataclass(frozen=True)
class Calendar:
    """Days within bounds: `known[i, j]` says whether day i of `days` is one in year j of `years`."""

    order: str
    days: tuple[tuple[int, int], ...]  # month, day
    years: tuple[int, ...]
    known: npt.NDArray[np.bool_]

    def text(self, day: int, year: int) -> str:
        """Return a day as it is written."""
        (month, of_month), number = self.days[day], self.years[year]
        parts = {"DD": f"{of_month:02}", "MM": f"{month:02}", "YYYY": f"{number:04}", "YY": f"{number % 100:02}"}
        return "".join(parts[part] for part in parts_of(self.order))


@dataclass(frozen=True)
class Branch:
    """One way of filling a field: texts at these boxes that the judge accepts; no judge accepts all."""

    filled: tuple[int, ...]
    judge: Machine | Calendar | None
    begins: str = ""  # what every one of its texts begins with

    @cached_property
    def share(self) -> float:
        """Of all texts of that length, how many are valid."""
        return 1.0 if self.judge is None else _share(self.judge, len(self.filled))


def branches(field: WrittenField, count: int) -> tuple[Branch, ...]:
    """Return all ways of filling a field of so many boxes, or characters on a line; an empty one is among them."""
    return _branches(field, count, field.boxes is None)


@cache
def _branches(field: WrittenField, count: int, whole: bool) -> tuple[Branch, ...]:
    def left(length: int, judge: Machine | Calendar | None = None) -> Branch:
        return Branch(tuple(range(length)), judge)

    if count == 0:
        return (left(0),)
    lengths = range(count, count + 1) if whole else range(1, count + 1)
    found: list[Branch]
    if isinstance(field, DateField):
        found = [left(count, calendar(field))] if count == len(field.order) else []
    elif isinstance(field, AmountField):
        found = [Branch(tuple(range(count - n, count)), None) for n in lengths if n > field.decimals]
    elif isinstance(field, IdField):
        found = [left(count, machine(field.check, count))] if count > 1 else []
    elif isinstance(field, CardField):
        found = [left(n, machine("luhn", n)) for n in lengths if n in CARD_LENGTHS]
    elif isinstance(field, IbanField):
        countries = field.countries or tuple(IBAN_LENGTHS)
        found = [
            Branch(tuple(range(IBAN_LENGTHS[c])), iban_machine(c), c)
            for c in countries
            if IBAN_LENGTHS.get(c, 0) in lengths
        ]
    elif isinstance(field, PhoneField):
        found = [left(n) for n in lengths if n >= field.at_least]
    else:
        found = [left(n) for n in lengths]
    return (left(0), *found)


def parts_of(order: str) -> tuple[str, ...]:
    """Return the parts that a date is written in, as DD, MM, YYYY of DDMMYYYY."""
    starts = [i for i in range(len(order)) if i == 0 or order[i] != order[i - 1]] + [len(order)]
    return tuple(order[a:b] for a, b in itertools.pairwise(starts))


@cache
def calendar(field: DateField) -> Calendar:
    """Return the days that may stand in a field."""
    years = tuple(range(field.first.year, field.last.year + 1))
    known = np.array([[_within(field, year, *day) for year in years] for day in _MONTH_DAYS])
    return Calendar(field.order, _MONTH_DAYS, years, known)


def _within(field: DateField, year: int, month: int, day: int) -> bool:
    try:
        return field.first <= dt.date(year, month, day) <= field.last
    except ValueError:
        return False


def _share(judge: Machine | Calendar, length: int) -> float:
    if isinstance(judge, Calendar):
        return float(judge.known.sum() / 10.0**length)
    weights = np.eye(len(judge.accepted))[judge.start]
    for step in judge.steps:
        alive = step != DEAD
        new = np.zeros_like(weights)
        np.add.at(new, step[alive], np.broadcast_to(weights[:, None], step.shape)[alive])
        weights = new / step.shape[1]
    return float(weights[judge.accepted].sum())
