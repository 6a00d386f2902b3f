"""Release + settings -> every file on every backend, measured at every thread count and batch, interleaved.

What `bench` and `profile` share. Plans that run on this machine's GPU take part like the ONNX files.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import load_dataset
from hwr_export.engine.here import plans_here
from hwr_export.engine.products import PRODUCTS
from hwr_export.errors import DataError, RunnerError, UsageError
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.latency import Samples, round_medians, spread
from hwr_export.machine import Moment, watched
from hwr_export.measurement import Images, Measured, Progress, measure
from hwr_export.release import GOLDENS, Release, is_for
from hwr_export.runners import EAGER, NO_BF16, ONNX_BACKENDS, VARIANTS, Runner, has_bf16, why_absent
from hwr_export.runners.release import open_runner


class Subject(NamedTuple):
    """What is measured: a file's precision on a backend, a plan of it on TensorRT, or the checkpoint in PyTorch."""

    backend: str
    precision: str


@dataclass(frozen=True)
class BenchConfig:
    """`seconds` is the time to spend on one backend at one batch and thread count; at least 100 calls are made.

    `starts` fresh processes tell what loading costs.
    """

    batches: tuple[int, ...] = (1, 32, 256)
    threads: tuple[int, ...] = (1,)
    seconds: float = 2.0
    backends: tuple[str, ...] = ()
    data: str = "mnist"
    data_root: Path | None = None
    starts: int = 3
    seed: int = 0


class Turn(NamedTuple):
    """One batch at one thread count: what is open, what was measured of it, what the yardstick took, what went on."""

    threads: int
    batch: int
    runners: dict[Subject, Runner]
    found: dict[Subject, Measured]
    ticks: Samples
    watch: dict[str, Any]


class Subjects:
    """What is measured of a release here (`chosen`), and what is not: {backend, reason} in `absent`."""

    def __init__(self, release: Release, config: BenchConfig, variants: Sequence[str] = tuple(VARIANTS)) -> None:
        """Choose what to measure.

        Raises:
            UsageError: a batch, thread count or backend that is not possible.
            RunnerError: a plan is not the file that the manifest vouches for.
        """
        _check(release, config)
        self._release, self._config = release, config
        wanted = config.backends or (*VARIANTS, *ONNX_BACKENDS)
        reasons = {b: why_absent(b) for b in ONNX_BACKENDS if b in wanted}
        # Ten times slower: for who asks for it by name.
        emulated = (
            [] if config.backends or has_bf16() else [v for v in variants if v in wanted and VARIANTS[v] == "bf16"]
        )
        # The baseline is always measured: every ratio is against it.
        self.chosen = [Subject(v, VARIANTS[v]) for v in variants if v == EAGER or (v in wanted and v not in emulated)]
        for model in release.by_role("onnx"):
            precision = str(model.precision)
            able = [b for b, reason in reasons.items() if not reason and is_for(precision, b)]
            self.chosen += [Subject(b, precision) for b in able]
        reasons |= dict.fromkeys(emulated, f"{NO_BF16}; PyTorch would emulate it")
        self.absent = [{"backend": b, "reason": reason} for b, reason in reasons.items() if reason]
        self._plans: dict[Subject, Runner] = {}
        self._choose_plans()

    def turns(
        self, images: Images, say: Callable[[str], None] = lambda _: None, progress: Progress = lambda *_: None
    ) -> Iterator[Turn]:
        """Measure, the most threads first; while a turn is looked at, its runners are open and its processors kept.

        What cannot be opened moves from `chosen` to `absent`.
        """
        config, start, rng = self._config, Moment.now(), random.Random(self._config.seed)
        for threads in most_first(config.threads):
            with on_processors(threads), ExitStack() as stack:
                runners = self._opened(threads, stack)
                for batch in config.batches:
                    able = {s: r for s, r in runners.items() if batch <= r.spec.max_batch}
                    say(f"batch {batch}, {threads} thread(s): {', '.join(dict.fromkeys(s.backend for s in able))}")
                    before = Moment.now()
                    found, ticks = measure(list(able.values()), images, batch, config.seconds, rng, progress)
                    paces = round_medians(ticks)
                    watch = {"batch": batch} | watched(start, before, Moment.now(), threads, spread(paces))
                    yield Turn(threads, batch, able, dict(zip(able, found, strict=True)), ticks, watch)

    def _choose_plans(self) -> None:
        products = [b for b in self._config.backends if b in PRODUCTS]
        if self._config.backends and not products:
            return
        plans, not_run = plans_here(self._release, products)
        self.absent += [{"backend": f"{p['backend']} {p['path']}", "reason": p["reason"]} for p in not_run]
        for found in plans:
            if found.problem:
                raise RunnerError(found.problem)
            subject = Subject(found.runner.backend, str(found.model.precision))
            if subject in self._plans:
                reason = f"another plan of the {subject.precision} file is measured"
                self.absent.append({"backend": f"{subject.backend} {found.plan.path}", "reason": reason})
            else:
                self._plans[subject] = found.runner
        self.chosen += self._plans

    def _opened(self, threads: int, stack: ExitStack) -> dict[Subject, Runner]:
        runners: dict[Subject, Runner] = {}
        for subject in tuple(self.chosen):
            try:
                runner = self._plans.get(subject) or open_runner(self._release, *subject, threads)
                runners[subject] = stack.enter_context(runner)
            except UsageError as err:
                self.chosen.remove(subject)
                self.absent.append({"backend": subject.backend, "reason": str(err).rpartition(": ")[2]})
        return runners


def _check(release: Release, config: BenchConfig) -> None:
    limit = release.spec.max_batch
    for batch in config.batches:
        if not 1 <= batch <= limit:
            raise UsageError(f"a batch of {batch} is outside 1 to {limit}, which the graph was exported for")
    cores = len(os.sched_getaffinity(0))
    if any(not 1 <= t <= cores for t in config.threads) or config.seconds <= 0:
        raise UsageError(f"--threads takes 1 to {cores} on this machine and --seconds more than 0")
    known = (*VARIANTS, *ONNX_BACKENDS, *PRODUCTS)
    for backend in config.backends:
        if backend not in known:
            raise UsageError(f"there is no backend {backend!r}; known: {', '.join(known)}")
        if backend in ONNX_BACKENDS and (reason := why_absent(backend)):
            raise UsageError(f"the backend {backend} cannot be used: {reason}")


def most_first(threads: Sequence[int]) -> list[int]:
    """Order thread counts: runtimes keep for good the processors that they find first, so they must find the most."""
    return sorted(threads, reverse=True)


@contextmanager
def on_processors(n: int) -> Iterator[None]:
    """Keep this process and the threads it starts on the first `n` of its processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def images_of(release: Release, config: BenchConfig) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
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
