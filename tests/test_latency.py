import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.latency import (
    Interval,
    Ratio,
    percentile,
    percentile_bound,
    quotient,
    ratio,
    round_medians,
    spread,
    summary,
    undisturbed,
)


def test_an_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = percentile(rng.exponential(100, 60), 50)
        hits += found["low"] <= 100 * np.log(2) <= found["high"]
    assert 0.945 <= hits / 2000 <= 0.985  # at least 95 %, order statistics are not finer


def test_the_published_interval_of_a_median() -> None:
    """n = 20: the 6th and 15th of 20 values bound the median with 95.9 % (Conover 1999, table of the sign test)."""
    found = percentile(np.arange(1.0, 21.0), 50)
    assert (found["low"], found["high"]) == (6.0, 15.0)
    assert found["value"] == 10.5


@pytest.mark.parametrize(("q", "least"), [(50, 6), (90, 36), (99, 368)])
def test_no_percentile_without_the_samples_for_it(q: int, least: int) -> None:
    assert percentile(np.arange(float(least - 1)), q) is None
    assert percentile(np.arange(float(least)), q) is not None


@pytest.mark.parametrize(("q", "n"), [(90, 44), (99, 459)])
def test_mlperf_needs_so_many_queries_without_any_above(q: int, n: int) -> None:
    """0.9^44 and 0.99^459 are the first below 1 %: then the slowest of n is a bound."""
    assert percentile_bound(np.arange(float(n - 1)), q) is None
    assert percentile_bound(np.arange(float(n)), q) == n - 1


def test_mlperf_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true = -np.log(0.1)
    held = np.mean([percentile_bound(rng.exponential(1, 300), 90) >= true for _ in range(2000)])
    assert 0.985 <= held <= 1.0


def test_summary_says_nothing_that_n_does_not_support() -> None:
    few = summary(np.linspace(1, 2, 100).reshape(20, 5))
    assert few["n"] == 100
    assert few["p50_us"] == pytest.approx(1.5)
    assert few["p90_us"] is not None
    assert few["p99_us"] is few["p99_ci_us"] is few["p99_mlperf_bound_us"] is None


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (Ratio(1.0, 0.97, 1.03), "SAME"),
        (Ratio(1.10, 1.06, 1.14), "SLOWER"),
        (Ratio(0.90, 0.86, 0.94), "FASTER"),
        (Ratio(1.03, 0.9, 1.2), "AMBIGUOUS"),
        (Ratio(1.10, 0.98, 1.2), "AMBIGUOUS"),
        (Ratio(1.04, 1.02, 1.06), "AMBIGUOUS"),
    ],
)
def test_answers(found: Ratio, answer: str) -> None:
    assert found.answer(0.05) == answer


@given(st.integers(0, 1000), st.floats(0.5, 2.0))
def test_a_ratio_knows_its_scale(seed: int, factor: float) -> None:
    rounds = np.random.default_rng(seed).lognormal(0, 0.02, 20) * 300
    found = ratio(rounds * factor, rounds)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(factor)
    other_way = ratio(rounds, rounds * factor)
    assert other_way.value == pytest.approx(1 / factor)


def test_a_slowdown_of_ten_percent_is_told_from_noise() -> None:
    rng = np.random.default_rng(2)
    same, slower = [], []
    for seed in range(200):
        old, new = rng.lognormal(0, 0.03, 20), rng.lognormal(0, 0.03, 20)
        same.append(ratio(new, old, seed).answer(0.05))
        slower.append(ratio(1.1 * new, old, seed).answer(0.05))
    assert same.count("SAME") >= 190
    assert same.count("SLOWER") + same.count("FASTER") == 0
    assert slower.count("SLOWER") >= 190


def test_what_disturbs_a_machine_for_minutes_does_not_disturb_a_comparison() -> None:
    """Whole runs under load, whose medians differ by a fifth and whose quickest calls do not."""
    rng = np.random.default_rng(3)

    def run(cost: float) -> np.ndarray:
        load = rng.uniform(0.1, 0.6)  # of this run: how much other work costs a call, where it does
        return cost * (1 + rng.exponential(load, (20, 10))) * rng.lognormal(0, 0.002, (20, 10))

    medians, same, slower = [], [], []
    for _ in range(100):
        new, old, slow = run(100), run(100), run(110)
        medians.append(np.median(new) / np.median(old))
        same.append(quotient(undisturbed(new), undisturbed(old)).answer(0.05))
        slower.append(quotient(undisturbed(slow), undisturbed(old)).answer(0.05))
    assert np.std(np.log(medians)) > 0.1
    assert same.count("SAME") >= 95
    assert same.count("SLOWER") + same.count("FASTER") == 0
    assert slower.count("SLOWER") >= 95


def test_a_quotient_bounds_what_was_measured_apart() -> None:
    found = quotient(Interval(200, 190, 220), Interval(100, 100, 100))
    assert (found.value, found.low, found.high) == pytest.approx((2, 1.9, 2.2))
    both = quotient(Interval(200, 190, 220), Interval(100, 90, 110))
    assert both.low < 1.9 < 2.2 < both.high
    back = quotient(Interval(100, 90, 110), Interval(200, 190, 220))
    assert (back.low, back.high) == pytest.approx((1 / both.high, 1 / both.low))


def test_rounds() -> None:
    samples = np.array([[1.0, 2.0, 9.0], [4.0, 5.0, 6.0]])
    assert round_medians(samples).tolist() == [2.0, 5.0]
    assert spread(np.full(20, 3.0)) == 0
    assert spread(np.linspace(0.9, 1.1, 21)) == pytest.approx(0.16)
