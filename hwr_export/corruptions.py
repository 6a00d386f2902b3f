"""Clean images -> the same images as a scanner under bad conditions gives them: seven kinds, three strengths each.

Images are uint8 (N, H, W), white ink on black, and stay so. Lengths are in pixels of a frame 28 pixels high and grow
with it. Seeded: the same images and seed give the same pixels. NumPy and Pillow alone.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Images = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """What is done to images at which strengths; `unit` says of what the strengths are."""

    apply: Callable[[Images, float, np.random.Generator], Images]
    strengths: tuple[float, float, float]
    unit: str


def conditions(images: Images, seed: int = 0) -> Iterator[tuple[str, float, Images]]:
    """Yield (kind, strength, corrupted images) of every kind at every strength, mildest first."""
    for number, (name, kind) in enumerate(KINDS.items()):
        for strength in kind.strengths:
            # A generator each: leaving one condition out does not change another.
            rng = np.random.default_rng([seed, number, round(1000 * strength)])
            yield name, strength, kind.apply(images, strength, rng)


def blur(images: Images, sigma: float, _: np.random.Generator) -> Images:
    """Out of focus: a Gaussian of `sigma` pixels."""
    sigma *= _scale(images)
    reach = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    height, width = images.shape[1:]
    padded = np.pad(images.astype(np.float32), ((0, 0), (reach, reach), (reach, reach)))
    rows = np.zeros((len(images), height, width + 2 * reach), np.float32)
    blurred = np.zeros(images.shape, np.float32)
    for i, tap in enumerate(taps.astype(np.float32)):
        rows += tap * padded[:, i : i + height]
    for i, tap in enumerate(taps.astype(np.float32)):
        blurred += tap * rows[:, :, i : i + width]
    return _uint8(blurred)


def skew(images: Images, degrees: float, rng: np.random.Generator) -> Images:
    """A page drawn in askew: turned by `degrees`, to the left or to the right, bilinear."""
    left = rng.random(len(images)) < 0.5
    turned = np.empty_like(images)
    turned[left] = _rotate(images[left], np.radians(degrees))
    turned[~left] = _rotate(images[~left], -np.radians(degrees))
    return turned


def thin(images: Images, share: float, _: np.random.Generator) -> Images:
    """A hard or dry pen: strokes eroded by a pixel on each side, to `share`."""
    return _uint8((1 - share) * images.astype(np.float32) + np.float32(share) * _extreme(images, np.minimum))


def thick(images: Images, share: float, _: np.random.Generator) -> Images:
    """A soft pen or bleeding ink: strokes dilated by a pixel on each side, to `share`."""
    return _uint8((1 - share) * images.astype(np.float32) + np.float32(share) * _extreme(images, np.maximum))


def low_contrast(images: Images, kept: float, _: np.random.Generator) -> Images:
    """Faint ink: `kept` of the contrast is left. Paper stays black, as cropping leaves it."""
    return _uint8(images.astype(np.float32) * np.float32(kept))


def jpeg(images: Images, quality: float, _: np.random.Generator) -> Images:
    """Compressed as JPEG, dark on light as a scanner sends it."""
    return np.stack([_through_jpeg(image, round(quality)) for image in images]) if len(images) else images


def salt_and_pepper(images: Images, share: float, rng: np.random.Generator) -> Images:
    """Dust and dropouts: `share` of the pixels black or white."""
    hit = rng.random(images.shape) < share
    return np.where(hit, np.where(rng.random(images.shape) < 0.5, np.uint8(0), np.uint8(255)), images)


KINDS: dict[str, Kind] = {
    "blur": Kind(blur, (0.6, 0.9, 1.2), "px"),
    "skew": Kind(skew, (5.0, 10.0, 15.0), "degrees"),
    "thin strokes": Kind(thin, (0.3, 0.5, 0.7), "of a pixel each side"),
    "thick strokes": Kind(thick, (0.3, 0.6, 1.0), "of a pixel each side"),
    "low contrast": Kind(low_contrast, (0.6, 0.4, 0.25), "of the contrast"),
    "jpeg": Kind(jpeg, (30.0, 15.0, 8.0), "quality"),
    "salt and pepper": Kind(salt_and_pepper, (0.01, 0.02, 0.05), "of the pixels"),
}


def _scale(images: Images) -> float:
    return float(images.shape[1]) / 28


def _uint8(values: Grey) -> Images:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _extreme(images: Images, pick: np.ufunc) -> Grey:
    """Return the least or greatest of each pixel and its four neighbours, as often as the frame is larger than 28."""
    found = images
    for _ in range(max(1, round(_scale(images)))):
        p = np.pad(found, ((0, 0), (1, 1), (1, 1)), mode="edge")
        shifted = (p[:, :-2, 1:-1], p[:, 2:, 1:-1], p[:, 1:-1, :-2], p[:, 1:-1, 2:])
        for neighbour in shifted:
            found = pick(found, neighbour)
    return found.astype(np.float32)


def _rotate(images: Images, angle: float) -> Images:
    """Turn images about the middle of the frame, all by the same angle in radians; paper comes in at the corners."""
    height, width = images.shape[1:]
    y, x = np.indices((height, width), dtype=np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    rows = np.cos(angle) * y - np.sin(angle) * x + (height - 1) / 2
    columns = np.sin(angle) * y + np.cos(angle) * x + (width - 1) / 2
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    # A frame of paper around the image, and everything further out is on it.
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.float32)

    def at(r: npt.NDArray[np.intp], c: npt.NDArray[np.intp]) -> Grey:
        return np.asarray(padded[:, np.clip(r + 1, 0, height + 1), np.clip(c + 1, 0, width + 1)])

    upper = (1 - right) * at(top, left) + right * at(top, left + 1)
    lower = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    return _uint8((1 - down) * upper + down * lower)


def _through_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(255 - image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(255 - np.asarray(decoded), dtype=np.uint8)
