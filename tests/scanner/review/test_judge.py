"""What may stand in a field is what `decode` reads there, and what speaks against a text is said in words."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hwr_export.scanner.form.checks import complete, complete_iban
from hwr_export.scanner.form.decode import text_of, value_of
from hwr_export.scanner.form.fields import FormField
from hwr_export.scanner.form.grammar import branches
from hwr_export.scanner.review.judge import is_valid, judge, may_stand, ranges, rule_says, shown_value, written_of
from tests.scanner.review.pages import form


def field(kind: str, **said: Any) -> Any:
    return TypeAdapter(FormField).validate_python({"kind": kind, "name": "a", "x": 0, "y": 0} | said)


@pytest.mark.parametrize(
    ("asked", "written", "value", "problem"),
    [
        (field("digits", boxes=4), "12", "12", ""),
        (field("digits", boxes=4), "1 2", "12", "There is an empty box between"),
        (field("digits", boxes=4), "1O", "1O", "O may not stand here, only 0-9."),
        (field("digits", boxes=4, required=True), "  ", "", "It must be filled in."),
        (field("digits", boxes=4), "", "", ""),
        (field("letters", boxes=4, characters="NYA"), "NO", "NO", "O may not stand here, only A, N, Y."),
        (field("date", boxes=8), "31122026", "2026-12-31", ""),
        (field("date", boxes=8), "31022026", "31022026", r"There is no such day \(DDMMYYYY\)"),
        (field("date", boxes=8), "3112", "3112", "A day has 8 digits here"),
        (field("date", boxes=8, last="2025-12-31"), "31122026", "31122026", "must lie between 1900-01-01 and 2025"),
        (field("date", boxes=6, order="MMDDYY", first="1950-01-01", last="2049-12-31"), "070451", "1951-07-04", ""),
        (field("date", boxes=6, order="YYMMDD", first="1950-06-01", last="2050-05-31"), "500101", "2050-01-01", ""),
        (field("amount", boxes=6), "  1250", "12.50", ""),
        (field("amount", boxes=6), "    50", "50", "An amount has at least 3 digits"),
        (field("phone", boxes=12), "0301", "0301", "at least 5 digits; these are 4"),
        (field("iban", boxes=22), complete_iban("DE", "370400440532013000"), None, ""),
        (field("iban", boxes=22), "DE00370400440532013000", None, "check digits after the country do not fit"),
        (field("iban", boxes=22), "DE8937040044", None, "An IBAN of DE has 22 characters; these are 12."),
        (field("iban", boxes=22), "XX8937040044", None, "No country has the code XX"),
        (field("iban", boxes=22, countries=["FR", "BE"]), "DE893704", None, "Only accounts of FR and BE"),
        (field("card", boxes=16), "4539578763621486", None, ""),
        (field("card", boxes=16), "4539578763621487", None, "The check digit at the end does not fit"),
        (field("card", boxes=16), "4539", None, "has 12 to 19 digits; these are 4"),
        (field("id", check="luhn", boxes=11), "79927398713", None, ""),
        (field("id", check="luhn", boxes=11), "79927398718", None, "The check digit at the end does not fit"),
        (field("id", check="mod97-10", boxes=5), "79445", None, "The check digits at the end do not fit"),
        (field("id", check="luhn", boxes=11), "7992", None, "It has 11 characters; these are 4."),
        (field("checkbox"), "yes", "yes", ""),
        (field("checkbox"), "", "", "Say whether it is ticked"),
    ],
)
def test_what_speaks_against_a_text(asked: Any, written: str, value: str | None, problem: str) -> None:
    judged = judge(asked, written)
    assert judged.value == (written if value is None else value)
    assert bool(judged.problems) == bool(problem)
    for said in judged.problems:
        assert re.search(problem, said)


FIELDS = st.sampled_from(
    [
        field("digits", boxes=5),
        field("amount", boxes=6, decimals=1),
        field("phone", boxes=6, at_least=3),
        field("id", check="mod11", boxes=4),
        field("id", check="mod97-10", boxes=5),
        field("card", line=90),
        field("date", boxes=6, order="YYMMDD", first="1990-01-01", last="2030-12-31"),
    ]
)


@given(FIELDS, st.text("0123456789X", max_size=6))
def test_valid_is_what_decode_reads(asked: Any, text: str) -> None:
    count = asked.boxes or len(text)
    text = text[:count]
    written = text.rjust(count) if asked.kind == "amount" else text
    filled = tuple(i for i, c in enumerate(written) if c != " ")
    fits = False
    for branch in branches(asked, count) if set(text) <= set(asked.alphabet) else ():
        if branch.filled != filled:
            continue
        if branch.judge is None:
            fits = True
        elif hasattr(branch.judge, "accepts"):
            fits |= branch.judge.accepts(text)
        else:
            known = branch.judge.known
            fits |= text in {branch.judge.text(int(i), int(j)) for i, j in zip(*known.nonzero(), strict=True)}
    judged = judge(asked, written)
    assert (not judged.problems) == fits
    if fits:
        assert judged.value == value_of(asked, text)
        assert is_valid(asked, judged.value)
        assert judge(asked, written_of(asked, judged.value)).value == judged.value


def test_values_that_are_none() -> None:
    assert not is_valid(field("date", boxes=8), "soon")
    assert not is_valid(field("date", boxes=8), "2026-13-01")
    assert not is_valid(field("id", check="luhn", boxes=3), "123")
    assert is_valid(field("id", check="luhn", boxes=3), complete("luhn", "12"))


def test_values_are_shown_as_people_write_them() -> None:
    assert shown_value(field("date", boxes=8), "2026-12-31") == "31 December 2026, a Thursday"
    assert shown_value(field("amount", boxes=9, currency="EUR"), "1234567.50") == "1 234 567.50 EUR"
    assert shown_value(field("iban", line=90), "DE89370400440532013000") == "DE89 3704 0044 0532 0130 00"
    assert shown_value(field("digits", boxes=3), "12") == "12"
    assert written_of(field("amount", boxes=6), "12.50") == "  1250"
    assert text_of(field("amount", boxes=6), "12.50") == "1250"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (field("digits", boxes=4, required=True), "Up to 4 digits. It must be filled in."),
        (field("letters", boxes=4), "Up to 4 capitals."),
        (field("alphanumeric", line=40, case="any"), "Digits and letters, capital or small."),
        (field("digits", boxes=4, characters="01"), "Up to 4 digits. Only 0, 1."),
        (field("date", boxes=8), "written DDMMYYYY (day, month, year)."),
        (field("amount", boxes=8, currency="EUR"), "An amount in EUR; the last 2 digits stand behind the point."),
        (field("amount", boxes=8, decimals=0), "An amount, whole."),
        (field("phone", boxes=12), "A telephone number: up to 12 digits, at least 5."),
        (field("iban", boxes=22, countries=["DE"]), "An IBAN with its check digits, of DE."),
        (field("card", boxes=16), "12 to 19 digits, the last a check digit."),
        (field("id", check="damm", boxes=4), "A number: 4 characters, at its end check digits (damm)."),
        (field("checkbox"), "A box that is ticked or not."),
    ],
)
def test_what_may_stand_is_said(asked: Any, said: str) -> None:
    assert said in " ".join(may_stand(asked))


def test_characters_and_rules_in_words() -> None:
    assert ranges("0123456789ABCXYZ") == "0-9, A-C, X-Z"
    assert ranges("019") == "0, 1, 9"
    assert [rule_says(form(), rule) for rule in form().rules] == [
        "Total is the sum of Goods and Postage",
        "Total is at most 5000",
    ]
