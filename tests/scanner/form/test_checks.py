"""Check digits: what others have published is valid, what we complete is valid, and one wrong digit is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.form.checks import complete, complete_iban, valid, valid_card, valid_iban

KINDS = ("luhn", "mod11", "mod11-10", "mod97-10", "gs1", "verhoeff", "damm")


@pytest.mark.parametrize(
    ("check", "number"),
    [
        ("luhn", "79927398713"),
        ("gs1", "4006381333931"),
        ("mod11", "097522980X"),
        ("mod11", "0306406152"),
        ("mod11-10", "86095742719"),
        ("mod97-10", "79444"),
        ("verhoeff", "2363"),
        ("damm", "5724"),
    ],
)
def test_published_numbers(check: str, number: str) -> None:
    assert valid(check, number)  # type: ignore[arg-type]
    assert not valid(check, str(9 - int(number[0])) + number[1:])  # type: ignore[arg-type]


def test_account_and_card_numbers() -> None:
    for number in ("DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606"):
        assert valid_iban(number)
        assert not valid_iban(number[:-1])
    assert complete_iban("DE", "370400440532013000") == "DE89370400440532013000"
    assert valid_card("4539578763621486")
    assert not valid_card("79927398713")  # valid by Luhn, too short for a card
    with pytest.raises(FormError, match="is no account of the country 'DE'"):
        complete_iban("DE", "1234")


@given(st.sampled_from(KINDS), st.text("0123456789", min_size=1, max_size=14), st.data())
def test_one_wrong_digit_is_noticed(check: str, text: str, data: st.DataObject) -> None:
    text = text[:9] if check == "mod11" else text
    number = complete(check, text)  # type: ignore[arg-type]
    assert number.startswith(text)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != number[at]]))
    assert not valid(check, number[:at] + other + number[at + 1 :])  # type: ignore[arg-type]


def test_what_cannot_be_completed() -> None:
    with pytest.raises(FormError, match="takes digits alone, 9 at most"):
        complete("mod11", "0123456789")
    with pytest.raises(FormError, match="'12A' cannot be given check digits of the kind luhn"):
        complete("luhn", "12A")
