"""Scanner conditions: seeded, of the right kind, and worse where they are stronger."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.corruptions import KINDS, conditions
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import LOGITS


def test_seven_kinds_at_three_strengths() -> None:
    assert list(KINDS) == ["blur", "skew", "thin strokes", "thick strokes", "low contrast", "jpeg", "salt and pepper"]
    images = np.zeros((2, 28, 28), np.uint8)
    assert len({(kind, strength) for kind, strength, _ in conditions(images)}) == 21


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 4), st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**31))
def test_any_images_keep_shape_and_kind_and_the_seed_decides(n: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n, height, width)).astype(np.uint8)
    before = images.copy()
    for (_, _, one), (_, _, again) in zip(conditions(images, seed), conditions(images, seed), strict=True):
        assert one.shape == images.shape
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(images, before)


def test_another_seed_is_another_dust(mnist_test) -> None:
    images = mnist_test.images[:20]
    one, other = ({k: v for k, _, v in conditions(images, seed)} for seed in (0, 1))
    assert not np.array_equal(one["salt and pepper"], other["salt and pepper"])
    assert np.array_equal(one["blur"], other["blur"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_corruption_is_further_from_the_original(kind: str, mnist_test) -> None:
    images = mnist_test.images[:200]
    found = [v.astype(float) for name, _, v in conditions(images) if name == kind]
    distances = [np.abs(v - images).mean() for v in found]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_each_kind_does_what_it_says(mnist_test) -> None:
    images = mnist_test.images[:200]
    worst = {kind: v.astype(float) for kind, _, v in conditions(images)}
    ink = images.astype(float).mean()
    assert worst["thin strokes"].mean() < 0.8 * ink
    assert worst["thick strokes"].mean() > 1.3 * ink
    assert worst["blur"].mean() == pytest.approx(ink, rel=0.02)
    assert worst["skew"].mean() == pytest.approx(ink, rel=0.02)
    assert np.ptp(worst["low contrast"]) == pytest.approx(0.25 * 255, abs=1)
    assert (worst["salt and pepper"] != images).mean() == pytest.approx(
        0.05 * 0.6, abs=0.01
    )  # pepper on paper shows not


def test_a_turned_page_turned_back_is_the_page(mnist_test) -> None:
    from hwr_export.corruptions import _rotate

    images = mnist_test.images[:50]
    back = _rotate(_rotate(images, 0.2), -0.2).astype(float)
    assert np.corrcoef(back.ravel(), images.ravel())[0, 1] > 0.97
    quarter = _rotate(images, np.pi / 2)
    np.testing.assert_array_equal(quarter, np.rot90(images, -1, axes=(1, 2)))


def test_strong_conditions_cost_accuracy_but_leave_something_to_read(release, mnist_test) -> None:
    images, labels = mnist_test.images[:400], mnist_test.labels[:400]
    with EagerRunner.from_release(release.path, release.spec) as eager:
        rates = [(eager.infer_all(v)[LOGITS].argmax(1) == labels).mean() for _, _, v in conditions(images)]
    assert min(rates) > 0.2
    assert max(rates) > 0.8
