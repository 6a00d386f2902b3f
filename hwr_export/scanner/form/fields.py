"""What may stand in a field, kind by kind. Lengths in mm from the page's top left corner, x to the right, y down.

The value of a field is always text: `2026-12-31` of a date, `1234.50` of an amount, `yes` or `no` of a checkbox, and
what is written, without spaces, of all others. An empty field has the value "".
"""

import datetime as dt
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from hwr_export.labels import ALPHANUMERIC, DIGITS
from hwr_export.spec import Strict

CAPITALS = ALPHANUMERIC[10:36]
LETTERS = ALPHANUMERIC[10:]
MOD11_LONGEST = 10  # the eleventh character from the right would weigh 11, which is nothing
CheckDigits = Literal["luhn", "mod11", "mod11-10", "mod97-10", "gs1", "verhoeff", "damm"]


def _known(characters: str) -> str:
    if strange := sorted(set(characters) - set(ALPHANUMERIC)):
        raise ValueError(f"{strange[0]!r} is no digit and no letter from A to Z")
    if len(set(characters)) != len(characters):
        raise ValueError("a character stands in it twice")
    return characters


class BoxSize(Strict):
    """One box for one character; `pitch` is from a left edge to the next one's."""

    width: float = Field(5.0, ge=2.5, le=20, description="Of a box, its line included.")
    height: float = Field(7.0, ge=2.5, le=20, description="Of a box, its line included.")
    pitch: float = Field(6.0, ge=2.5, le=40, description="From a box's left edge to the next one's.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.pitch < self.width:
            raise ValueError(f"boxes of {self.width:g} mm overlap at a pitch of {self.pitch:g} mm")
        return self


class Placed(Strict):
    """What all fields have."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="Of the field in results; unique.")
    label: str = Field("", max_length=120, description="Printed above the field, beside a checkbox.")
    x: float = Field(ge=0, le=2000, description="Left edge of the field.")
    y: float = Field(ge=0, le=2000, description="Upper edge of the field's boxes.")
    required: bool = Field(False, description="Empty, it is referred to a person. An asterisk is printed.")


class CheckboxField(Placed):
    """One box that is ticked or not."""

    kind: Literal["checkbox"]
    size: float = Field(5.0, ge=2.5, le=20, description="Side of the box.")


class Written(Placed):
    """What all fields have in which characters are written: a row of boxes, or one long box as a line."""

    boxes: int | None = Field(None, ge=1, le=64, description="Number of boxes.")
    line: float | None = Field(None, ge=5, le=400, description="Length of one long box, in the place of boxes.")
    box: BoxSize | None = Field(None, description="Size of this field's boxes; else the form's.")
    groups: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Boxes of each group, with half a box's width between groups."
    )
    characters: Annotated[str, AfterValidator(_known)] | None = Field(
        None, min_length=1, description="Only these characters, out of those that the kind has."
    )

    @property
    def alphabet(self) -> str:
        """The characters that may stand in the field, at any place of it."""
        own = self.every_character()
        return own if self.characters is None else "".join(c for c in own if c in self.characters)

    def every_character(self) -> str:
        """Return the characters of the kind."""
        return DIGITS

    @model_validator(mode="after")
    def _place(self) -> Self:
        if (self.boxes is None) == (self.line is None):
            raise ValueError("give `boxes` or `line`, one of them")
        if self.groups and sum(self.groups) != self.boxes:
            raise ValueError(f"groups of {sum(self.groups)} boxes do not make {self.boxes}")
        if not self.alphabet:
            raise ValueError(f"none of the characters {self.characters!r} can stand in a field of this kind")
        return self


class DigitsField(Written):
    """Digits, from the left; boxes after the last one stay empty."""

    kind: Literal["digits"]


class LettersField(Written):
    """Letters, from the left; `any` lets small ones stand beside capitals."""

    kind: Literal["letters"]
    case: Literal["upper", "any"] = Field("upper", description="`any`: small letters as well.")

    def every_character(self) -> str:
        return CAPITALS if self.case == "upper" else LETTERS


class AlphanumericField(Written):
    """Letters and digits, from the left."""

    kind: Literal["alphanumeric"]
    case: Literal["upper", "any"] = Field("upper", description="`any`: small letters as well.")

    def every_character(self) -> str:
        return DIGITS + (CAPITALS if self.case == "upper" else LETTERS)


class DateField(Written):
    """A day that exists, in digits."""

    kind: Literal["date"]
    order: Literal["DDMMYYYY", "MMDDYYYY", "YYYYMMDD", "DDMMYY", "MMDDYY", "YYMMDD"] = Field(
        "DDMMYYYY", description="A year of two digits lies between `first` and `last`."
    )
    first: dt.date = Field(dt.date(1900, 1, 1), description="The earliest day that may stand in it.")
    last: dt.date = Field(dt.date(2099, 12, 31), description="The latest day that may stand in it.")

    @model_validator(mode="after")
    def _days(self) -> Self:
        if self.boxes not in (None, len(self.order)):
            raise ValueError(f"a date written {self.order} has {len(self.order)} boxes, not {self.boxes}")
        if self.last < self.first:
            raise ValueError(f"its last day {self.last} is before its first {self.first}")
        if (self.last - self.first).days > 366 * 400:
            raise ValueError("a date may lie within 400 years; bring `first` and `last` nearer")
        if "YYYY" not in self.order and self.last >= _years_later(self.first, 100):
            raise ValueError("a year of two digits tells 100 years apart; bring `first` and `last` nearer")
        return self


class AmountField(Written):
    """An amount of money, written to the right end; the last `decimals` digits are behind the point."""

    kind: Literal["amount"]
    decimals: int = Field(2, ge=0, le=4, description="Digits behind the point, which is printed between boxes.")
    currency: str = Field("", max_length=8, description="Printed behind the field.")

    @model_validator(mode="after")
    def _digits(self) -> Self:
        if self.boxes is not None and self.boxes <= self.decimals:
            raise ValueError(f"{self.boxes} boxes leave no digit before {self.decimals} decimals")
        return self


class PhoneField(Written):
    """A telephone number in digits, with its leading zeros."""

    kind: Literal["phone"]
    at_least: int = Field(5, ge=1, le=15, description="Digits of the shortest number.")


class IbanField(Written):
    """An international bank account number with its check digits (ISO 13616)."""

    kind: Literal["iban"]
    countries: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = Field(
        (), description="Codes of the countries it may be of; without them, all."
    )

    def every_character(self) -> str:
        return DIGITS + CAPITALS


class CardField(Written):
    """A payment card's number with its check digit (ISO/IEC 7812)."""

    kind: Literal["card"]


class IdField(Written):
    """A number with a check digit at its end, in all the field's boxes."""

    kind: Literal["id"]
    check: CheckDigits = Field(description="How the check digit follows from the others.")

    def every_character(self) -> str:
        return DIGITS + "X" if self.check == "mod11" else DIGITS

    @model_validator(mode="after")
    def _noticing(self) -> Self:
        if self.check == "mod11" and (self.boxes or 0) > MOD11_LONGEST:
            raise ValueError(
                f"mod11 does not notice a wrong digit in numbers of more than {MOD11_LONGEST} characters; "
                "fields may be shorter, or of another check"
            )
        return self


WrittenField = (
    DigitsField
    | LettersField
    | AlphanumericField
    | DateField
    | AmountField
    | PhoneField
    | IbanField
    | CardField
    | IdField
)
FormField = Annotated[WrittenField | CheckboxField, Field(discriminator="kind")]


def _years_later(day: dt.date, years: int) -> dt.date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, month=3, day=1)
