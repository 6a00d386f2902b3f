"""A field's characters, as probabilities, and its boxes, as empty or not -> the best valid readings with probabilities.

Exact: the sum over everything valid is taken by the machines of `grammar`, the best readings by a search that is guided
by the best that can still follow. A reading's probability is that of its text, given what was seen:

    P = w p(best) / (sum over valid texts of w p + MISTAKE),  w = (1 - MISTAKE) / share of valid texts, at most LARGEST

p are the model's probabilities over *all* of its characters, so that what looks like none that may stand here counts
for a mistake: of the writer, of the paper or of the model. Without it, a check digit would turn a plainly written wrong
number into a valid one and call it certain.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counted
from math import prod
from typing import cast

import numpy as np
import numpy.typing as npt

from hwr_export.labels import LOOK_ALIKE_CASES
from hwr_export.scanner.form.checks import DEAD, Machine
from hwr_export.scanner.form.fields import AmountField, DateField, LettersField, WrittenField
from hwr_export.scanner.form.grammar import Branch, Calendar, branches, parts_of

Floats = npt.NDArray[np.float64]
MISTAKE = 0.01  # prior share of fields whose text is not valid, or not text
LARGEST = 10.0  # weight of a valid text: a day in one field of a thousand must not be believed against what is seen
LEAST = 1e-9  # probability that anything is given
NEGLIGIBLE = 1e-6  # of what the likeliest way of filling can contribute, below which another is not looked at


@dataclass(frozen=True)
class Reading:
    """A value with its probability; `text` is what stands in the boxes that are not empty."""

    value: str
    text: str
    probability: float


def emissions(probabilities: npt.NDArray[np.floating], labels: str, field: WrittenField) -> Floats:
    """Return the probabilities of the field's alphabet, float64 (N, characters), out of a model's answers.

    Rows add up to what speaks for any character of the alphabet.

    Args:
        probabilities: float32 (N, classes).
        labels: the model's label set.
    """
    probabilities = probabilities.astype(np.float64)
    columns = probabilities[:, [labels.index(c) for c in field.alphabet]]
    if isinstance(field, LettersField) or not any(c.islower() for c in field.alphabet):
        for i, capital in enumerate(field.alphabet):
            small = capital.lower()
            # Written alike, the small letter is the capital where no small letters may stand.
            if capital in LOOK_ALIKE_CASES and small not in field.alphabet and small in labels:
                columns[:, i] += probabilities[:, labels.index(small)]
    return np.asarray(columns, dtype=np.float64)


def decode(field: WrittenField, characters: Floats, blanks: Floats, readings: int = 4) -> list[Reading]:
    """Return the best readings, the likeliest first; none where nothing valid fits the boxes.

    Args:
        characters: as `emissions` returns them, float64 (N, characters), of every box or character of a line.
        blanks: float64 (N,), probability that a box is empty.
    """
    blanks = np.clip(blanks, LEAST, 1 - LEAST)
    characters = np.maximum(characters, LEAST)
    total = MISTAKE
    found: list[tuple[float, str]] = []
    ways = _ways(field, characters, blanks)
    negligible = NEGLIGIBLE * max((bound for bound, _, _ in ways), default=0.0)
    for bound, weight, branch in ways:
        if bound <= negligible:
            continue
        seen, alphabet = characters[list(branch.filled)], field.alphabet
        if isinstance(branch.judge, Machine) and branch.judge.alphabet != alphabet:
            seen, alphabet = _in_alphabet(seen, alphabet, branch.judge.alphabet), branch.judge.alphabet
        total += weight * _sum(branch.judge, seen)
        found += [(weight * p, text) for p, text in _best(branch.judge, seen, alphabet, readings)]
    if isinstance(field, AmountField):
        found += _other_spellings(field, characters, ways, {text for _, text in found if text})
    values: dict[str, Reading] = {}
    for p, text in sorted(found, key=lambda each: -each[0]):
        value = value_of(field, text)
        before = values.get(value)
        # Two ways of writing one value, as 012 and 12, are one answer.
        probability = p / total + (before.probability if before else 0.0)
        values[value] = Reading(value, before.text if before else text, min(1.0, probability))
    return sorted(values.values(), key=lambda reading: -reading.probability)[:readings]


def value_of(field: WrittenField, text: str) -> str:
    """Return the value that a text stands for, as results have it."""
    if not text:
        return ""
    if isinstance(field, DateField):
        return _day(field, text)
    if isinstance(field, AmountField):
        whole, decimals = (text[: -field.decimals], text[-field.decimals :]) if field.decimals else (text, "")
        return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")
    return text


def first_box(field: WrittenField, text: str, boxes: int) -> int:
    """Return in which of its boxes a text begins: amounts stand at the right, all else at the left."""
    return boxes - len(text) if isinstance(field, AmountField) and field.boxes is not None else 0


def text_of(field: WrittenField, value: str) -> str:
    """Return a value as it is written into the boxes."""
    if isinstance(field, DateField) and value:
        year, month, day = value.split("-")
        named = {"YYYY": year, "YY": year[2:], "MM": month, "DD": day}
        return "".join(named[part] for part in parts_of(field.order))
    return value.replace(".", "") if isinstance(field, AmountField) else value


def _day(field: DateField, text: str) -> str:
    starts = np.cumsum([0, *(len(part) for part in parts_of(field.order))])
    named = {part: text[a : a + len(part)] for part, a in zip(parts_of(field.order), starts, strict=False)}
    years = [int(named["YYYY"])] if "YYYY" in named else range(field.first.year, field.last.year + 1)
    days = [
        f"{year}-{named['MM']}-{named['DD']}" for year in years if "YYYY" in named or year % 100 == int(named["YY"])
    ]
    # Of a year in two digits both ends of the bounds may be meant: one of the days lies between them.
    return next((day for day in days if str(field.first) <= day <= str(field.last)), days[0])


def _ways(field: WrittenField, characters: Floats, blanks: Floats) -> list[tuple[float, float, Branch]]:
    """Return the ways of filling the boxes: a bound of all that speaks for each, what does before its texts are looked
    at, and the way itself."""
    empty, likeliest = blanks.tolist(), characters.max(axis=1).tolist()
    found = []
    for branch in branches(field, len(empty)):
        filled = set(branch.filled)
        weight = prod(1 - b if i in filled else b for i, b in enumerate(empty))
        weight *= (1 - MISTAKE) * min(LARGEST, 1 / max(LEAST, branch.share))
        best = {i: likeliest[i] for i in branch.filled}
        for i, character in enumerate(branch.begins):
            best[i] = float(characters[i, field.alphabet.index(character)]) if character in field.alphabet else 0.0
        found.append((weight * prod(best[i] for i in branch.filled), weight, branch))
    return found


def _other_spellings(
    field: AmountField, characters: Floats, ways: Sequence[tuple[float, float, Branch]], texts: set[str]
) -> list[tuple[float, str]]:
    """Return what is written like one of the texts but for zeros before it, with its probability; 012 beside 12."""
    found = []
    for digits in {text.lstrip("0") for text in texts}:
        for _, weight, branch in ways:
            text = digits.rjust(len(branch.filled), "0")
            if text and len(text) == len(branch.filled) and text not in texts and set(text) <= set(field.alphabet):
                seen = (characters[i, field.alphabet.index(c)] for i, c in zip(branch.filled, text, strict=True))
                found.append((weight * float(prod(seen)), text))
    return found


def _sum(judge: Machine | Calendar | None, seen: Floats) -> float:
    """Return the probability of all valid texts."""
    if judge is None:
        return float(seen.sum(axis=1).prod())
    if isinstance(judge, Calendar):
        days, years = _calendar_parts(judge, seen)
        return float(days @ judge.known @ years)
    weights = np.zeros(len(judge.accepted))
    weights[judge.start] = 1.0
    for position, step in zip(judge.order, judge.steps, strict=True):
        spread = weights[:, None] * seen[position]
        alive = step != DEAD
        weights = np.asarray(np.bincount(step[alive], spread[alive], len(weights)), dtype=np.float64)
    return float(weights[judge.accepted].sum())


def _best(judge: Machine | Calendar | None, seen: Floats, alphabet: str, readings: int) -> list[tuple[float, str]]:
    """Return the likeliest valid texts with their probabilities."""
    if isinstance(judge, Calendar):
        days, years = _calendar_parts(judge, seen)
        each = (days[:, None] * years * judge.known).ravel()
        top = np.argpartition(-each, min(readings, len(each) - 1))[:readings]
        return [(float(each[i]), judge.text(*divmod(int(i), len(years)))) for i in top if each[i] > 0]
    if judge is None:
        return _best_of_any(seen, alphabet, readings)
    length, order, start, steps = len(seen), judge.order, judge.start, judge.steps
    following = _best_that_can_follow(seen, order, steps, judge.accepted, len(judge.accepted))
    results: list[tuple[float, str]] = []
    number = counted()
    heap: list[tuple[float, int, int, int, float, tuple[int, ...]]]
    heap = [(-float(following[0][start]), next(number), 0, start, 1.0, ())]
    while heap and len(results) < readings:
        _, _, k, state, so_far, taken = heapq.heappop(heap)
        if k == length:
            text = [""] * length
            for position, character in zip(order, taken, strict=True):
                text[position] = alphabet[character]
            results.append((so_far, "".join(text)))
            continue
        targets = steps[k][state]
        bound = np.where(targets == DEAD, 0.0, seen[order[k]] * following[k + 1][targets])
        # Each child leads to a reading as good as its bound: more children than readings are never needed.
        for character in np.argsort(-bound)[: readings + 1]:
            if bound[character] > 0:
                p = so_far * float(seen[order[k], character])
                new = (*taken, int(character))
                target = int(targets[character])
                heapq.heappush(heap, (-so_far * float(bound[character]), next(number), k + 1, target, p, new))
    return results


def _best_of_any(seen: Floats, alphabet: str, readings: int) -> list[tuple[float, str]]:
    """Return the likeliest texts with their probabilities where all are valid; what begins one is likeliest too."""
    top = np.argsort(-seen, axis=1, kind="stable")[:, :readings]
    best = [(1.0, "")]
    for characters, row in zip(top.tolist(), seen, strict=True):
        each = [(float(row[c]), alphabet[c]) for c in characters]
        longer = [(p * q, text + character) for p, text in best for q, character in each]
        best = sorted(longer, key=lambda each: -each[0])[:readings]
    return best


def _best_that_can_follow(
    seen: Floats,
    order: tuple[int, ...],
    steps: Sequence[npt.NDArray[np.int64]],
    accepted: npt.NDArray[np.bool_],
    states: int,
) -> list[Floats]:
    """Return for each step and state the probability of the best valid rest."""
    following = [np.where(accepted, 1.0, 0.0)]
    for k in reversed(range(len(order))):
        rest = np.where(steps[k] == DEAD, 0.0, seen[order[k]] * following[-1][steps[k]])
        following.append(rest.max(axis=1) if states else rest)
    return following[::-1]


def _in_alphabet(seen: Floats, alphabet: str, wanted: str) -> Floats:
    """Return the columns of another alphabet; a character that may not stand here has no probability."""
    columns = [alphabet.find(c) for c in wanted]
    return cast("Floats", np.where(np.array(columns) < 0, 0.0, seen[:, columns]))


def _calendar_parts(judge: Calendar, seen: Floats) -> tuple[Floats, Floats]:
    """Return the probabilities of the days of a year, and of the years."""
    starts = dict(zip(parts_of(judge.order), np.cumsum([0, *map(len, parts_of(judge.order))]), strict=False))

    def written(part: str, numbers: npt.NDArray[np.int64]) -> Floats:
        digits = [numbers // 10 ** (len(part) - 1 - i) % 10 for i in range(len(part))]
        return cast("Floats", np.prod([seen[starts[part] + i][d] for i, d in enumerate(digits)], axis=0))

    days = np.array(judge.days)
    year = "YYYY" if "YYYY" in starts else "YY"
    return written("MM", days[:, 0]) * written("DD", days[:, 1]), written(year, np.array(judge.years))
