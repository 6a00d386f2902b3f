import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.decisions import Decisions
from hwr_export.numbers import Numbers, OutputNumbers, Tolerance
from hwr_export.robustness import Condition, compare_conditions
from hwr_export.spec import LOGITS
from hwr_export.task import Rate, Task
from hwr_export.verdict import EXIT_CODE, Evidence, judge, overall
from tests.test_paired import answers, paired_difference

TOLERANCE = Tolerance(1e-4, "made", {})


def numbers(difference: float, broken: tuple[str, ...] = ()) -> Numbers:
    return Numbers({LOGITS: OutputNumbers((1, 10), "float32", True, difference, difference, difference, 1.0)}, broken)


def decisions(n: int = 10_000, margins: tuple[float, ...] = ()) -> Decisions:
    return Decisions(n, len(margins), {}, margins, {}, None, [])


def task(fixed: int, broken: int, n: int = 10_000, margin: float = 0.001) -> Task:
    rate = Rate("accuracy", paired_difference(*answers(n, fixed, broken)), margin)
    return Task(n, None, (rate,), (0.0, 0.0), 0.5, (1.0, 1.0), (0.0, 0.0))


def evidence(**changes) -> Evidence:
    made = Evidence(10_000, "fp32", numbers(1e-5), TOLERANCE, decisions(), task(0, 0))
    return replace(made, **changes)


def integer(**changes) -> Evidence:
    return evidence(**{"precision": "int8", "tolerance": None, "numbers": numbers(0.5)} | changes)


def test_within_rounding_passes() -> None:
    assert judge(evidence()) == ("PASS", [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"numbers": numbers(2e-4)}, "largest logit difference 0.0002 is above 0.0001"),
        ({"numbers": numbers(math.nan)}, "largest logit difference nan"),
        ({"numbers": numbers(math.inf)}, "largest logit difference inf"),
        ({"numbers": numbers(0, ("logits holds NaN",))}, "logits holds NaN"),
        ({"decisions": decisions(margins=(0.5,))}, "1 of 10000 images change their answer"),
        ({"broken": ("it crashed",)}, "it crashed"),
        (
            {"precision": "fp16", "decisions": decisions(margins=(0.5,)), "task": task(0, 90)},
            "accuracy changes by -0.9",
        ),
    ],
)
def test_each_kind_of_failure_has_its_reason(changes: dict, reason: str) -> None:
    verdict, reasons = judge(evidence(**changes))
    assert verdict == "FAIL"
    assert reason in reasons[0]


def test_a_flip_between_tied_classes_is_undecided() -> None:
    verdict, (reason,) = judge(evidence(decisions=decisions(margins=(1e-5,))))
    assert verdict == "UNDECIDED"
    assert "within rounding" in reason


def test_a_few_images_decide_nothing() -> None:
    verdict, (reason,) = judge(evidence(n=10))
    assert verdict == "UNDECIDED"
    assert "25.9 %" in reason  # 1 - 0.05 ** (1 / 10)


def test_a_copy_without_a_flip_needs_no_sample_to_pass() -> None:
    few = task(0, 0, 256)
    assert judge(evidence(n=256, decisions=decisions(256), task=few))[0] == "PASS"
    verdict, (reason,) = judge(integer(n=256, decisions=decisions(256), task=few))
    assert verdict == "UNDECIDED"
    assert "about 2,447 more images like these would decide" in reason


@pytest.mark.parametrize(
    ("fixed", "broken", "expected"), [(2, 3, "PASS"), (10, 9, "PASS"), (6, 15, "UNDECIDED"), (5, 80, "FAIL")]
)
def test_the_task_decides_of_an_integer_file(fixed: int, broken: int, expected: str) -> None:
    found = integer(decisions=decisions(margins=(0.1,) * (fixed + broken)), task=task(fixed, broken))
    assert judge(found)[0] == expected


def test_an_integer_file_without_labels_is_undecided() -> None:
    verdict, (reason,) = judge(integer(task=None))
    assert verdict == "UNDECIDED"
    assert "no image has a label" in reason


@given(st.floats(0, 1e-4), st.floats(0, 1))
def test_a_larger_difference_never_helps(small: float, more: float) -> None:
    order = ["PASS", "UNDECIDED", "FAIL"]
    first, second = (judge(evidence(numbers=numbers(d)))[0] for d in (small, small + more))
    assert order.index(first) <= order.index(second)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_another_loss_never_helps(fixed: int, broken: int, more: int) -> None:
    order = ["PASS", "UNDECIDED", "FAIL"]
    first, second = (judge(integer(task=task(fixed, b)))[0] for b in (broken, broken + more))
    assert order.index(first) <= order.index(second)


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        (["PASS", "PASS"], "PASS", 0),
        (["PASS", "UNDECIDED"], "UNDECIDED", 3),
        (["UNDECIDED", "FAIL"], "FAIL", 1),
        ([], "UNDECIDED", 3),
    ],
)
def test_overall(verdicts: list, expected: str, code: int) -> None:
    assert overall(verdicts) == expected
    assert EXIT_CODE[overall(verdicts)] == code


def test_a_scanner_condition_can_refuse_a_file_that_is_good_on_clean_images() -> None:
    labels = np.zeros(2000, int)
    worse = labels.copy()
    worse[:60] = 1
    blind = [Condition("blur", 1.2, labels, worse), *(Condition("skew", 5.0, labels, labels) for _ in range(20))]
    verdict, (reason, *_) = judge(integer(robustness=compare_conditions(blind, labels, None, 0.001)))
    assert verdict == "FAIL"
    assert reason.startswith("under blur 1.2 px accuracy changes by -3.00 points on 2,000 images")
