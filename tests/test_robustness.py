"""Twenty-one comparisons: no refusal by luck, no acceptance by smallness."""

import numpy as np

from hwr_export.corruptions import KINDS
from hwr_export.robustness import Condition, compare_conditions, judge_robustness

ALL = [(kind, strength) for kind, k in KINDS.items() for strength in k.strengths]


def made(rng: np.random.Generator, n: int, broken: float, fixed: float, labels: np.ndarray) -> list[Condition]:
    found = []
    for kind, strength in ALL:
        eager, exported = (labels.copy() for _ in range(2))
        chance = rng.random(n)
        exported[chance < broken] = 1
        eager[chance > 1 - fixed] = 1
        found.append(Condition(kind, strength, eager, exported))
    return found


def test_identical_decisions_pass_however_few_they_are() -> None:
    labels = np.zeros(50, int)
    found = compare_conditions([Condition(k, s, labels, labels) for k, s in ALL], labels, None, 0.001)
    assert judge_robustness(found) == ([], [])
    assert found.as_json()["verdict"] == "PASS"
    assert found.as_json()["needed_n"] == 0


def test_equal_files_that_flip_are_hardly_ever_refused() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(1000, int)
    refused = sum(
        bool(judge_robustness(compare_conditions(made(rng, 1000, 0.01, 0.01, labels), labels, None, 0.001))[0])
        for _ in range(40)
    )
    assert refused == 0


def test_a_loss_everywhere_is_refused_by_all_conditions_together() -> None:
    labels = np.zeros(1000, int)
    failed, _ = judge_robustness(
        compare_conditions(made(np.random.default_rng(0), 1000, 0.008, 0.002, labels), labels, None, 0.001)
    )
    assert failed[-1].startswith("under all scanner conditions together")


def test_what_cannot_be_told_says_how_many_more_would() -> None:
    labels = np.zeros(300, int)
    rng = np.random.default_rng(1)
    found = compare_conditions(made(rng, 300, 0.01, 0.01, labels), labels, None, 0.001)
    failed, (reason,) = judge_robustness(found)
    assert failed == []
    assert "more would decide (--corrupted)" in reason
    assert found.needed_n > 300


def test_the_same_image_under_every_condition_is_not_twenty_one_images() -> None:
    labels = np.zeros(1000, int)
    exported = labels.copy()
    exported[:2] = 1
    found = compare_conditions([Condition(k, s, labels, exported) for k, s in ALL], labels, None, 0.001)
    assert found.together.design_effect > 20
    assert judge_robustness(found)[1]


def test_a_margin_finer_than_the_conditions_can_tell_refuses_but_does_not_ask_for_more() -> None:
    labels = np.zeros(2000, int)
    found = compare_conditions(made(np.random.default_rng(2), 2000, 0.003, 0.0028, labels), labels, None, 0.0003)
    assert found.together.lower < -found.margin
    assert judge_robustness(found) == ([], [])
    worse = compare_conditions(made(np.random.default_rng(2), 2000, 0.006, 0.003, labels), labels, None, 0.0003)
    assert judge_robustness(worse)[0]
