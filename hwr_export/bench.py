"""Release + real digits -> latency of every backend against the eager model, interleaved in one run.

What is timed is a reader's work: from raw uint8 images to labels and confidences. The document holds percentiles and
round medians, `bench-samples.npz` every sample; a machine too noisy to believe is said to be.
"""

import io
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwr_export.card import write_card
from hwr_export.cold import start_up
from hwr_export.datasets import load_dataset
from hwr_export.errors import DataError, UsageError
from hwr_export.evidence import evidence, verdict_in
from hwr_export.files import json_bytes
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.latency import ratio, round_medians, spread, summary
from hwr_export.machine import Moment, energy_j, machine_facts, watched
from hwr_export.measurement import Images, Measured, Progress, measure, phases, throughput
from hwr_export.release import BENCH, BENCH_SAMPLES, GOLDENS, PARITY, Release, is_for
from hwr_export.runners import EAGER, ONNX_BACKENDS, VARIANTS, Runner, why_absent
from hwr_export.runners.release import open_runner

TIMED = "uint8 images to labels and confidences"


class Subject(NamedTuple):
    """What is measured: a file's precision on a backend, or the checkpoint in PyTorch."""

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


def bench(
    release: Release,
    config: BenchConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure, write `bench.json` and `bench-samples.npz`, return the former.

    Raises:
        UsageError: a batch, thread count or backend that is not possible.
        ReleaseError: a model file is missing or changed.
    """
    release.require_writable()
    _check(release, config)
    subjects, absent = subjects_of(release, config)
    images, source = images_of(release, config)
    rng = random.Random(config.seed)
    start = Moment.now()
    cells: list[dict[str, Any]] = []
    watches, raw, versions = [], dict[str, npt.NDArray[np.float32]](), dict[str, str]()
    for threads in most_first(config.threads):
        with on_processors(threads), ExitStack() as stack:
            runners: dict[Subject, Runner] = {}
            for subject in subjects:
                try:
                    runners[subject] = stack.enter_context(open_runner(release, *subject, threads))
                except UsageError as err:
                    absent.append({"backend": subject.backend, "reason": str(err).rpartition(": ")[2]})
            subjects = list(runners)
            versions |= {r.package: r.version() for r in runners.values()}
            for batch in config.batches:
                say(f"batch {batch}, {threads} thread(s): {', '.join(dict.fromkeys(s.backend for s in runners))}")
                before = Moment.now()
                found, ticks = measure(list(runners.values()), images, batch, config.seconds, rng, progress)
                watches.append({"batch": batch} | watched(start, before, Moment.now(), threads, spread(ticks)))
                at = {"batch": batch, "threads": threads}
                cells += [
                    at | cell | _apart(runners[subject], images, batch, config.seconds)
                    for subject, cell in _cells(dict(zip(runners, found, strict=True)), ticks, batch, release).items()
                ]
                for subject, one in zip(runners, found, strict=True):
                    raw["/".join((*subject, str(batch), str(threads)))] = one.samples.astype(np.float32)
    document = {
        "schema": 2,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "machine": machine_facts() | {"versions": versions, "energy_counter": energy_j() is not None},
        "watches": watches,
        "timed": TIMED,
        "data": source,
        "files": {str(m.precision): m.sha256 for m in release.by_role("onnx")},
        "absent": absent,
        "starts": [_start(release, s, config, say) for s in subjects] if config.starts else [],
        "cells": cells,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **raw)  # type: ignore[arg-type]
    with release.change() as change:
        made_from = [m.sha256 for m in release.by_role("onnx")]
        samples = change.write(BENCH_SAMPLES, buffer.getvalue(), "samples", made_from)
        change.write(BENCH, json_bytes(document), "bench", [*made_from, samples.sha256])
        write_card(change)
    return document


def _check(release: Release, config: BenchConfig) -> None:
    limit = release.spec.max_batch
    for batch in config.batches:
        if not 1 <= batch <= limit:
            raise UsageError(f"a batch of {batch} is outside 1 to {limit}, which the graph was exported for")
    cores = len(os.sched_getaffinity(0))
    if any(not 1 <= t <= cores for t in config.threads) or config.seconds <= 0:
        raise UsageError(f"--threads takes 1 to {cores} on this machine and --seconds more than 0")


def subjects_of(release: Release, config: BenchConfig) -> tuple[list[Subject], list[dict[str, str]]]:
    """Return what to measure, and which backends this machine lacks.

    Raises:
        UsageError: a backend was asked for that is unknown or absent.
    """
    known = (*VARIANTS, *ONNX_BACKENDS)
    for backend in config.backends:
        if backend not in known:
            raise UsageError(f"there is no backend {backend!r}; known: {', '.join(known)}")
        if backend in ONNX_BACKENDS and (reason := why_absent(backend)):
            raise UsageError(f"the backend {backend} cannot be used: {reason}")
    wanted = config.backends or known
    reasons = {b: why_absent(b) for b in ONNX_BACKENDS if b in wanted}
    # The baseline is always measured: every ratio is against it.
    subjects = [Subject(v, precision) for v, precision in VARIANTS.items() if v == EAGER or v in wanted]
    for model in release.by_role("onnx"):
        precision = str(model.precision)
        subjects += [Subject(b, precision) for b, reason in reasons.items() if not reason and is_for(precision, b)]
    return subjects, [{"backend": b, "reason": reason} for b, reason in reasons.items() if reason]


def _cells(
    found: dict[Subject, Measured], ticks: npt.NDArray[np.float64], batch: int, release: Release
) -> dict[Subject, dict[str, Any]]:
    parity = evidence(release, PARITY)
    eager = found.get(Subject(EAGER, VARIANTS[EAGER]))
    cells = {}
    for subject, one in found.items():
        rounds = round_medians(one.samples)
        against = None if eager is None else ratio(round_medians(eager.samples), rounds)
        cells[subject] = {
            "backend": subject.backend,
            "precision": subject.precision,
            "verdict": verdict_in(parity, *subject),
            **summary(one.samples),
            "images_per_s": round(float(batch * one.samples.size / one.samples.sum() * 1e6), 1),
            "speedup_vs_eager": against and round(against.value, 3),
            "speedup_ci": against and [round(against.low, 3), round(against.high, 3)],
            "steady": one.steady,
            "warm_up_calls": one.warm_up_calls,
            "rounds_us": [round(float(us), 3) for us in rounds],
            "yardstick_us": [round(float(us), 3) for us in ticks],
        }
    return cells


def _apart(runner: Runner, images: Images, batch: int, seconds: float) -> dict[str, Any]:
    """Return what is measured beside the samples: the parts of a call, throughput without pauses, energy."""
    before = energy_j()
    offline = throughput(runner, images, batch, seconds / 4)
    after = energy_j()
    joules = None if before is None or after is None else (after - before) / max(1.0, offline * seconds / 4)
    return {
        "phases_us": {name: round(us, 2) for name, us in phases(runner, images, batch).items()},
        "offline_images_per_s": round(offline, 1),
        "joules_per_image": joules,
    }


def _start(release: Release, subject: Subject, config: BenchConfig, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"starting {subject.backend} with {subject.precision} afresh, {config.starts} times")
    cost = start_up(release.path, *subject, config.threads[0], config.starts)
    return {"backend": subject.backend, "precision": subject.precision, "threads": config.threads[0]} | cost


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
