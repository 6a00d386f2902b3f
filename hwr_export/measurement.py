"""Runners + real images -> samples of their latency, interleaved in one run with a yardstick of unchanging work.

What is timed is a reader's work: from raw uint8 images to labels and confidences. Images differ at every call, every
runner is warmed up until it is steady, blocks of calls alternate in random order, no sample is dropped.
"""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.latency import Samples
from hwr_export.runners import Runner
from hwr_export.spec import INPUT, PROBABILITIES

Images = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

ROUNDS = 20
MIN_CALLS, MAX_CALLS = 200, 2000
TICKS = 3  # of the yardstick beside a block
WARM_UP_S, WARM_UP_AT_MOST_S = 0.3, 3.0
WINDOW = 10  # calls whose medians are compared while warming up
STEADY = 0.03
PHASE_CALLS = 30


@dataclass(frozen=True)
class Measured:
    """One runner at one batch size: microseconds (rounds, calls), and whether it had become steady before."""

    samples: Samples
    steady: bool
    warm_up_calls: int


class Yardstick:
    """Work that never changes and uses one thread: what it takes tells how fast the machine is just now.

    A chain of hashes lives in registers. Whatever goes through memory took up to a tenth longer in one process than in
    another, for where its arrays happened to lie: 16 KB of numbers in the first cache, too.
    """

    def __call__(self) -> float:
        """Return microseconds."""
        start = time.perf_counter_ns()
        hashlib.pbkdf2_hmac("sha256", b"yard", b"stick", 300)
        return (time.perf_counter_ns() - start) / 1000


def measure(
    runners: Sequence[Runner],
    images: Images,
    batch: int,
    seconds: float,
    rng: random.Random,
    progress: Progress = lambda *_: None,
) -> tuple[list[Measured], Samples]:
    """Time every runner for about `seconds`, and the yardstick beside each block.

    Returns:
        What was measured of each runner, and what the yardstick took, microseconds (rounds, ticks).
    """
    feeds = [_Feed(images, batch) for _ in runners]
    yardstick = Yardstick()
    warm = [_warm_up(r, f) for r, f in zip(runners, feeds, strict=True)]
    blocks = [_block_size(us, seconds) for us, _, _ in warm]
    samples = [np.empty((ROUNDS, block)) for block in blocks]
    ticks: list[list[float]] = [[] for _ in range(ROUNDS)]
    order = list(range(len(runners)))
    for done in range(ROUNDS):
        rng.shuffle(order)
        for i in order:
            ticks[done] += [yardstick() for _ in range(TICKS)]
            # The first call after another backend finds cold caches; it is made, and not counted.
            _timed_call(runners[i], feeds[i].next())
            samples[i][done] = [_timed_call(runners[i], feeds[i].next()) for _ in range(blocks[i])]
        progress(done + 1, ROUNDS)
    found = [Measured(s, steady, calls) for s, (_, steady, calls) in zip(samples, warm, strict=True)]
    return found, np.asarray(ticks)


def phases(runner: Runner, images: Images, batch: int) -> dict[str, float]:
    """Return the median microseconds of each part of a call that the runner can time apart, in order."""
    feed = _Feed(images, batch)
    calls = [runner.phases({INPUT: feed.next()}) for _ in range(PHASE_CALLS)]
    return {name: float(np.median([c[name] for c in calls])) / 1000 for name in calls[0]}


def throughput(runner: Runner, images: Images, batch: int, seconds: float) -> float:
    """Return images a second when batches follow one another without a pause (MLPerf's offline scenario)."""
    feed = _Feed(images, batch)
    start, n = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds or n == 0:
        answer(runner, feed.next())
        n += batch
    return n / took


def answer(runner: Runner, images: Images) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return labels int64 (N,) and confidences float32 (N,): what is timed."""
    probabilities = runner.infer({INPUT: images})[PROBABILITIES]
    return probabilities.argmax(axis=1), probabilities.max(axis=1)


class _Feed:
    """Batches of real images, each call another window of the dataset."""

    def __init__(self, images: Images, batch: int) -> None:
        self._images = images if len(images) >= 2 * batch else np.resize(images, (2 * batch, *images.shape[1:]))
        self._batch = batch
        self._start = 0

    def next(self) -> Images:
        if self._start + self._batch > len(self._images):
            self._start = 0
        window = self._images[self._start : self._start + self._batch]
        self._start += self._batch
        return window


def _timed_call(runner: Runner, images: Images) -> float:
    start = time.perf_counter_ns()
    answer(runner, images)
    return (time.perf_counter_ns() - start) / 1000


def _warm_up(runner: Runner, feed: _Feed) -> tuple[float, bool, int]:
    """Run until two windows of calls in a row take the same time, and at least a while.

    Returns:
        The median of the last window in microseconds, whether it was steady before time ran out, and the calls made.
    """
    taken: list[float] = []
    start, steady = time.perf_counter(), False
    while True:
        taken += [_timed_call(runner, feed.next()) for _ in range(WINDOW)]
        passed = time.perf_counter() - start
        last = float(np.median(taken[-WINDOW:]))
        if len(taken) >= 2 * WINDOW:
            steady = abs(float(np.median(taken[-2 * WINDOW : -WINDOW])) / last - 1) < STEADY
        if passed > WARM_UP_AT_MOST_S or (steady and passed > WARM_UP_S):
            return last, steady, len(taken)


def _block_size(call_us: float, seconds: float) -> int:
    calls = min(max(MIN_CALLS, int(seconds * 1e6 / call_us)), MAX_CALLS)
    return -(-calls // ROUNDS)
