"""A stack of images of one size -> what `hwr_export.glyph.normalize` makes of each of them, bit for bit.

For datasets of a hundred thousand small images: what `normalize` does to the grey levels of one image is done here to
thousands at once, several times faster; what it does to their geometry is its own code. Images without ink become
zeros, so that they count. What came out is kept in the user cache: it takes some ten seconds for 100,000 images.
"""

import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from hwr_export import glyph
from hwr_export.datasets.roots import framed_root
from hwr_export.files import write_atomic
from hwr_export.glyph import FLAT_SHARE, MIN_CONTRAST, framed

AT_ONCE = 1024  # images: what is made of them stays in a processor's cache or near it
LEVELS = np.arange(256)
KEPT = 12  # stacks of images in the cache


def normalized(images: npt.NDArray[np.uint8], height: int, width: int, zoom: int = 1) -> npt.NDArray[np.uint8]:
    """Return what `normalize_all` returns; what the same code made of the same images before, from the user cache."""
    path = framed_root() / f"{_identity(images, height, width, zoom)}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(path)
        if found.shape == (len(images), height, width) and found.dtype == np.uint8:
            return np.asarray(found, dtype=np.uint8)
    found = normalize_all(images, height, width, zoom)
    buffer = io.BytesIO()
    np.save(buffer, found)
    # A cache that cannot be written costs time alone.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
        kept = sorted(path.parent.glob("*.npy"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-KEPT]:  # of other images, or of earlier code
            old.unlink(missing_ok=True)
    return found


def _identity(images: npt.NDArray[np.uint8], height: int, width: int, zoom: int) -> str:
    """Return the hex sha256 of all that the outcome depends on: the images, the code, its libraries."""
    digest = hashlib.sha256(repr((images.shape, height, width, zoom, PIL.__version__, np.__version__)).encode())
    for source in (glyph.__file__, __file__):
        digest.update(Path(source).read_bytes())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def normalize_all(images: npt.NDArray[np.uint8], height: int, width: int, zoom: int = 1) -> npt.NDArray[np.uint8]:
    """Return the model's inputs, uint8 (N, height, width), white ink on black, of uint8 (N, H, W).

    Args:
        zoom: images are enlarged so many times first, where they have fewer pixels than a scan would.
    """
    found = np.zeros((len(images), height, width), dtype=np.uint8)
    for start in range(0, len(images), AT_ONCE):
        chunk = images[start : start + AT_ONCE]
        if zoom > 1:
            chunk = np.stack([enlarged(image, zoom) for image in chunk])
        _normalize(chunk, found[start : start + AT_ONCE])
    return found


def enlarged(image: npt.NDArray[np.uint8], zoom: int) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W) with so many times as many pixels a side."""
    height, width = image.shape
    return np.asarray(Image.fromarray(image).resize((zoom * width, zoom * height), Image.Resampling.BICUBIC))


def _normalize(images: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> None:
    """Write into `found`, zeros of the same number, what the images become; each line is explained in `glyph._ink`."""
    if min(images.shape[1:]) < 3:
        return
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    paper = np.median(border, axis=1).astype(np.int16)
    dark, light = paper - images.min(axis=(1, 2)), images.max(axis=(1, 2)) - paper
    sign = np.where(dark >= light, 1, -1).astype(np.int16)
    inked = np.flatnonzero(np.maximum(dark, light) >= MIN_CONTRAST)
    if not len(inked):
        return
    away = (paper[inked, None, None] - images[inked]) * sign[inked, None, None]
    flat = (away == 0).mean(axis=(1, 2)) > FLAT_SHARE
    departure = np.clip(away, 0, 255).astype(np.uint8)
    histograms = _histograms(departure)
    threshold = _otsu(histograms)
    floor = np.where(flat, 0.0, threshold / 2)
    top = _ninetieth_percentile(histograms * (threshold[:, None] < LEVELS))
    # Grey levels are few: what each becomes is looked up.
    becomes = np.clip((LEVELS - floor[:, None]) * 255 / np.maximum(1.0, top - floor)[:, None], 0, 255)
    number = np.arange(len(inked))[:, None, None]
    ink = np.round(becomes).astype(np.uint8)[number, departure]
    clear = (threshold[:, None] / 2 < LEVELS)[number, departure]
    tops, bottoms = _extent(clear.any(axis=2))
    lefts, rights = _extent(clear.any(axis=1))
    for i, place in enumerate(inked):
        found[place] = framed(ink[i, tops[i] : bottoms[i], lefts[i] : rights[i]], *found.shape[1:])


def _histograms(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the grey levels of each image, int64 (N, 256)."""
    n = len(values)
    numbered = values.reshape(n, -1) + 256 * np.arange(n)[:, None]
    return np.bincount(numbered.reshape(-1), minlength=256 * n).reshape(n, 256)


def _otsu(histograms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return for each histogram the threshold that separates two classes best (Otsu 1979), float64 (N,)."""
    weight = np.cumsum(histograms, axis=1).astype(np.float64)
    mass = np.cumsum(histograms * LEVELS, axis=1).astype(np.float64)
    below, above = weight[:, :-1], weight[:, -1:] - weight[:, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:, :-1] / below - (mass[:, -1:] - mass[:, :-1]) / above) ** 2
    between = np.nan_to_num(between)
    best = between == between.max(axis=1, keepdims=True)
    return np.asarray((best * LEVELS[:-1]).sum(axis=1) / best.sum(axis=1), dtype=np.float64)


def _ninetieth_percentile(histograms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the 90th percentile of what each histogram counts, as `np.percentile` interpolates it, float64 (N,)."""
    counted = np.cumsum(histograms, axis=1)
    last = counted[:, -1] - 1
    place = last * 0.9
    before = np.floor(place).astype(np.int64)
    low, high = ((counted <= rank[:, None]).sum(axis=1) for rank in (before, np.minimum(before + 1, last)))
    share, step = place - before, (high - low).astype(np.float64)
    return np.asarray(np.where(share >= 0.5, high - step * (1 - share), low + step * share), dtype=np.float64)


def _extent(inked: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the first True of each row is and where its last one ends, int64 (N,)."""
    return inked.argmax(axis=1), inked.shape[1] - inked[:, ::-1].argmax(axis=1)
