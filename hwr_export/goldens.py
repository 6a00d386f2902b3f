"""Raw inputs and what the eager model made of them <-> `goldens.npz`. Torch-free.

A device proves itself against these without torch and without a dataset. Beside the float32 outputs they carry the
float64 logits of the same weights: the distance between the two is the noise that any float32 runtime may show.
"""

import io
import zipfile
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hwr_export.errors import ReleaseError

SYNTHETIC = -1


@dataclass(frozen=True)
class Goldens:
    """`images` uint8 (N, H, W); `labels` int64 (N,), -1 where synthetic; `preprocessed` float32 (N, C, H, W);
    `logits`, `probabilities` float32 (N, classes); `logits_float64` float64 (N, classes)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    preprocessed: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    logits_float64: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def noise_floor(self) -> float:
        """Largest distance between float32 and float64 logits."""
        return float(np.abs(self.logits - self.logits_float64).max())

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> "Goldens":
        """Decode `goldens.npz`.

        Raises:
            ReleaseError: not an npz file, or arrays are missing or of different lengths.
        """
        names = [f.name for f in fields(cls)]
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                loaded = {name: arrays[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as err:
            raise ReleaseError(f"{source} cannot be read as goldens ({err}); export the release again") from err
        lengths = {len(a) for a in loaded.values()}
        if len(lengths) != 1:
            raise ReleaseError(f"the arrays in {source} are of different lengths; export the release again")
        return cls(**loaded)


def synthetic_images(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return inputs no scanner should send, uint8 (6, H, W): black, white, grey, checkerboard, ramp, noise."""
    rows, columns = np.indices((height, width))
    ramp = np.round(columns * 255 / max(1, width - 1))
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    constant = [np.full((height, width), v) for v in (0, 255, 128)]
    return np.stack([*constant, (rows + columns) % 2 * 255, ramp, noise]).astype(np.uint8)


def pick_per_class(labels: npt.NDArray[np.int64], per_class: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return indices of up to `per_class` images of each class, seeded and in file order."""
    rng = np.random.default_rng(seed)
    picked = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in np.unique(labels)]
    return np.sort(np.concatenate(picked))
