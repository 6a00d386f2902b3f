import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.decisions import compare_decisions
from hwr_export.labels import ALPHANUMERIC, DIGITS
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.statistics import softmax


def answering(*classes: int, margin: float = 4.0, among: int = 10) -> Arrays:
    logits = np.zeros((len(classes), among), np.float32)
    logits[np.arange(len(classes)), classes] = margin
    return {LOGITS: logits, PROBABILITIES: softmax(logits).astype(np.float32)}


def test_flips_have_directions() -> None:
    labels = np.array([1, 1, 1, 1, -1])
    found = compare_decisions(answering(1, 1, 2, 2, 5), answering(1, 7, 1, 3, 6), labels, DIGITS)
    assert found.flips == 4
    assert found.directions == {"right_to_wrong": 1, "wrong_to_right": 1, "wrong_to_wrong": 1, "unlabelled": 1}
    assert found.flip_margins == (4.0,) * 4
    assert found.as_json()["flip_margins"] == {"min": 4.0, "median": 4.0, "max": 4.0}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-1, 9)), min_size=1, max_size=40))
def test_every_flip_has_one_direction(rows: list[tuple[int, int, int]]) -> None:
    eager, exported, labels = zip(*rows, strict=True)
    found = compare_decisions(answering(*eager), answering(*exported), np.array(labels), DIGITS)
    assert sum(found.directions.values()) == found.flips == sum(a != b for a, b, _ in rows)
    assert found.kl["max"] + 1e-9 >= found.kl["mean"] >= 0


def test_divergence_is_that_of_the_textbook() -> None:
    eager, exported = answering(3), answering(3, margin=2.0)
    p, q = eager[PROBABILITIES][0], exported[PROBABILITIES][0]
    found = compare_decisions(eager, exported, np.array([3]), DIGITS)
    assert found.kl["mean"] == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-5)
    assert compare_decisions(eager, eager, np.array([3]), DIGITS).kl["max"] == 0


def test_the_worst_class_is_the_one_that_loses_most() -> None:
    labels = np.array([1, 1, 2, 2, 2, 2])
    found = compare_decisions(answering(1, 1, 2, 2, 2, 2), answering(1, 7, 2, 2, 2, 3), labels, DIGITS)
    assert found.worst_class == {"label": "1", "n": 2, "flips": 1, "accuracy": 0.5, "eager_accuracy": 1.0}
    assert compare_decisions(answering(1), answering(1), np.array([1]), DIGITS).worst_class is None


def test_confusable_pairs_of_the_label_set() -> None:
    labels = np.array([1, 7, 4])
    found = compare_decisions(answering(1, 7, 4), answering(7, 7, 8), labels, DIGITS)
    assert [g["characters"] for g in found.confusable] == ["1/7", "4/9", "3/5", "0/6"]
    assert found.confusable[0] == {"characters": "1/7", "flips": 1, "errors": 1, "eager_errors": 0}
    assert found.confusable[1]["errors"] == 0  # a four taken for an eight is no confusion of 4 and 9
    all_of_them = compare_decisions(answering(1, among=62), answering(1, among=62), np.array([1]), ALPHANUMERIC)
    assert [g["characters"] for g in all_of_them.confusable][4:] == ["0/O", "1/l/I", "5/S", "2/Z"]
