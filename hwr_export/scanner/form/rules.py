"""Fields' readings and the form's rules -> readings that agree with each other, and which rules none of them can keep.

Fields that a rule joins are judged together: over all combinations of their readings, those that keep the rules weigh
as valid texts do in `decode`, and what is left to a mistake is the same. A field's probability is then that of its
value in all combinations that keep the rules.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import product
from math import prod

from hwr_export.scanner.form.decode import LARGEST, MISTAKE, Reading
from hwr_export.scanner.form.definition import Form, RangeRule, Rule, SumRule

MOST_COMBINATIONS = 20_000
BROKEN_BELOW = 0.5  # probability, below which the rule is what refers a field


def agreed(form: Form, readings: Mapping[str, Sequence[Reading]]) -> tuple[dict[str, list[Reading]], dict[str, str]]:
    """Return every field's readings, those under rules judged together, and by field the rule that is broken.

    A rule about a field that nothing was read of says nothing.
    """
    found = {name: list(each) for name, each in readings.items()}
    broken: dict[str, str] = {}
    for names, rules in _joined(form):
        if all(found.get(name) for name in names):
            judged, kept = _judged(rules, {name: found[name] for name in names})
            found |= judged
            broken |= {} if kept else {name: f"rule-{rule.kind}" for rule in rules for name in fields_of(rule)}
    return found, broken


def fields_of(rule: Rule) -> tuple[str, ...]:
    """Return the fields that a rule is about."""
    if isinstance(rule, SumRule):
        return (rule.total, *rule.parts)
    return (rule.field,) if isinstance(rule, RangeRule) else (rule.earlier, rule.later)


def keeps(rule: Rule, values: Mapping[str, str]) -> bool:
    """Tell whether values keep a rule; an empty part of a sum is nothing, elsewhere an empty field is not judged."""
    if isinstance(rule, SumRule):
        return not values[rule.total] or _number(values[rule.total]) == sum(_number(values[p]) for p in rule.parts)
    if any(not values[name] for name in fields_of(rule)):
        return True
    if isinstance(rule, RangeRule):
        number = float(_number(values[rule.field]))
        return (rule.least is None or number >= rule.least) and (rule.most is None or number <= rule.most)
    return values[rule.earlier] <= values[rule.later]  # as ISO 8601 writes days, they sort


def is_redundant(form: Form, name: str) -> bool:
    """Tell whether a rule would notice most wrong digits of a field."""
    return any(isinstance(rule, SumRule) and name in fields_of(rule) for rule in form.rules)


def _number(value: str) -> Decimal:
    return Decimal(value or "0")


def _joined(form: Form) -> list[tuple[list[str], list[Rule]]]:
    """Return groups of fields that rules join, with those rules."""
    groups: list[tuple[list[str], list[Rule]]] = []
    for rule in form.rules:
        names, rules = list(fields_of(rule)), [rule]
        apart = []
        for group in groups:
            if set(group[0]) & set(names):
                names, rules = list(dict.fromkeys([*group[0], *names])), [*group[1], *rules]
            else:
                apart.append(group)
        groups = [*apart, (names, rules)]
    return groups


def _judged(rules: Sequence[Rule], readings: Mapping[str, list[Reading]]) -> tuple[dict[str, list[Reading]], bool]:
    """Return the readings with their probabilities under the rules, and whether those can be kept."""
    names = list(readings)
    depth = max(len(each) for each in readings.values())
    while depth > 1 and prod(min(depth, len(each)) for each in readings.values()) > MOST_COMBINATIONS:
        depth -= 1
    total = MISTAKE
    sums: dict[str, dict[str, float]] = {name: {} for name in names}
    weight = (1 - MISTAKE) * (LARGEST if any(isinstance(rule, SumRule) for rule in rules) else 1.0)
    best, best_values = 0.0, [readings[name][0].value for name in names]
    for combination in product(*(readings[name][:depth] for name in names)):
        values = {name: reading.value for name, reading in zip(names, combination, strict=True)}
        if not all(keeps(rule, values) for rule in rules):
            continue
        p = weight * prod(reading.probability for reading in combination)
        total += p
        if p > best:
            best, best_values = p, list(values.values())
        for name, value in values.items():
            sums[name][value] = sums[name].get(value, 0.0) + p
    judged = {}
    for name, chosen in zip(names, best_values, strict=True):
        texts = {reading.value: reading.text for reading in readings[name]}
        renewed = [Reading(value, texts[value], sums[name].get(value, 0.0) / total) for value in texts]
        # The best combination comes first: values that agree, even where another is likelier by itself.
        judged[name] = sorted(renewed, key=lambda reading: (reading.value != chosen, -reading.probability))
    return judged, best / total >= BROKEN_BELOW
