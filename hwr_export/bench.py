"""Release + real digits -> latency of every backend against the eager model, interleaved in one run.

What is timed is a reader's work: from raw uint8 images to labels and confidences. Images differ at every call, every
backend is warmed up, blocks of calls alternate in random order, no sample is dropped.
"""

import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.card import write_card
from hwr_export.datasets import load_dataset
from hwr_export.errors import DataError, UsageError
from hwr_export.files import json_bytes
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.parity import choose_backends
from hwr_export.release import BENCH, GOLDENS, Release, is_for
from hwr_export.runners import Runner, onnx_runner
from hwr_export.spec import INPUT, PROBABILITIES

EAGER = "eager"
ROUNDS = 20
MIN_CALLS, MAX_CALLS = 100, 2000
WARM_UP_S, WARM_UP_CALLS = 0.3, 10
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BenchConfig:
    """`seconds` is the time to spend on one backend at one batch and thread count; at least 100 calls are made."""

    batches: tuple[int, ...] = (1, 32, 256)
    threads: tuple[int, ...] = (1,)
    seconds: float = 2.0
    backends: tuple[str, ...] = ()
    data: str = "mnist"
    data_root: Path | None = None
    seed: int = 0


def bench(
    release: Release,
    config: BenchConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure, write `bench.json`, return its document.

    Raises:
        UsageError: a batch, thread count or backend that is not possible.
        ReleaseError: a model file is missing or changed.
    """
    release.require_writable()
    limit = release.spec.max_batch
    for batch in config.batches:
        if not 1 <= batch <= limit:
            raise UsageError(f"a batch of {batch} is outside 1 to {limit}, which the graph was exported for")
    cores = os.cpu_count() or 1
    if any(not 1 <= t <= cores for t in config.threads) or config.seconds <= 0:
        raise UsageError(f"--threads takes 1 to {cores} on this machine and --seconds more than 0")
    backends = choose_backends(config.backends)
    images, source = _images(release, config)
    rng = random.Random(config.seed)
    cells, absent = [], []
    for threads in config.threads:
        with ExitStack() as stack:
            runners: dict[tuple[str, str], Runner] = {}
            try:
                from hwr_export.runners.eager import EagerRunner

                runners[EAGER, "fp32"] = EagerRunner.from_release(release.path, release.spec, threads)
            except ModuleNotFoundError as err:
                absent = [{"backend": EAGER, "reason": f"{err.name} is not installed"}]
            for model in release.by_role("onnx"):
                for backend in (b for b in backends if is_for(model.precision, b)):
                    runner = onnx_runner(backend, release.read(model), release.spec, threads)
                    runners[backend, str(model.precision)] = runner
            for runner in runners.values():
                stack.enter_context(runner)
            for batch in config.batches:
                say(f"batch {batch}, {threads} thread(s): {', '.join(b for b, _ in runners)}")
                samples = measure(list(runners.values()), images, batch, config.seconds, rng, progress)
                named = dict(zip(runners, samples, strict=True))
                cells += [_cell(key, batch, threads, s, named.get((EAGER, "fp32"))) for key, s in named.items()]
    versions = {runner.backend: runner.version() for runner in runners.values()}
    document = {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "machine": machine_facts() | {"versions": versions},
        "timed": "uint8 images to labels and confidences",
        "data": source,
        "absent": absent,
        "cells": cells,
    }
    with release.change() as change:
        change.write(BENCH, json_bytes(document), "bench", [m.sha256 for m in release.by_role("onnx")])
        write_card(change)
    return document


def measure(
    runners: Sequence[Runner],
    images: npt.NDArray[np.uint8],
    batch: int,
    seconds: float,
    rng: random.Random,
    progress: Progress = lambda *_: None,
) -> list[npt.NDArray[np.float64]]:
    """Return microseconds of every call of every runner: blocks in an order drawn anew each round."""
    feeds = [_Feed(images, batch) for _ in runners]
    blocks = [_block_size(_warm_up(r, f), seconds) for r, f in zip(runners, feeds, strict=True)]
    samples: list[list[float]] = [[] for _ in runners]
    order = list(range(len(runners)))
    for done in range(ROUNDS):
        rng.shuffle(order)
        for i in order:
            # The first call after another backend finds cold caches; it is made, and not counted.
            _timed_call(runners[i], feeds[i].next())
            samples[i] += [_timed_call(runners[i], feeds[i].next()) for _ in range(blocks[i])]
        progress(done + 1, ROUNDS)
    return [np.asarray(s) for s in samples]


def answer(runner: Runner, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return labels int64 (N,) and confidences float32 (N,): what is timed."""
    probabilities = runner.infer({INPUT: images})[PROBABILITIES]
    return probabilities.argmax(axis=1), probabilities.max(axis=1)


def machine_facts() -> dict[str, Any]:
    """Describe the machine that measured, without naming it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


class _Feed:
    """Batches of real images, each call another window of the dataset."""

    def __init__(self, images: npt.NDArray[np.uint8], batch: int) -> None:
        self._images = images if len(images) >= 2 * batch else np.resize(images, (2 * batch, *images.shape[1:]))
        self._batch = batch
        self._start = 0

    def next(self) -> npt.NDArray[np.uint8]:
        if self._start + self._batch > len(self._images):
            self._start = 0
        window = self._images[self._start : self._start + self._batch]
        self._start += self._batch
        return window


def _timed_call(runner: Runner, images: npt.NDArray[np.uint8]) -> float:
    start = time.perf_counter_ns()
    answer(runner, images)
    return (time.perf_counter_ns() - start) / 1000


def _warm_up(runner: Runner, feed: _Feed) -> float:
    """Run until time and calls suffice; return the median of the last calls in microseconds."""
    taken: list[float] = []
    while len(taken) < WARM_UP_CALLS or sum(taken) < WARM_UP_S * 1e6:
        taken.append(_timed_call(runner, feed.next()))
    return float(np.median(taken[-WARM_UP_CALLS:]))


def _block_size(call_us: float, seconds: float) -> int:
    calls = min(max(MIN_CALLS, int(seconds * 1e6 / call_us)), MAX_CALLS)
    return -(-calls // ROUNDS)


def _cell(
    key: tuple[str, str],
    batch: int,
    threads: int,
    samples: npt.NDArray[np.float64],
    eager: npt.NDArray[np.float64] | None,
) -> dict[str, Any]:
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return {
        "backend": key[0],
        "precision": key[1],
        "batch": batch,
        "threads": threads,
        "n": len(samples),
        "p50_us": round(float(p50), 2),
        "p90_us": round(float(p90), 2),
        "p99_us": round(float(p99), 2),
        "images_per_s": round(float(batch * len(samples) / samples.sum() * 1e6), 1),
        "speedup_vs_eager": None if eager is None else round(float(np.median(eager) / p50), 3),
    }


def _images(release: Release, config: BenchConfig) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Return real images: of the dataset where it is there and fits, else the goldens' (which every release has)."""
    try:
        data = load_dataset(config.data, "test", config.data_root)
    except DataError:
        if config.data_root is not None or config.data != BenchConfig.data:
            raise
        data = None
    if data is not None and data.images.shape[1:] == release.spec.image_shape:
        return data.images, {"name": data.name, "n": len(data), "sha256": data.sha256}
    entry = release.entry(GOLDENS)
    if entry is None:
        raise UsageError(f"{release.path} has no {GOLDENS}; run `hwr-export onnx` again")
    goldens = Goldens.from_bytes(release.read(entry), str(release.path / GOLDENS))
    real = goldens.images[: int(np.flatnonzero(goldens.labels != SYNTHETIC).max(initial=len(goldens) - 1)) + 1]
    return real, {"name": "goldens", "n": len(real), "sha256": entry.sha256}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
