"""Whatever paper, polarity, size and file format: the same crop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hwr_export.datasets import load_mnist
from hwr_export.errors import ImageError
from hwr_export.glyph import load_grey, normalize

DIGITS = load_mnist("train").images[:40]


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    side = round(28 * factor)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def shifted_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The centre of mass may round to either side of a pixel."""
    return min(difference(np.roll(a, (dy, dx), (0, 1)), b) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@pytest.mark.parametrize("i", range(40))
def test_a_training_image_stays_almost_what_it_is(i: int) -> None:
    found = normalize(DIGITS[i], 28, 28)
    assert shifted_difference(found, DIGITS[i]) < 8


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 39), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_polarity_and_margins_do_not_matter(i: int, top: int, bottom: int, left: int, right: int) -> None:
    padded = np.pad(DIGITS[i], ((top, bottom), (left, right)))
    expected = normalize(DIGITS[i], 28, 28)
    found = normalize(padded, 28, 28)
    np.testing.assert_array_equal(normalize(255 - padded, 28, 28), found)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=2)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 39), st.floats(1, 8), st.integers(160, 250), st.integers(60, 140))
def test_size_paper_and_pen_hardly_matter(i: int, factor: float, paper: int, contrast: int) -> None:
    image = paper - resized(DIGITS[i], factor).astype(float) * contrast / 255
    assert shifted_difference(normalize(image.astype(np.uint8), 28, 28), normalize(DIGITS[i], 28, 28)) < 16


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_blank_paper_has_no_ink(height: int, width: int, level: int) -> None:
    assert normalize(np.full((height, width), level, np.uint8), 28, 28) is None


@given(st.binary(min_size=1, max_size=900), st.integers(1, 30))
def test_any_pixels_give_a_crop_or_none(data: bytes, width: int) -> None:
    rows = max(1, len(data) // width)
    image = np.resize(np.frombuffer(data, np.uint8), (rows, width))
    crop = normalize(image, 28, 28)
    assert crop is None or (crop.shape == (28, 28) and crop.dtype == np.uint8 and crop.any())


def test_paper_noise_is_not_ink() -> None:
    noise = np.random.default_rng(0).normal(220, 3, (80, 60)).clip(0, 255).astype(np.uint8)
    assert normalize(noise, 28, 28) is None


def as_rgba(grey: np.ndarray) -> Image.Image:
    """Ink in the alpha channel alone, as drawing tools save it."""
    image = Image.new("RGBA", grey.shape[::-1], (0, 0, 0, 0))
    image.putalpha(Image.fromarray(grey))
    return image


@pytest.mark.parametrize(
    "convert",
    [
        lambda g: Image.fromarray(255 - g),
        lambda g: Image.fromarray(255 - g).convert("RGB"),
        lambda g: Image.fromarray(255 - g).convert("P"),
        lambda g: Image.fromarray(g.astype(np.uint16) * 257),
        lambda g: Image.fromarray(g.astype(np.int32)),
        as_rgba,
    ],
    ids=["L", "RGB", "palette", "16 bit", "32 bit", "alpha"],
)
def test_every_mode_is_the_same_image(tmp_path: Path, convert) -> None:
    image = convert(DIGITS[0])
    path = tmp_path / ("digit.tif" if image.mode == "I" else "digit.png")
    image.save(path)
    assert difference(normalize(load_grey(path), 28, 28), normalize(DIGITS[0], 28, 28)) < 2


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "digit.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise to view
    Image.fromarray(np.rot90(255 - resized(DIGITS[0], 4))).save(path, exif=exif, quality=95)
    assert shifted_difference(normalize(load_grey(path), 28, 28), normalize(DIGITS[0], 28, 28)) < 16


def bomb(path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(path)


def cut(path: Path) -> None:
    Image.fromarray(resized(DIGITS[0], 20)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no image"),
        (lambda p: p.mkdir(), "there is no image"),
        (lambda p: p.write_bytes(b""), "is not an image"),
        (lambda p: p.write_text("seven"), "is not an image"),
        (cut, "cannot be decoded"),
        (bomb, "pixels, more than the|larger than an image"),
    ],
)
def test_what_is_no_image_is_one_sentence(tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "digit.png"
    make(path)
    with pytest.raises(ImageError, match=message) as caught:
        load_grey(path)
    assert str(path) in str(caught.value)
