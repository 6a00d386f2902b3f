"""Check digits as machines: what a character does to a state, and which states end a valid number.

As machines they can be run over probabilities: `decode` sums over all valid numbers exactly, without listing them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.labels import DIGITS
from hwr_export.scanner.form.fields import CAPITALS, MOD11_LONGEST, CheckDigits

States = npt.NDArray[np.int64]
DEAD = -1

# Multiplication in the dihedral group D5, and the permutation of digits by their place (Verhoeff 1969).
_D5 = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]  # fmt: skip
_PERMUTED = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
# A totally anti-symmetric quasigroup (Damm 2004).
_DAMM = [
    [0, 3, 1, 7, 5, 9, 8, 6, 4, 2], [7, 0, 9, 2, 1, 5, 4, 8, 6, 3], [4, 2, 0, 6, 8, 7, 1, 3, 5, 9],
    [1, 7, 5, 0, 9, 8, 3, 4, 2, 6], [6, 1, 2, 3, 0, 4, 5, 9, 7, 8], [3, 6, 7, 4, 2, 0, 9, 5, 8, 1],
    [5, 8, 6, 9, 7, 2, 0, 1, 3, 4], [8, 9, 4, 5, 3, 6, 2, 0, 1, 7], [9, 4, 3, 8, 6, 1, 7, 2, 0, 5],
    [2, 5, 8, 1, 4, 3, 6, 7, 9, 0],
]  # fmt: skip
# Length of an IBAN by country (ISO 13616 registry; those that have been in it for years).
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24,
    "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
CHECK_LENGTH = {"mod97-10": 2}  # characters of check digits, one where nothing is said


@dataclass(frozen=True)
class Machine:
    """Over texts of one length: it takes the position `order[k]` with `steps[k]`."""

    alphabet: str
    order: tuple[int, ...]
    steps: tuple[States, ...]  # of each, int64 (states, characters): the next state, or DEAD
    accepted: npt.NDArray[np.bool_]  # (states,)
    start: int = 0

    def accepts(self, text: str) -> bool:
        """Tell whether a text is valid."""
        if len(text) != len(self.order):
            return False
        state = self.start
        for position, step in zip(self.order, self.steps, strict=True):
            character = self.alphabet.find(text[position])
            state = DEAD if character < 0 else int(step[state, character])
            if state == DEAD:
                return False
        return bool(self.accepted[state])


@cache
def machine(check: CheckDigits, length: int) -> Machine:
    """Return the machine of a kind of check digits, which stand at the end, for numbers of a length."""
    places = range(length)
    from_right = [length - 1 - i for i in places]
    if check == "luhn":  # ISO/IEC 7812-1, annex B
        steps = [_adds(lambda v, i=i: v * 2 - 9 * (v > 4) if i % 2 else v, 10) for i in from_right]  # type: ignore[misc]
    elif check == "gs1":  # GS1 General Specifications, 7.9.1
        steps = [_adds(lambda v, i=i: v * 3 if i % 2 else v, 10) for i in from_right]  # type: ignore[misc]
    elif check == "mod11":  # ISO 2108 for ISBN-10; X is ten, and stands only at the end
        steps = [_adds(lambda v, i=i: v * (i + 1), 11, 11) for i in from_right]  # type: ignore[misc]
        for step in steps[:-1]:
            step[:, 10] = DEAD
        return Machine(DIGITS + "X", tuple(places), tuple(steps), _only(11, 0))
    elif check == "mod11-10":  # ISO/IEC 7064, hybrid system; the state is the remainder that goes on, 0 stands for 10
        table = np.array([[2 * ((p + v) % 10 or 10) % 11 % 10 for v in range(10)] for p in [10, *range(1, 10)]])
        last = np.array([[0 if (p + v) % 10 == 1 else DEAD for v in range(10)] for p in [10, *range(1, 10)]])
        return Machine(DIGITS, tuple(places), (table,) * (length - 1) + (last,), _only(10, 0))
    elif check == "mod97-10":  # ISO/IEC 7064: one modulo 97
        return Machine(DIGITS, tuple(places), (_appends(97, DIGITS),) * length, _only(97, 1))
    elif check == "verhoeff":
        steps = [np.array([[_D5[_permuted(v, i)][s] for v in range(10)] for s in range(10)]) for i in from_right]
    else:
        steps = [np.array(_DAMM)] * length
    return Machine(DIGITS, tuple(places), tuple(steps), _only(10, 0))


@cache
def card_machine() -> tuple[States, npt.NDArray[np.bool_]]:
    """Return Luhn's steps for numbers of any length, taken from the right: states are sums, then sums at odd places."""
    step = np.empty((20, 10), dtype=np.int64)
    for s, v in product(range(20), range(10)):
        doubled = v * 2 - 9 * (v > 4) if s >= 10 else v
        step[s, v] = (s % 10 + doubled) % 10 + (0 if s >= 10 else 10)
    return step, np.arange(20) % 10 == 0


@cache
def iban_machine(country: str) -> Machine:
    """Return the machine of a country's account numbers: the first four characters count behind the others."""
    length = IBAN_LENGTHS[country]
    alphabet = DIGITS + CAPITALS
    step = _appends(97, alphabet)
    order = (*range(4, length), 0, 1, 2, 3)
    steps = [step] * len(order)
    for k, wanted in ((-4, country[0]), (-3, country[1])):
        steps[k] = np.where(np.array(list(alphabet)) == wanted, step, DEAD)
    for k in (-2, -1):
        steps[k] = np.where(np.arange(len(alphabet)) < 10, step, DEAD)
    return Machine(alphabet, order, tuple(steps), _only(97, 1))


def valid(check: CheckDigits, text: str) -> bool:
    """Tell whether a number's check digits are right."""
    if check == "mod11" and len(text) > MOD11_LONGEST:
        return False
    return len(text) > CHECK_LENGTH.get(check, 1) and machine(check, len(text)).accepts(text)


def valid_iban(text: str) -> bool:
    """Tell whether an account number has its country's length and right check digits."""
    return text[:2] in IBAN_LENGTHS and iban_machine(text[:2]).accepts(text)


def valid_card(text: str) -> bool:
    """Tell whether a card's number has 12 to 19 digits and a right check digit."""
    return 12 <= len(text) <= 19 and valid("luhn", text)


def complete(check: CheckDigits, text: str) -> str:
    """Return a number with its check digits.

    Raises:
        FormError: the number is no number of that kind.
    """
    length = CHECK_LENGTH.get(check, 1)
    for last in product(DIGITS + ("X" if check == "mod11" else ""), repeat=length):
        number = text + "".join(last)
        if valid(check, number):
            return number
    raise FormError(
        f"{text!r} cannot be given check digits of the kind {check}: it takes digits alone"
        + (f", {MOD11_LONGEST - 1} at most" if check == "mod11" else "")
    )


def complete_iban(country: str, account: str) -> str:
    """Return an account number with its country and check digits.

    Raises:
        FormError: there is no such country, or the account has another length there.
    """
    for first, second in product(DIGITS, repeat=2):
        number = country + first + second + account
        if valid_iban(number) and first + second not in ("00", "01", "99"):
            return number
    raise FormError(f"{account!r} is no account of the country {country!r}: see ISO 13616 for its length")


def _adds(weighed: Callable[[int], int], modulus: int, symbols: int = 10) -> States:
    """Return the step that adds a weighed digit; the eleventh symbol is ten."""
    return np.array([[(s + weighed(v)) % modulus for v in range(symbols)] for s in range(modulus)], dtype=np.int64)


def _appends(modulus: int, alphabet: str) -> States:
    """Return the step that writes a digit, or a letter as its number from 10 on, behind a number."""
    values = [int(c, 36) for c in alphabet]
    return np.array([[(s * (10 if v < 10 else 100) + v) % modulus for v in values] for s in range(modulus)])


def _permuted(digit: int, times: int) -> int:
    for _ in range(times % 8):
        digit = _PERMUTED[digit]
    return digit


def _only(states: int, state: int) -> npt.NDArray[np.bool_]:
    accepted = np.zeros(states, dtype=np.bool_)
    accepted[state] = True
    return accepted
