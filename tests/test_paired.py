"""The paired comparison against closed forms, published examples and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.paired import _tango, against_margin, needed_n, paired_difference
from hwr_export.statistics import wilson_interval


def answers(n: int, fixed: int, broken: int, wrong: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (new, old) with that many discordant images, and `wrong` that both have wrong."""
    new, old = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    old[:fixed] = False
    new[fixed : fixed + broken] = False
    new[n - wrong :] = old[n - wrong :] = wrong == 0
    return new, old


def test_the_bounds_solve_the_score_equation() -> None:
    found = paired_difference(*answers(44, 1, 0), confidence=0.975)
    assert (found.fixed, found.broken) == (1, 0)
    assert found.difference == pytest.approx(1 / 44)
    assert found.lower < 0 < found.difference < found.upper
    assert _tango(1, 0, 44, found.lower) == pytest.approx(1.959964, abs=1e-5)
    assert _tango(1, 0, 44, found.upper) == pytest.approx(-1.959964, abs=1e-5)


def test_no_disagreement_still_bounds_the_difference() -> None:
    found = paired_difference(*answers(10_000, 0, 0))
    z2 = 1.6448536269514722**2
    assert found.difference == 0
    assert found.lower == pytest.approx(-z2 / (10_000 + z2), rel=1e-3)
    assert found.upper == pytest.approx(-found.lower, rel=1e-6)
    assert found.p_no_better == 1.0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(100, 3000))
def test_swapping_the_models_mirrors_the_bounds(fixed: int, broken: int, n: int) -> None:
    new, old = answers(n, fixed, broken)
    one, other = paired_difference(new, old), paired_difference(old, new)
    assert one.difference == pytest.approx(-other.difference, abs=1e-9)
    assert one.lower == pytest.approx(-other.upper, abs=1e-6)
    assert one.lower <= one.difference <= one.upper


def test_the_lower_bound_holds_its_error_rate() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(1000):
        kind = rng.choice(3, 600, p=[0.02, 0.01, 0.97])
        found = paired_difference(kind != 1, kind != 0)
        missed += found.lower > 0.01
    assert missed / 1000 < 0.07


def test_clusters_widen_the_bounds() -> None:
    new, old = answers(1000, 30, 10)
    writers = np.arange(1000) // 40
    assert paired_difference(new, old, writers).lower < paired_difference(new, old).lower


def test_mcnemar_is_the_exact_binomial() -> None:
    assert paired_difference(*answers(100, 8, 2)).p_no_better == pytest.approx(56 / 1024)


# Airway hyper-responsiveness before and after a transplantation (Bentur 2009) and complete response before and after
# consolidation (Cavo 2012), the examples of Fagerland, Lydersen and Laake (2013, 2014).
BENTUR, CAVO = (1, 1, 7, 12), (59, 6, 16, 80)


def table(both: int, only_new: int, only_old: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_new, only_old, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("counts", "two_sided_p"), [(BENTUR, 0.0703), (CAVO, 0.0525)])
def test_mcnemars_exact_test_of_published_examples(counts: tuple, two_sided_p: float) -> None:
    new, old = table(*counts)
    assert 2 * paired_difference(old, new).p_no_better == pytest.approx(two_sided_p, abs=6e-5)


def test_tangos_interval_of_a_published_example() -> None:
    found = paired_difference(*table(*BENTUR), confidence=0.975)
    assert (found.lower, found.upper) == pytest.approx((-0.517, -0.026), abs=5e-4)


def newcombe(both: int, only_new: int, only_old: int, neither: int) -> tuple[float, float]:
    """Newcombe's interval of a paired difference (1998, method 10): Wilson intervals squared and added."""
    n = both + only_new + only_old + neither
    p_new, p_old = (both + only_new) / n, (both + only_old) / n
    (l1, u1), (l2, u2) = wilson_interval(both + only_new, n), wilson_interval(both + only_old, n)
    margins = (both + only_new) * (only_old + neither) * (both + only_old) * (only_new + neither)
    product = both * neither - only_new * only_old
    corrected = max(0.0, product - n / 2) if product > 0 else product
    phi = corrected / np.sqrt(margins) if margins else 0.0
    below = np.sqrt((p_new - l1) ** 2 - 2 * phi * (p_new - l1) * (u2 - p_old) + (u2 - p_old) ** 2)
    above = np.sqrt((p_old - l2) ** 2 - 2 * phi * (p_old - l2) * (u1 - p_new) + (u1 - p_new) ** 2)
    return p_new - p_old - below, p_new - p_old + above


def test_the_bounds_agree_with_newcombes_other_way_to_them() -> None:
    assert newcombe(*BENTUR) == pytest.approx((-0.507, -0.026), abs=5e-4)  # published, so the formula is his
    for counts in (CAVO, (9000, 40, 60, 900), (9900, 4, 9, 87)):
        found = paired_difference(*table(*counts), confidence=0.975)
        assert (found.lower, found.upper) == pytest.approx(newcombe(*counts), abs=0.15 * (found.upper - found.lower))


@pytest.mark.parametrize(("fixed", "broken"), [(0.002, 0.002), (0.001, 0.004), (0.0003, 0.0002), (0.02, 0.03)])
def test_the_bounds_cover_as_often_as_they_say(fixed: float, broken: float) -> None:
    rng = np.random.default_rng(7)
    n, truth = 4000, fixed - broken
    below = above = 0
    for counts in rng.multinomial(n, [fixed, broken, 1 - fixed - broken], 800):
        found = paired_difference(*answers(n, int(counts[0]), int(counts[1])))
        below += found.lower <= truth
        above += found.upper >= truth
    # Two standard deviations of 800 draws at 95 % are 1.5 points; counts are whole, so a bound may do better.
    assert min(below, above) / 800 >= 0.93


def test_the_bounds_cover_where_writers_differ() -> None:
    rng = np.random.default_rng(3)
    writers = np.repeat(np.arange(200), 20)
    covered = naive = 0
    for _ in range(300):
        often = np.repeat(rng.beta(0.2, 9.8, 200), 20)  # two in a hundred on average, most of them by a few writers
        broken = rng.random(4000) < often
        clustered = paired_difference(~broken, np.ones(4000, bool), writers)
        covered += clustered.lower <= -0.02
        naive += paired_difference(~broken, np.ones(4000, bool)).lower <= -0.02
    assert covered / 300 >= 0.91
    assert naive < covered


# -- against a margin ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fixed", "broken", "expected"), [(0, 0, "PASS"), (3, 4, "PASS"), (5, 13, "UNDECIDED"), (2, 60, "FAIL")]
)
def test_a_margin_is_held_broken_or_open(fixed: int, broken: int, expected: str) -> None:
    assert against_margin(paired_difference(*answers(10_000, fixed, broken)), 0.001) == expected


def test_images_without_a_disagreement_needed_for_a_margin() -> None:
    # z^2 (1 - m) / m images without a flip exclude a loss of m: 2,703 for 0.1 point.
    found = paired_difference(*answers(256, 0, 0))
    assert against_margin(found, 0.001) == "UNDECIDED"
    assert 256 + needed_n(found, 0.001) == pytest.approx(1.6448536**2 * 0.999 / 0.001, abs=2)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(200, 4000), st.sampled_from([0.0005, 0.001, 0.01]))
def test_as_many_images_as_are_needed_decide(fixed: int, broken: int, n: int, margin: float) -> None:
    found = paired_difference(*answers(n, fixed, broken))
    more = needed_n(found, margin)
    if against_margin(found, margin) != "UNDECIDED":
        assert more == 0
    elif more is not None and more < 20 * n:
        times = round(np.ceil((n + more) / n))
        larger = paired_difference(*answers(times * n, times * fixed, times * broken))
        assert against_margin(larger, margin) != "UNDECIDED"


def test_no_number_decides_a_difference_that_is_the_margin() -> None:
    assert needed_n(paired_difference(*answers(10_000, 0, 10)), 0.001) is None


def test_clusters_ask_for_more_images() -> None:
    new, old = answers(3000, 0, 6)
    writers = np.arange(3000) // 30
    assert needed_n(paired_difference(new, old, writers), 0.003) > needed_n(paired_difference(new, old), 0.003)
