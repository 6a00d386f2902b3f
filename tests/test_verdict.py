import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.verdict import EXIT_CODE, Comparison, Tolerance, judge, overall, tolerance_from_goldens

TOLERANCE = Tolerance(1e-4, "made")


def comparison(**changes) -> Comparison:
    return Comparison(
        **({"n": 10_000, "flips": 0, "flip_margins": (), "max_abs_logit_diff": 1e-5, "tolerance": TOLERANCE} | changes)
    )


def test_within_rounding_passes() -> None:
    assert judge(comparison()) == ("PASS", [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_abs_logit_diff": 2e-4}, "largest logit difference 0.0002 is above 0.0001"),
        ({"max_abs_logit_diff": math.nan}, "largest logit difference nan"),
        ({"max_abs_logit_diff": math.inf}, "largest logit difference inf"),
        ({"flips": 1, "flip_margins": (0.5,)}, "1 of 10000 images change their answer"),
        ({"broken": ("it crashed",)}, "it crashed"),
    ],
)
def test_each_kind_of_failure_has_its_reason(changes: dict, reason: str) -> None:
    verdict, reasons = judge(comparison(**changes))
    assert verdict == "FAIL"
    assert reason in reasons[0]


def test_a_flip_between_tied_classes_is_undecided() -> None:
    verdict, (reason,) = judge(comparison(flips=1, flip_margins=(1e-5,)))
    assert verdict == "UNDECIDED"
    assert "within rounding" in reason


def test_a_few_images_decide_nothing() -> None:
    verdict, (reason,) = judge(comparison(n=10))
    assert verdict == "UNDECIDED"
    assert "25.9 %" in reason  # 1 - 0.05 ** (1 / 10)


@given(st.floats(0, 1e-4), st.floats(0, 1))
def test_a_larger_difference_never_helps(small: float, more: float) -> None:
    order = ["PASS", "UNDECIDED", "FAIL"]
    first, second = (judge(comparison(max_abs_logit_diff=d))[0] for d in (small, small + more))
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


def test_the_tolerance_comes_from_the_models_own_noise(release: Release) -> None:
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    tolerance = tolerance_from_goldens(goldens)
    assert tolerance.value >= 10 * goldens.noise_floor > 0
    assert tolerance.value < 1e-2
    assert "float32 and float64 on 256 goldens" in tolerance.reason
