"""Images that are no character, for `evaluate` to count how many of them a model takes for one.

NumPy and Pillow, seeded, uint8 (N, H, W), white on black. No code is shared with `garbage.py`, whose images a recipe
may train against; soft shadow, bars and grain there are relatives of the blobs, strokes, noise and specks here.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hwr_export.datasets import data_roots, load_dataset
from hwr_export.glyph import normalize

Images = npt.NDArray[np.uint8]

MARKS = ",.-:;?+=*#%&"
BARS = "/()!"  # at 28 pixels a person, too, may take them for a 1
FONT_SIZES = (20, 32, 48, 72)
# Letters that a person, too, may take for a digit when they stand alone.
LIKE_DIGITS = "OoIlizZsSBbGgqQD"


def synthetic_garbage(height: int, width: int, labels: str, each: int = 250, seed: int = 0) -> dict[str, Images]:
    """Return kind -> `each` images of that size; punctuation leaves out the marks that are in `labels`.

    Bars are a kind of their own: whoever rejects them rejects the 1s that are written like them.
    """
    kinds: dict[str, Callable[[int, int, np.random.Generator], Images]] = {
        "noise": _noise,
        "blobs": _blob,
        "blanks": _blank,
        "strokes": _stroke,
        "specks": _specks,
    }
    made = {}
    for i, (kind, make) in enumerate(kinds.items()):
        rng = np.random.default_rng((seed, i))
        made[kind] = np.stack([make(height, width, rng) for _ in range(each)]).astype(np.uint8)
    for i, (kind, some) in enumerate({"punctuation": MARKS, "bars": BARS}.items(), len(kinds)):
        if marks := [mark for mark in some if mark not in labels]:
            rng = np.random.default_rng((seed, i))
            made[kind] = np.stack([_mark(marks[j % len(marks)], height, width, rng) for j in range(each)])
    return made


def real_letters(shape: tuple[int, int], data_root: Path | None) -> dict[str, Images]:
    """Return the letters of chars62's test part, all of them and those that look like no digit; none without chars62.

    Raises:
        DataError: chars62 is there but broken.
    """
    if not any((root / "chars62").is_dir() for root in data_roots(data_root)):
        return {}
    data = load_dataset("chars62", "test", data_root)
    if data.images.shape[1:] != shape:
        return {}
    shown = np.asarray(list(data.label_set))[data.labels]
    letter = np.char.isalpha(shown)
    return {
        "letters": data.images[letter],
        "letters unlike digits": data.images[letter & ~np.isin(shown, list(LIKE_DIGITS))],
    }


def _noise(height: int, width: int, rng: np.random.Generator) -> Images:
    return rng.integers(0, 256, (height, width), dtype=np.uint8)


def _blob(height: int, width: int, rng: np.random.Generator) -> Images:
    """Smooth noise: a thumb, a stain, a fold."""
    small = Image.fromarray(rng.integers(0, 256, (5, 5), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _blank(height: int, width: int, rng: np.random.Generator) -> Images:
    """An empty field: paper, with grain too faint to be ink."""
    grain = np.abs(rng.normal(0, rng.uniform(0, 8), (height, width)))
    return np.clip(grain, 0, 24).astype(np.uint8)


def _stroke(height: int, width: int, rng: np.random.Generator) -> Images:
    """A slanted line off the centre, as a ruled box or a slip of the pen leaves it."""
    image = Image.new("L", (width, height))
    x, y = rng.uniform(0, width, 2), rng.uniform(0, height, 2)
    ImageDraw.Draw(image).line((x[0], y[0], x[1], y[1]), fill=255, width=int(rng.integers(1, 4)))
    return np.asarray(image)


def _specks(height: int, width: int, rng: np.random.Generator) -> Images:
    hit = rng.random((height, width)) < 0.03
    return (hit * rng.integers(128, 256, (height, width))).astype(np.uint8)


def _mark(mark: str, height: int, width: int, rng: np.random.Generator) -> Images:
    """A mark of some size and thickness, a little rotated, centred and scaled as `hwr-export read` would."""
    size = int(rng.choice(FONT_SIZES))
    image = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(image).text(
        (size, size),
        mark,
        fill=255,
        font=ImageFont.load_default(size),
        anchor="mm",
        stroke_width=int(rng.integers(0, size // 12 + 1)),
        stroke_fill=255,
    )
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    crop = normalize(np.asarray(image), height, width)
    assert crop is not None  # white was drawn on black
    return crop
