"""Readings and their probabilities, against the sum over every text there is."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwr_export.scanner.form.checks import valid, valid_iban
from hwr_export.scanner.form.decode import LARGEST, MISTAKE, decode, emissions, text_of, value_of
from hwr_export.scanner.form.fields import (
    AlphanumericField,
    AmountField,
    DateField,
    DigitsField,
    IbanField,
    IdField,
    LettersField,
    PhoneField,
    WrittenField,
)

PLACE: dict[str, Any] = {"name": "a", "x": 0, "y": 0}


def seen(field: WrittenField, text: str, sure: float = 0.99, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that say a text, and which boxes are empty."""
    count = field.boxes or len(text)
    rows = np.full((count, len(field.alphabet)), (1 - sure) / (len(field.alphabet) - 1))
    blanks = np.full(count, 0.999)
    for i, character in enumerate(text):
        rows[offset + i, field.alphabet.index(character)] = sure
        blanks[offset + i] = 0.001
    return rows, blanks


@given(st.integers(0, 2**32 - 1), st.sampled_from(["digits", "id", "amount", "phone"]))
@settings(max_examples=30)
@example(479134184, "amount")  # a spelling with a zero before it is not among the best 40 texts
def test_probabilities_are_those_of_all_texts_summed_one_by_one(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    field: WrittenField = {
        "digits": DigitsField(kind="digits", boxes=3, characters="0123", **PLACE),
        "id": IdField(kind="id", check="mod11-10", boxes=3, characters="0123456", **PLACE),
        "amount": AmountField(kind="amount", boxes=3, decimals=1, characters="0123", **PLACE),
        "phone": PhoneField(kind="phone", boxes=3, at_least=2, characters="0123", **PLACE),
    }[kind]
    alphabet = field.alphabet
    rows = rng.dirichlet(np.full(len(alphabet), 0.5), 3) * rng.uniform(0.5, 1, (3, 1))
    rows = np.maximum(rows, 1e-6)
    blanks = rng.uniform(0.01, 0.99, 3)
    counts: dict[int, int] = {}
    texts: list[tuple[str, float, int]] = []
    for written in product([*range(len(alphabet)), None], repeat=3):
        filled = [i for i, c in enumerate(written) if c is not None]
        text = "".join(alphabet[c] for c in written if c is not None)
        from_left, to_right = filled == list(range(len(filled))), filled == list(range(3 - len(filled), 3))
        if kind == "id":
            fits = not filled or (len(filled) == 3 and valid("mod11-10", text))
        elif kind == "amount":
            fits = not filled or (to_right and len(filled) > 1)
        else:
            fits = from_left and (kind == "digits" or len(filled) != 1)
        if not fits:
            continue
        p = float(np.prod([blanks[i] if c is None else (1 - blanks[i]) * rows[i, c] for i, c in enumerate(written)]))
        counts[len(filled)] = counts.get(len(filled), 0) + 1
        texts.append((text, p, len(filled)))
    ten = (
        10 if kind == "id" else len(alphabet)
    )  # the machine's alphabet is all digits, also those that may not stand here
    share = {n: min(1.0, _valid_share(kind, n, counts[n], ten)) for n in counts}
    weighed: dict[str, float] = {}
    total = MISTAKE
    for text, p, n in texts:
        w = (1 - MISTAKE) * min(LARGEST, 1 / share[n]) * p
        total += w
        weighed[value_of(field, text)] = weighed.get(value_of(field, text), 0.0) + w
    best = max(weighed, key=lambda value: weighed[value])
    found = decode(field, rows, blanks, 40)
    assert {r.value for r in found} <= set(weighed)
    assert found[0].probability == pytest.approx(weighed[found[0].value] / total, rel=1e-6)
    assert weighed[found[0].value] == pytest.approx(weighed[best])
    assert [r.probability for r in found] == sorted((r.probability for r in found), reverse=True)


def _valid_share(kind: str, n: int, count: int, characters: int) -> float:
    # Of three digits a check digit leaves one text in ten, whichever digits the field allows.
    return 0.1 if kind == "id" and n == 3 else count / characters**n if kind != "id" else 1.0


def test_a_plainly_wrong_number_is_not_turned_into_a_valid_one() -> None:
    field = IdField(kind="id", check="mod11-10", boxes=11, **PLACE)
    right, wrong = decode(field, *seen(field, "86095742719")), decode(field, *seen(field, "86095742718"))
    assert (right[0].value, right[0].probability > 0.99) == ("86095742719", True)
    assert all(valid("mod11-10", reading.value) for reading in wrong if reading.value)
    assert wrong[0].probability < 0.2


def test_a_check_digit_settles_what_one_character_leaves_open() -> None:
    field = IdField(kind="id", check="luhn", boxes=11, **PLACE)
    rows, blanks = seen(field, "79927398713", 0.999)
    rows[3, [1, 2, 7]] = (0.45, 0.54 - 0.45 + 0.4, 0.0)
    best, *_ = decode(field, rows, blanks)
    assert best.value == "79927398713"
    assert best.probability > 0.95


def test_days() -> None:
    field = DateField(kind="date", boxes=8, **PLACE)
    assert decode(field, *seen(field, "29022024"))[0].value == "2024-02-29"
    assert decode(field, *seen(field, "31022024"))[0].probability < 0.2
    short = DateField(kind="date", boxes=6, order="YYMMDD", first="1950-01-01", last="2049-12-31", **PLACE)
    assert decode(short, *seen(short, "510704"))[0].value == "1951-07-04"
    assert text_of(short, "1951-07-04") == "510704"
    assert decode(field, *seen(field, "2902"))[0].value != "2024-02-29"


def test_amounts_stand_at_the_right_end() -> None:
    field = AmountField(kind="amount", boxes=6, **PLACE)
    rows, blanks = seen(field, "1250", offset=2)
    assert decode(field, rows, blanks)[0].value == "12.50"
    at_left, blanks = seen(field, "1250")
    assert decode(field, at_left, blanks)[0].probability < 0.5
    assert value_of(field, "007") == "0.07"
    assert text_of(field, "12.50") == "1250"


def test_account_numbers() -> None:
    field = IbanField(kind="iban", boxes=24, **PLACE)
    (best, *rest) = decode(field, *seen(field, "DE89370400440532013000", 0.98))
    assert best.value == "DE89370400440532013000"
    assert best.probability > 0.95
    assert all(valid_iban(reading.value) for reading in rest if reading.value)
    only = IbanField(kind="iban", boxes=24, countries=("FR",), **PLACE)
    assert decode(only, *seen(only, "DE89370400440532013000", 0.98))[0].probability < 0.1


def test_a_gap_and_an_empty_field() -> None:
    field = DigitsField(kind="digits", boxes=5, **PLACE)
    rows, blanks = seen(field, "12345")
    blanks[2] = 0.999
    assert decode(field, rows, blanks)[0].probability < 0.5
    rows, blanks = seen(field, "")
    assert (decode(field, rows, blanks)[0].value, decode(field, rows, blanks)[0].probability > 0.98) == ("", True)


def test_a_line_has_no_empty_boxes() -> None:
    field = DigitsField(kind="digits", line=50, **PLACE)
    rows, blanks = seen(field, "1234")
    assert decode(field, rows, blanks * 0)[0].value == "1234"
    number = IdField(kind="id", check="gs1", line=50, **PLACE)
    rows, blanks = seen(number, "4006381333931")
    assert decode(number, rows, blanks * 0)[0].value == "4006381333931"
    day = DateField(kind="date", line=50, **PLACE)
    rows, blanks = seen(day, "123")
    assert [r.value for r in decode(day, rows, blanks * 0)] in ([], [""])


def test_what_looks_like_nothing_that_may_stand_here_lowers_the_probability() -> None:
    labels = "0123456789O"
    field = DigitsField(kind="digits", boxes=1, **PLACE)
    shares = []
    for zero in (0.95, 0.3, 0.001):
        row = np.full((1, 11), 1e-5, dtype=np.float32)
        row[0, 0], row[0, 10] = zero, 1 - zero
        shares.append(decode(field, emissions(row, labels, field), np.array([0.001]))[0].probability)
    assert shares[0] > 0.98
    assert shares == sorted(shares, reverse=True)
    assert shares[2] < 0.1


def test_small_letters_that_are_written_alike_are_their_capitals() -> None:
    labels = "ABCabc"
    row = np.array([[0.02, 0.02, 0.4, 0.02, 0.02, 0.52]], dtype=np.float32)
    capitals = LettersField(kind="letters", boxes=1, characters="ABC", **PLACE)
    assert emissions(row, labels, capitals)[0] == pytest.approx([0.02, 0.02, 0.92], abs=1e-6)
    both = AlphanumericField(kind="alphanumeric", case="any", boxes=1, characters="ABCabc", **PLACE)
    assert emissions(row, labels, both)[0] == pytest.approx(row[0], abs=1e-6)


def test_a_year_of_two_digits_lies_between_the_bounds() -> None:
    bounds = {"first": "1950-06-01", "last": "2050-05-31", "order": "YYMMDD"}
    field = DateField(kind="date", boxes=6, **bounds, **PLACE)
    assert value_of(field, "500101") == "2050-01-01"
    assert value_of(field, "500701") == "1950-07-01"
    assert value_of(field, "991231") == "1999-12-31"
