"""Images as the model receives them + a reference -> how far they are from the training data, and whether to alarm.

No labels are needed. A reference keeps each image's statistics as bin numbers between quantiles, and who wrote it; no
pixels. An alarm is false at most at the rate asked for, as long as a window of images consists of what `writers` people
wrote and these are like the reference's: it is judged against windows drawn from the reference writer by writer.
"""

import io
import json
import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.errors import DataError, UsageError

FloatArray = npt.NDArray[np.float64]

# What is measured of an image, and the unit that it is reported in.
IMAGE_STATISTICS = {
    "ink": "% of frame",
    "stroke width": "px",
    "grey": "% of ink",
    "height": "px",
    "width": "px",
    "slant": "px/px",
    "centre x": "px",
    "centre y": "px",
    "parts minus holes": "",
    "margin": "% of ink",
}
MARGIN = 0.1  # of the frame's side, where hardly any ink of a well cut character lies
MODEL_STATISTICS = {"confidence": "", "entropy": "nat"}
UNITS = IMAGE_STATISTICS | MODEL_STATISTICS

BINS = 64  # of a distribution's sketch, equally full but for ties
RESAMPLES = 2000  # windows drawn from the reference to set an alarm
MIN_IMAGES = 20
MIN_WRITERS = 20  # in a reference; the spread between writers is estimated from them
# A distribution that differs by less, in images of the window or as a share of it, is none that anyone need know of:
# one speck on a hundred images is no drift because the reference has none.
MIN_DISTANCE_IMAGES, MIN_DISTANCE = 1.5, 0.02
MIN_SPREAD = 0.1  # of the logarithm of a distance; where the reference's windows hardly differ
ALPHA_RANGE = (0.001, 0.5)  # that the number of resamples can resolve
CHUNK_CELLS = 4_000_000
SCHEMA = 1


@dataclass(frozen=True)
class Reference:
    """What images like the training data look like.

    `edges` float64 (K, BINS - 1), ascending, infinite where unused; `bins` uint8 (N, K), the bin of every image;
    `writers` int32 (N,), each image its own where unknown; `mean` and `sd` float64 (K,); `about` says what of.
    """

    names: tuple[str, ...]
    edges: FloatArray
    bins: npt.NDArray[np.uint8]
    writers: npt.NDArray[np.int32]
    mean: FloatArray
    sd: FloatArray
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.bins)

    @property
    def by_writer(self) -> bool:
        """Whether writers are known; else images are taken for independent."""
        return len(np.unique(self.writers)) < len(self.writers)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            names=np.array(self.names),
            edges=self.edges,
            bins=self.bins,
            writers=self.writers,
            mean=self.mean,
            sd=self.sd,
            about=np.array(json.dumps({"schema": SCHEMA, **self.about})),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> "Reference":
        """Decode a drift reference.

        Raises:
            DataError: not one, of another version, or its arrays do not fit together.
        """
        remedy = "make it again with `python -m train drift-reference`"
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                schema = about.pop("schema")
                names = tuple(str(name) for name in arrays["names"])
                kept = {name: arrays[name] for name in ("edges", "bins", "writers", "mean", "sd")}
            reference = cls(names=names, about=about, **kept)
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as err:
            raise DataError(f"{source} cannot be read as a drift reference ({err}); {remedy}") from err
        n, k = len(reference.writers), len(names)
        shapes = (reference.edges.shape, reference.bins.shape, reference.mean.shape, reference.sd.shape)
        if schema != SCHEMA or not set(names) <= set(UNITS) or shapes != ((k, BINS - 1), (n, k), (k,), (k,)):
            raise DataError(f"{source} is not a drift reference that this version can read; {remedy}")
        return reference


def image_statistics(images: npt.NDArray[np.uint8]) -> FloatArray:
    """Measure images, uint8 (N, H, W), white ink on black -> (N, len(IMAGE_STATISTICS))."""
    parts = [_measure(images[i : i + 4096]) for i in range(0, len(images), 4096)]
    if not parts:
        return np.empty((0, len(IMAGE_STATISTICS)))
    return np.asarray(np.round(np.concatenate(parts), 6), dtype=np.float64)


def model_statistics(probabilities: npt.NDArray[np.floating]) -> FloatArray:
    """Measure calibrated probabilities (N, classes) -> (N, len(MODEL_STATISTICS))."""
    p = np.asarray(probabilities, dtype=np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    # Rounded, so that the last bit of another runtime does not carry a value across a quantile.
    return np.round(np.stack([p.max(axis=1), entropy], axis=1), 6)


def make_reference(values: FloatArray, writers: npt.NDArray[np.int32] | None, about: dict[str, Any]) -> Reference:
    """Summarise statistics (N, K) of images like the training data; K says whether the model's are among them.

    Raises:
        UsageError: too few writers (or images, where writers are unknown) to know how much they differ.
    """
    each = np.arange(len(values), dtype=np.int32) if writers is None else writers.astype(np.int32)
    found = len(np.unique(each))
    if found < MIN_WRITERS:
        raise UsageError(
            f"the reference would hold {found} {'image' if writers is None else 'writer'}(s), and at least "
            f"{MIN_WRITERS} are needed to know how much they differ; use a larger validation part"
        )
    quantiles = np.quantile(values, np.arange(1, BINS) / BINS, axis=0, method="inverted_cdf")
    edges = np.full((values.shape[1], BINS - 1), np.inf)
    for k, column in enumerate(quantiles.T):
        distinct = np.unique(column)
        edges[k, : len(distinct)] = distinct
    names = tuple(UNITS)[: values.shape[1]]
    return Reference(names, edges, _bins(values, edges), each, values.mean(axis=0), values.std(axis=0), about)


def judge(reference: Reference, values: FloatArray, writers: int | None = None, alpha: float = 0.01) -> dict[str, Any]:
    """Compare a window of images with the reference, statistic by statistic.

    Args:
        values: (n, K) as the reference's names, or the first of them (images alone, without a model).
        writers: how many people wrote the window; else as many as wrote as many images of the reference.
        alpha: the rate of false alarms over windows.

    Raises:
        UsageError: too few images, or an impossible number of writers or rate.
    """
    n, k = values.shape
    if n < MIN_IMAGES:
        raise UsageError(f"{n} image(s) with ink say nothing about a drift; give at least {MIN_IMAGES}")
    if not ALPHA_RANGE[0] <= alpha <= ALPHA_RANGE[1]:
        raise UsageError(f"a false-alarm rate is from {ALPHA_RANGE[0]} to {ALPHA_RANGE[1]}, got {alpha:g}")
    if writers is None:
        writers = default_writers(reference, n)
    if not 1 <= writers <= n:
        raise UsageError(f"{n} images are by 1 to {n} writers, got {writers}")
    alarm = Alarm(reference, n, writers, k)
    distances, p_values = alarm.test(values)
    means = values.mean(axis=0)
    # A statistic that never varies in the reference has no standard unit; its own distance says what there is to say.
    shifts = np.divide(means - reference.mean[:k], reference.sd[:k], out=np.zeros(k), where=reference.sd[:k] > 0)
    return {
        "schema": 1,
        "alarm": bool(p_values.min() <= alpha),
        "alpha": alpha,
        "n": n,
        "writers": writers,
        "reference": {**reference.about, "n": len(reference), "by_writer": reference.by_writer},
        "statistics": [
            {
                "name": name,
                "unit": UNITS[name],
                "reference": float(reference.mean[i]),
                "window": float(means[i]),
                "shift": float(shifts[i]),
                "distance": float(distances[i]),
                "p_value": float(p_values[i]),
                "alarm": bool(p_values[i] <= alpha),
            }
            for i, name in enumerate(reference.names[:k])
        ],
    }


def default_writers(reference: Reference, n: int) -> int:
    """Return how many writers of the reference wrote as many as `n` images, at least one."""
    _, counts = np.unique(reference.writers, return_counts=True)
    return min(n, max(1, round(n / float(np.median(counts)))))


class Alarm:
    """The distances that windows of `n` images by `writers` people of the reference itself have, and so the threshold.

    Each drawn window is compared with the rest of the reference, so the distances carry the luck of both sides. Windows
    of more than half of the reference's writers are judged like one of half, which can only lose power.
    """

    def __init__(self, reference: Reference, n: int, writers: int, statistics: int, seed: int = 0) -> None:
        self.reference = reference
        self.statistics = statistics
        _, index, counts = np.unique(reference.writers, return_inverse=True, return_counts=True)
        self._groups = len(counts)
        drawn = min(writers, self._groups // 2)
        each = math.ceil(n / drawn)
        self._floor = max(MIN_DISTANCE, MIN_DISTANCE_IMAGES / n)
        bins = reference.bins[:, :statistics]
        self._resolution = 0.5 / n
        nulls = _null_distances(bins, index, drawn, each, np.random.default_rng(seed))
        logs = np.log(np.maximum(nulls, self._resolution))
        self._mean = logs.mean(axis=0)
        self._sd = np.maximum(logs.std(axis=0), MIN_SPREAD)
        self._largest = np.sort(((logs - self._mean) / self._sd).max(axis=1))
        histogram = _histograms(bins, np.zeros(len(bins), dtype=np.intp), 1)[0]
        self._cdf = np.cumsum(histogram, axis=1) / len(bins)

    def test(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return each statistic's Kolmogorov-Smirnov distance and p-value, both (K,), adjusted for their number."""
        bins = _bins(values, self.reference.edges[: self.statistics])
        return self.test_bins(bins)

    def test_bins(self, bins: npt.NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
        """Do the same for a window that is already binned, uint8 (n, K)."""
        window = _histograms(bins, np.zeros(len(bins), dtype=np.intp), 1)[0]
        distances = np.abs(np.cumsum(window, axis=1) / len(bins) - self._cdf).max(axis=1)
        z = (np.log(np.maximum(distances, self._resolution)) - self._mean) / self._sd
        return distances, np.where(distances > self._floor, self._p_values(z), 1.0)

    def _p_values(self, z: FloatArray) -> FloatArray:
        """Return the larger of two p-values, each adjusted for looking at K statistics.

        Among the drawn windows, the share whose most unusual statistic is as unusual (Westfall and Young 1993). That
        share cannot know writers more unusual than any of the reference, so beside it stands a prediction interval: the
        logarithm of a distance taken for normal (its tail is lighter), its spread known from that many writers only.
        """
        exceeding = len(self._largest) - np.searchsorted(self._largest, z, side="left")
        resampled = (1 + exceeding) / (1 + len(self._largest))
        t = z / math.sqrt(1 + 1 / self._groups)
        predicted = np.minimum(1.0, len(z) * np.array([_t_tail(float(v), self._groups - 1) for v in t]))
        return np.asarray(np.maximum(resampled, predicted), dtype=np.float64)


def _measure(images: npt.NDArray[np.uint8]) -> FloatArray:
    ink = images.astype(np.float64) / 255
    height, width = ink.shape[1:]
    mass = ink.sum(axis=(1, 2))
    some = np.maximum(mass, 1e-9)
    a, b, c, d = _squares(ink)
    # The length of all edges, two for every stroke; diagonal differences (Roberts 1963) prefer no side.
    outline = np.sqrt(((a - d) ** 2 + (b - c) ** 2) / 2).sum(axis=(1, 2))
    inked = ink > 0.1
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    by_row, by_column = ink.sum(axis=2), ink.sum(axis=1)
    y, x = by_row @ rows / some, by_column @ columns / some
    yy = by_row @ rows**2 / some - y**2
    xy = np.einsum("nhw,h,w->n", ink, rows, columns) / some - x * y
    dark = ink > 0.5
    top, left = max(1, round(MARGIN * height)), max(1, round(MARGIN * width))
    inside = ink[:, top : height - top, left : width - left].sum(axis=(1, 2))
    measured = {
        "ink": 100 * mass / (height * width),
        "stroke width": 2 * mass / np.maximum(outline, 1e-9),
        "grey": 100 * (inked & (ink < 0.9)).sum(axis=(1, 2)) / np.maximum(1, inked.sum(axis=(1, 2))),
        "height": _extent(np.asarray(dark.any(axis=2))),
        "width": _extent(np.asarray(dark.any(axis=1))),
        "slant": np.where(yy > 0.25, -xy / np.maximum(yy, 0.25), 0.0),  # positive leans to the right, as rows go down
        "centre x": np.where(mass > 0, x, 0.0),
        "centre y": np.where(mass > 0, y, 0.0),
        "parts minus holes": _euler_number(dark),
        "margin": 100 * (mass - inside) / some,
    }
    return np.stack([measured[name] for name in IMAGE_STATISTICS], axis=1)


def _squares(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Return the corners of every 2 x 2 square of images (N, H, W) in a frame of paper, four of (N, H + 1, W + 1)."""
    p = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return p[:, :-1, :-1], p[:, :-1, 1:], p[:, 1:, :-1], p[:, 1:, 1:]


def _extent(present: npt.NDArray[np.bool_]) -> FloatArray:
    """Return last - first + 1 of what is present in each row, bool (N, L); 0 where nothing is."""
    length = present.shape[1]
    last = length - present[:, ::-1].argmax(axis=1)
    return np.where(present.any(axis=1), last - present.argmax(axis=1), 0).astype(np.float64)


def _euler_number(dark: npt.NDArray[np.bool_]) -> FloatArray:
    """Return connected parts minus holes, ink 8-connected, by counting 2 x 2 patterns (Gray 1971)."""
    a, b, c, d = _squares(dark.astype(np.int8))
    total = a + b + c + d
    one, three = (total == 1).sum(axis=(1, 2)), (total == 3).sum(axis=(1, 2))
    diagonal = ((total == 2) & (a == d)).sum(axis=(1, 2))
    return np.asarray((one - three - 2 * diagonal) / 4, dtype=np.float64)


def _bins(values: FloatArray, edges: FloatArray) -> npt.NDArray[np.uint8]:
    """Return the bin of each value: how many edges lie below it."""
    columns = [np.searchsorted(e, v, side="left") for v, e in zip(values.T, edges, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def _histograms(bins: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp], n_rows: int) -> npt.NDArray[np.float32]:
    """Count bins (N, K) by row (N,) -> (n_rows, K, BINS)."""
    k = bins.shape[1]
    cells = (rows[:, None] * k + np.arange(k)) * BINS + bins
    counts = np.bincount(cells.reshape(-1), minlength=n_rows * k * BINS)
    return counts.reshape(n_rows, k, BINS).astype(np.float32)


def _null_distances(
    bins: npt.NDArray[np.uint8], writer: npt.NDArray[np.intp], drawn: int, each: int, rng: np.random.Generator
) -> FloatArray:
    """Draw windows of up to `each` images of `drawn` writers, and measure them against all other writers: (R, K)."""
    groups = int(writer.max()) + 1
    members = np.split(np.argsort(writer, kind="stable"), np.cumsum(np.bincount(writer))[:-1])
    by_writer = _histograms(bins, writer, groups).reshape(groups, -1)
    total = by_writer.sum(axis=0)
    images = drawn * min(each, max(map(len, members)))
    chunk = max(1, CHUNK_CELLS // max(images * bins.shape[1], groups))
    parts = []
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        chosen = np.argpartition(rng.random((size, groups)), drawn - 1, axis=1)[:, :drawn]
        is_drawn = np.zeros((size, groups), dtype=np.float32)
        np.put_along_axis(is_drawn, chosen, np.float32(1), axis=1)
        rows, picked = _pick(chosen, members, each, rng)
        window = _histograms(bins[picked], rows, size)
        rest = (total - is_drawn @ by_writer).reshape(window.shape)
        parts.append(np.abs(_cdf(window) - _cdf(rest)).max(axis=2))
    return np.concatenate(parts).astype(np.float64)


def _pick(
    chosen: npt.NDArray[np.intp], members: list[npt.NDArray[np.intp]], each: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return (row, image) pairs: of every chosen writer (R, drawn) up to `each` images at random."""
    flat = chosen.reshape(-1)
    order = np.argsort(flat, kind="stable")
    rows = order // chosen.shape[1]
    bounds = np.searchsorted(flat[order], np.arange(len(members) + 1))
    found_rows, found = [], []
    for own, low, high in zip(members, bounds[:-1], bounds[1:], strict=True):
        if low == high:
            continue
        take = min(each, len(own))
        which = np.argsort(rng.random((high - low, len(own))), axis=1)[:, :take] if take < len(own) else None
        images = np.tile(own, (high - low, 1)) if which is None else own[which]
        found_rows.append(np.repeat(rows[low:high], take))
        found.append(images.reshape(-1))
    return np.concatenate(found_rows), np.concatenate(found)


def _cdf(histograms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    summed = np.cumsum(histograms, axis=2)
    return np.asarray(summed / summed[:, :, -1:])


def _t_tail(t: float, freedom: int) -> float:
    """Return P(T > t) of Student's t, by Wallace's (1959) normal approximation, good to about three digits."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    tail = math.erfc(z / math.sqrt(2)) / 2
    return tail if t > 0 else 1 - tail
