"""An image of one character, any size, polarity and mode -> the 28 x 28 crop that the models were trained on.

The normalisation is MNIST's own (LeCun et al. 1998): ink white on black, its bounding box scaled to fit 20 x 20 with
its aspect kept, its centre of mass in the middle of the frame. Pillow and NumPy only.
"""

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hwr_export.errors import ImageError

MAX_PIXELS = 50_000_000  # A4 at 600 dpi has 35 million; guards against decompression bombs
INK_SHARE = 20 / 28  # of the frame's side, that the longer side of the ink takes
FLAT_SHARE = 0.4  # of all pixels exactly at paper level, above which the image is no photograph or JPEG
MIN_CONTRAST = 24  # grey levels between paper and ink, below which there is nothing to read
# What Pillow's decoders raise of damaged files.
_RAISED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
# Warning filters belong to the process: images that several threads open change them in turn. Decoding is not held up.
_OPENING = threading.Lock()


def load_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Decode an image file to grey levels, uint8 (H, W); transparency lies on white paper.

    Raises:
        ImageError: missing, no image, too large or cut off.
    """
    if not path.is_file():
        raise ImageError(f"there is no image {path}")
    return decode_grey(path, str(path))


def decode_grey(file: Path | IO[bytes], name: str) -> npt.NDArray[np.uint8]:
    """Decode an image as `load_grey` does; errors call it `name`.

    Raises:
        ImageError: no image, too large or cut off.
    """
    with decoding(name), opened_image(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{name} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} "
                "an image may have; crop it"
            )
        return to_grey(ImageOps.exif_transpose(image))


def opened_image(file: Path | IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Return an image of which no more than the header is read; what is far too large for one is refused by that."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=formats)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Say in a sentence about the file `name` what decoders raise.

    Raises:
        ImageError: no image, too large or cut off.
    """
    try:
        yield
    except UnidentifiedImageError as err:
        raise ImageError(f"{name} is not an image in a format that can be read (PNG, JPEG, TIFF, PGM ...)") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageError(f"{name} is larger than an image may be: {err}") from err
    except _RAISED as err:
        said = " ".join(str(err).split()) or type(err).__name__
        raise ImageError(f"{name} cannot be decoded: {said}; it may be cut off") from err


def normalize(grey: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8] | None:
    """Return the model's input, uint8 (height, width), white ink on black; None where there is no ink.

    Args:
        grey: uint8 (H, W), dark ink on light paper or light on dark.
    """
    crop = _ink(grey)
    return None if crop is None else framed(crop, height, width)


def framed(ink: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return one character's ink as the model takes it: scaled to its share of the frame, its mass in the middle.

    Args:
        ink: uint8 (H, W), 0 on paper and 255 in the middle of a stroke, cut to the box of what is clearly ink.
    """
    scale = min(height * INK_SHARE / ink.shape[0], width * INK_SHARE / ink.shape[1])
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    if ink.shape[::-1] != size:
        # Box filtering when shrinking (reducing_gap off) keeps thin strokes; bicubic would ring.
        image = Image.frombuffer("L", ink.shape[::-1], np.ascontiguousarray(ink), "raw", "L", 0, 1)
        image = image.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR)
        ink = np.frombuffer(image.tobytes(), np.uint8).reshape(size[::-1])
    return _centred(ink, height, width)


def resized(crop: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a crop that already is white on black at another size, uint8 (height, width)."""
    return np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR))


def to_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the grey levels of an image that lies upright, uint8 (H, W); transparency lies on white paper."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        top = 65535.0 if high > 255 else 255.0
        return np.asarray(np.clip((values - min(low, 0.0)) * 255 / top, 0, 255), dtype=np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(paper, rgba)
    return np.asarray(image.convert("L"))


def _ink(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Return the ink alone, cut to its bounding box: uint8, 0 on paper, 255 where darkest; None if there is none."""
    if min(grey.shape) < 3:
        return None
    values = grey.astype(np.int32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    paper = int(np.median(border))
    # Ink is what departs most from the paper around it, towards whichever side it departs further.
    dark, light = paper - int(values.min()), int(values.max()) - paper
    departure = paper - values if dark >= light else values - paper
    if max(dark, light) < MIN_CONTRAST:
        return None
    threshold = _otsu(np.clip(departure, 0, 255))
    strokes = departure > threshold
    # Where paper is one flat level every departure is anti-aliasing; elsewhere the lower half of it is paper grain.
    flat = bool((departure == 0).mean() > FLAT_SHARE)
    floor = 0 if flat else threshold / 2
    top = np.percentile(departure[strokes], 90)
    ink = np.clip((departure - floor) * 255 / max(1.0, top - floor), 0, 255)
    # The box is that of what is clearly ink: JPEG ringing and grain around it must not widen it.
    clear = departure > threshold / 2
    rows, columns = np.flatnonzero(clear.any(axis=1)), np.flatnonzero(clear.any(axis=0))
    return np.asarray(np.round(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]), dtype=np.uint8)


def _otsu(values: npt.NDArray[np.int32]) -> float:
    """Return the threshold that separates two classes best (Otsu 1979)."""
    histogram = np.bincount(values.reshape(-1), minlength=256).astype(np.float64)
    weight = np.cumsum(histogram)
    mass = np.cumsum(histogram * np.arange(256))
    below, above = weight[:-1], weight[-1] - weight[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    best = np.flatnonzero(np.nan_to_num(between) == np.nanmax(np.nan_to_num(between)))
    return float(best.mean())


def _centred(glyph: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Place a glyph so that its centre of mass is in the middle of the frame, as far as it fits."""
    rows, columns = np.add.reduce(glyph, axis=1, dtype=np.int64), np.add.reduce(glyph, axis=0, dtype=np.int64)
    mass = max(1.0, float(np.add.reduce(rows)))
    top = round(height / 2 - float(rows @ np.arange(len(rows))) / mass - 0.5)
    left = round(width / 2 - float(columns @ np.arange(len(columns))) / mass - 0.5)
    top = min(max(0, top), height - glyph.shape[0])
    left = min(max(0, left), width - glyph.shape[1])
    frame = np.zeros((height, width), dtype=np.uint8)
    frame[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return frame
