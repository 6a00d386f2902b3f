import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.errors import ReleaseError
from hwr_export.goldens import SYNTHETIC, Goldens, pick_per_class, synthetic_images
from hwr_export.release import GOLDENS, Release


def load(release: Release) -> Goldens:
    return Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)


def test_goldens_are_real_digits_with_a_few_synthetic(release: Release) -> None:
    goldens = load(release)
    assert len(goldens) == 256
    assert np.bincount(goldens.labels[goldens.labels != SYNTHETIC]).tolist() == [25] * 10
    assert 0 < goldens.noise_floor < 1e-4
    assert goldens.preprocessed.shape == (256, 1, 28, 28)


def test_preprocessed_goldens_are_the_training_normalisation(release: Release) -> None:
    goldens, p = load(release), release.spec.preprocessing
    expected = (goldens.images / 255 - p.mean) / p.std
    np.testing.assert_allclose(goldens.preprocessed[:, 0], expected, atol=1e-5)


def test_bytes_round_trip(release: Release) -> None:
    goldens = load(release)
    again = Goldens.from_bytes(goldens.to_bytes(), "again")
    np.testing.assert_array_equal(again.images, goldens.images)
    np.testing.assert_array_equal(again.logits_float64, goldens.logits_float64)
    assert goldens.to_bytes() == again.to_bytes()


@pytest.mark.parametrize("damage", [lambda d: d[:1000], lambda d: b"not zip", lambda d: b""])
def test_damaged_goldens_are_refused(release: Release, damage) -> None:
    with pytest.raises(ReleaseError, match="cannot be read as goldens"):
        Goldens.from_bytes(damage(release.read(release.entry(GOLDENS))), GOLDENS)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 5))
def test_pick_takes_each_class_up_to_the_limit(labels: list[int], per_class: int) -> None:
    array = np.array(labels)
    picked = pick_per_class(array, per_class)
    assert len(set(picked)) == len(picked)
    for c in set(labels):
        assert (array[picked] == c).sum() == min(per_class, labels.count(c))


@given(st.integers(1, 40), st.integers(1, 40))
def test_synthetic_images_have_any_size(height: int, width: int) -> None:
    images = synthetic_images(height, width)
    assert images.shape == (6, height, width)
    assert images.dtype == np.uint8
