"""Fields that agree support each other; fields that cannot agree are referred, by the rule's name."""

from typing import Any

import pytest

from hwr_export.scanner.form.decode import Reading
from hwr_export.scanner.form.definition import Form, OrderRule, RangeRule, SumRule
from hwr_export.scanner.form.rules import agreed, is_redundant, keeps
from tests.scanner.form.test_definition import parse


def form(*rules: dict[str, Any]) -> Form:
    fields = [
        {"kind": "amount", "name": name, "x": 30, "y": 40 + 15 * i, "boxes": 6}
        for i, name in enumerate(("first", "second", "total"))
    ]
    days = [
        {"kind": "date", "name": name, "x": 100, "y": 40 + 15 * i, "boxes": 8} for i, name in enumerate(("from", "to"))
    ]
    return parse({"schema": 1, "id": "bill", "fields": [*fields, *days], "rules": list(rules)})


SUM = {"kind": "sum", "total": "total", "parts": ["first", "second"]}
ORDER = {"kind": "order", "earlier": "from", "later": "to"}
RANGE = {"kind": "range", "field": "total", "most": 20}


def readings(*values: tuple[str, float]) -> list[Reading]:
    return [Reading(value, value, p) for value, p in values]


def test_a_sum_settles_which_of_two_readings_it_is() -> None:
    found, broken = agreed(
        form(SUM),
        {
            "first": readings(("10.00", 0.99), ("70.00", 0.01)),
            "second": readings(("5.50", 0.55), ("6.50", 0.45)),
            "total": readings(("16.50", 0.97), ("15.60", 0.03)),
        },
    )
    assert [found[name][0].value for name in ("first", "second", "total")] == ["10.00", "6.50", "16.50"]
    assert found["second"][0].probability > 0.99
    assert broken == {}


def test_a_sum_that_cannot_be_refers_all_of_its_fields() -> None:
    found, broken = agreed(
        form(SUM),
        {
            "first": readings(("10.00", 0.999)),
            "second": readings(("5.50", 0.999), ("5.58", 0.0005)),
            "total": readings(("15.58", 0.999)),
        },
    )
    assert broken == dict.fromkeys(("first", "second", "total"), "rule-sum")
    assert found["total"][0].probability < 0.5


def test_probabilities_are_over_all_combinations_that_agree() -> None:
    given = {
        "first": readings(("1.00", 0.6), ("2.00", 0.4)),
        "second": readings(("1.00", 0.7), ("0.00", 0.3)),
        "total": readings(("2.00", 0.9), ("3.00", 0.1)),
    }
    found, _ = agreed(form(SUM), given)
    weighed = {("1.00", "1.00", "2.00"): 0.6 * 0.7 * 0.9, ("2.00", "0.00", "2.00"): 0.4 * 0.3 * 0.9,
               ("2.00", "1.00", "3.00"): 0.4 * 0.7 * 0.1}  # fmt: skip
    total = 9.9 * sum(weighed.values()) + 0.01
    assert found["first"][0] == Reading("1.00", "1.00", pytest.approx(9.9 * 0.378 / total))  # type: ignore[arg-type]
    assert found["total"][0].probability == pytest.approx(9.9 * (0.378 + 0.108) / total)


def test_days_in_order_and_numbers_within_bounds() -> None:
    days = {"from": readings(("2024-05-01", 0.6), ("2024-03-01", 0.4)), "to": readings(("2024-04-01", 0.99))}
    found, broken = agreed(form(ORDER), days)
    assert found["from"][0].value == "2024-03-01"
    _, broken = agreed(form(ORDER), {**days, "from": readings(("2024-05-01", 0.9999))})
    assert broken == {"from": "rule-order", "to": "rule-order"}
    found, broken = agreed(form(RANGE), {"total": readings(("70.00", 0.7), ("10.00", 0.3))})
    assert (found["total"][0].value, broken) == ("10.00", {})
    assert agreed(form(RANGE), {"total": readings(("70.00", 0.999))})[1] == {"total": "rule-range"}


def test_rules_that_share_a_field_are_judged_together() -> None:
    found, broken = agreed(
        form(SUM, RANGE),
        {
            "first": readings(("10.00", 0.5), ("30.00", 0.5)),
            "second": readings(("5.00", 1.0)),
            "total": readings(("35.00", 0.5), ("15.00", 0.5)),
        },
    )
    assert (found["total"][0].value, found["first"][0].value, broken) == ("15.00", "10.00", {})


def test_a_field_that_nothing_was_read_of_is_judged_by_no_rule() -> None:
    given = {"first": readings(("1.00", 0.9)), "second": [], "total": readings(("2.00", 0.9))}
    assert agreed(form(SUM), given) == (given, {})


def test_empty_fields() -> None:
    rule = SumRule(kind="sum", total="t", parts=("a", "b"))
    assert keeps(rule, {"a": "1.50", "b": "", "t": "1.50"})
    assert keeps(rule, {"a": "1.50", "b": "2", "t": ""})
    assert keeps(OrderRule(kind="order", earlier="a", later="b"), {"a": "2024-01-01", "b": ""})
    assert keeps(RangeRule(kind="range", field="a", least=3), {"a": ""})
    assert not keeps(RangeRule(kind="range", field="a", least=3), {"a": "2"})


def test_which_fields_a_rule_guards() -> None:
    assert is_redundant(form(SUM), "first")
    assert not is_redundant(form(SUM), "from")
    assert not is_redundant(form(ORDER, RANGE), "total")
