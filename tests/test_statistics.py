import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.statistics import (
    area_under_risk_coverage,
    clustered_interval,
    confidence_at_rejection,
    expected_calibration_error,
    fit_temperature,
    median,
    negative_log_likelihood,
    rate_upper_bound,
    rejection_threshold,
    reliability,
    risk_at_rejection,
    risk_coverage_curve,
    softmax,
    wilson_interval,
)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8), st.floats(0.05, 20))
def test_softmax_is_a_distribution(logits: list[float], temperature: float) -> None:
    p = softmax(np.array([logits]), temperature)
    assert p.sum() == pytest.approx(1)
    assert (p >= 0).all()


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I, method 3: 81/263 and 15/148, 0/20, 1/29.
    for (k, n), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson_interval(k, n) == pytest.approx(expected, abs=6e-5)


def test_upper_bound_against_the_closed_form() -> None:
    # With no event the exact bound is 1 - alpha ** (1 / n).
    assert rate_upper_bound(0, 10_000) == pytest.approx(1 - 0.05 ** (1 / 10_000), rel=1e-6)
    assert rate_upper_bound(10_000, 10_000) == 1.0
    # Beta(11, 90).ppf(0.95), the Clopper-Pearson bound of 10 in 100.
    assert rate_upper_bound(10, 100) == pytest.approx(0.16372, abs=1e-4)


def test_upper_bound_covers() -> None:
    rng = np.random.default_rng(0)
    p, n = 0.03, 200
    covered = [rate_upper_bound(int(k), n) >= p for k in rng.binomial(n, p, 400)]
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    fitted = fit_temperature(logits * temperature, labels)
    assert fitted == pytest.approx(temperature, rel=0.04)
    assert negative_log_likelihood(logits * temperature, labels, fitted) <= negative_log_likelihood(
        logits * temperature, labels
    )


def test_ece_of_known_cases() -> None:
    always_sure = np.tile([[1.0, 0.0]], (10, 1))
    assert expected_calibration_error(always_sure, np.zeros(10, int)) == 0
    assert expected_calibration_error(always_sure, np.array([0] * 6 + [1] * 4)) == pytest.approx(0.4)


def test_rejection_threshold_holds_its_bound() -> None:
    confidence = np.array([0.99, 0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, True, False, True])
    assert rejection_threshold(confidence, correct, 0.0) == 0.8
    assert rejection_threshold(confidence, correct, 0.2) == 0.6
    assert rejection_threshold(confidence, np.zeros(5, bool), 0.1) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 0.5))
def test_rejection_threshold_never_accepts_more_error(pairs: list[tuple[float, bool]], limit: float) -> None:
    confidence = np.array([c for c, _ in pairs])
    correct = np.array([ok for _, ok in pairs])
    threshold = rejection_threshold(confidence, correct, limit)
    accepted = confidence >= threshold
    if threshold < 1.0:
        assert (~correct[accepted]).mean() <= limit


def test_clustered_interval_is_wilson_for_independent_samples_and_wider_for_clustered_ones() -> None:
    rng = np.random.default_rng(0)
    independent = rng.random(4000) < 0.9
    found = clustered_interval(independent, np.arange(4000))
    assert found == pytest.approx(wilson_interval(int(independent.sum()), 4000), abs=2e-3)
    writers = np.repeat(np.arange(100), 40)
    clustered = np.repeat(rng.random(100) < 0.9, 40)
    low, high = clustered_interval(clustered, writers)
    narrow = wilson_interval(int(clustered.sum()), 4000)
    # Forty identical answers are one answer: the width is that of 100 samples.
    assert (high - low) == pytest.approx(np.subtract(*wilson_interval(int(clustered.sum()) // 40, 100)[::-1]), rel=0.1)
    assert high - low > 4 * (narrow[1] - narrow[0])


def test_clustered_interval_covers() -> None:
    rng = np.random.default_rng(1)
    writers = np.repeat(np.arange(60), 20)
    covered = 0
    for _ in range(300):
        low, high = clustered_interval(rng.random(1200) < np.repeat(rng.beta(18, 2, 60), 20), writers)
        covered += low <= 0.9 <= high
    assert covered / 300 >= 0.91


def test_risk_and_coverage_of_known_cases() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, False, False])
    assert [risk_at_rejection(confidence, correct, r) for r in (0, 0.25, 0.5, 1)] == [0.5, pytest.approx(1 / 3), 0, 0]
    assert area_under_risk_coverage(confidence, correct) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert area_under_risk_coverage(confidence, ~correct) > area_under_risk_coverage(confidence, correct)


judged = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300)


@given(judged, st.integers(2, 200))
def test_the_risk_coverage_curve_is_what_rejection_leaves(pairs: list[tuple[float, bool]], points: int) -> None:
    confidence, correct = np.array([c for c, _ in pairs]), np.array([ok for _, ok in pairs])
    coverage, risk = risk_coverage_curve(confidence, correct, points)
    assert 1 <= len(coverage) == len(risk) <= points
    assert coverage[0] == 1
    assert coverage[-1] == pytest.approx(1 / len(pairs))
    assert (np.diff(coverage) < 0).all()
    assert risk == pytest.approx([risk_at_rejection(confidence, correct, 1 - c) for c in coverage])


@given(judged)
def test_the_whole_curve_has_the_area_under_it(pairs: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([c for c, _ in pairs]), np.array([ok for _, ok in pairs])
    found = {
        len(pairs) - round(c * len(pairs)): r for c, r in zip(*risk_coverage_curve(confidence, correct), strict=True)
    }
    if len(found) == len(pairs):
        assert np.mean(list(found.values())) == pytest.approx(area_under_risk_coverage(confidence, correct))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100), st.floats(0, 1))
def test_the_confidence_at_a_rejection_rejects_no_more(values: list[float], rejected: float) -> None:
    confidence = np.array(values)
    threshold = confidence_at_rejection(confidence, rejected)
    kept = len(values) - round(rejected * len(values))
    assert (confidence >= threshold).sum() >= kept
    assert kept == 0 or (confidence > threshold).sum() < kept


def test_reliability_of_known_bins() -> None:
    probabilities = np.array([[0.95, 0.05], [0.99, 0.01], [0.6, 0.4], [0.4, 0.6]])
    bins = reliability(probabilities, np.array([0, 1, 0, 0]), bins=10)
    assert bins == [(pytest.approx(0.6), 0.5, 2), (pytest.approx(0.97), 0.5, 2)]
    assert expected_calibration_error(probabilities, np.array([0, 1, 0, 0]), bins=10) == pytest.approx(0.285)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_the_median_is_numpys_to_the_last_bit(values: list[float]) -> None:
    assert median(np.array(values)) == float(np.median(values))
