"""Many images at once are normalised as each is alone, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.datasets import framing, load_mnist
from hwr_export.datasets.framing import AT_ONCE, enlarged, normalize_all
from hwr_export.glyph import normalize

DIGITS = load_mnist("train").images[:200]


def one_by_one(images: np.ndarray, height: int, width: int) -> np.ndarray:
    found = [normalize(image, height, width) for image in images]
    return np.stack([np.zeros((height, width), np.uint8) if crop is None else crop for crop in found])


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: 255 - images,
        lambda images: np.pad(images, ((0, 0), (3, 0), (0, 40))),
        lambda images: images.repeat(3, axis=1).repeat(2, axis=2),
        lambda images: 240 - images // 2 - (np.arange(images.size).reshape(images.shape) % 5).astype(np.uint8),
        lambda images: images[:, 6:22, 6:22],  # ink up to the border
    ],
    ids=["as they are", "dark on light", "off the centre", "larger", "on grainy paper", "cut"],
)
def test_handwriting_becomes_what_it_becomes_alone(change) -> None:
    images = change(DIGITS)
    np.testing.assert_array_equal(normalize_all(images, 28, 28), one_by_one(images, 28, 28))


def test_images_are_enlarged_before() -> None:
    large = np.stack([enlarged(image, 2) for image in DIGITS])
    assert large.shape == (200, 56, 56)
    np.testing.assert_array_equal(normalize_all(DIGITS, 28, 28, zoom=2), one_by_one(large, 28, 28))


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 20, 60, 255]), st.booleans()
)
def test_any_pixels_become_what_they_become_alone(seed: int, height: int, width: int, top: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, top + 1, (9, height, width)).astype(np.uint8)
    if sparse:
        images *= rng.random(images.shape) < 0.3
    np.testing.assert_array_equal(normalize_all(images, 28, 20), one_by_one(images, 28, 20))


def test_more_images_than_are_done_at_once_keep_their_order() -> None:
    numbers = np.arange(AT_ONCE + 5) % len(DIGITS)
    found = normalize_all(DIGITS[numbers], 28, 28)
    np.testing.assert_array_equal(found, normalize_all(DIGITS, 28, 28)[numbers])


def test_without_ink_or_images_there_are_zeros_or_none() -> None:
    assert not normalize_all(np.full((3, 9, 9), 77, np.uint8), 28, 28).any()
    assert normalize_all(DIGITS[:0], 28, 28).shape == (0, 28, 28)


def test_handwriting_that_is_framed_already_hardly_changes() -> None:
    once = normalize_all(DIGITS, 28, 28)
    again = normalize_all(once, 28, 28)
    shifted = np.stack([np.roll(again, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]).astype(float)
    assert np.abs(shifted - once).mean(axis=(2, 3)).min(axis=0).max() < 8


def test_what_was_framed_is_kept_for_the_same_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "framed_root", lambda: tmp_path / "framed")
    monkeypatch.setattr(framing, "KEPT", 2)
    found = framing.normalized(DIGITS, 28, 28, zoom=2)
    assert np.array_equal(found, normalize_all(DIGITS, 28, 28, zoom=2))
    (kept,) = (tmp_path / "framed").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(framing, "normalize_all", None)  # it is not made again
        assert np.array_equal(framing.normalized(DIGITS, 28, 28, zoom=2), found)
        for others in ((DIGITS[1:], 28, 28, 2), (DIGITS, 28, 28, 1), (DIGITS, 20, 20, 2)):
            with pytest.raises(TypeError):
                framing.normalized(*others)
    kept.write_bytes(kept.read_bytes()[:500])  # as a full disk leaves it
    assert np.array_equal(framing.normalized(DIGITS, 28, 28, zoom=2), found)
    for zoom in (1, 3):
        framing.normalized(DIGITS, 28, 28, zoom=zoom)
    assert len(list((tmp_path / "framed").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "framed").write_text("a file")
    monkeypatch.setattr(framing, "framed_root", lambda: tmp_path / "framed")
    assert np.array_equal(framing.normalized(DIGITS, 28, 28), normalize_all(DIGITS, 28, 28))
