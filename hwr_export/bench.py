"""Release + real digits -> latency of every backend against the eager model, interleaved in one run.

What is timed is a reader's work: from raw uint8 images to labels and confidences. The document holds percentiles
and what an undisturbed call takes, `bench-samples.npz` every sample; a machine too noisy to believe is said to be.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.card import write_card
from hwr_export.cold import start_up
from hwr_export.engine.products import PRODUCTS
from hwr_export.evidence import evidence, verdict_in
from hwr_export.files import json_bytes
from hwr_export.latency import Samples, ratio, round_medians, summary, undisturbed
from hwr_export.machine import energy_j, machine_facts
from hwr_export.measurement import Images, Progress, phases, throughput
from hwr_export.release import BENCH, BENCH_SAMPLES, PARITY, Release
from hwr_export.runners import EAGER, VARIANTS
from hwr_export.subjects import BenchConfig, Subject, Subjects, Turn, images_of

TIMED = "uint8 images to labels and confidences"


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
    subjects = Subjects(release, config)
    images, source = images_of(release, config)
    parity = evidence(release, PARITY)
    cells: list[dict[str, Any]] = []
    watches, raw, versions = [], dict[str, npt.NDArray[np.float32]](), dict[str, str]()
    for turn in subjects.turns(images, say, progress):
        watches.append(turn.watch)
        versions |= {r.package: r.version() for r in turn.runners.values()}
        cells += [_cell(turn, s, parity) | _apart(turn, s, images, config.seconds) for s in turn.found]
        for subject, one in turn.found.items():
            raw["/".join((*subject, str(turn.batch), str(turn.threads)))] = one.samples.astype(np.float32)
    started = [s for s in subjects.chosen if s.backend not in PRODUCTS] if config.starts else []
    document = {
        "schema": 3,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "machine": machine_facts() | {"versions": versions, "energy_counter": energy_j() is not None},
        "watches": watches,
        "timed": TIMED,
        "data": source,
        "files": {str(m.precision): m.sha256 for m in release.by_role("onnx")},
        "absent": subjects.absent,
        "starts": [_start(release, s, config, say) for s in started],
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


def _cell(turn: Turn, subject: Subject, parity: dict[str, Any] | None) -> dict[str, Any]:
    one, eager = turn.found[subject], turn.found.get(Subject(EAGER, VARIANTS[EAGER]))
    against = None if eager is None else ratio(round_medians(eager.samples), round_medians(one.samples))
    return {
        "batch": turn.batch,
        "threads": turn.threads,
        "backend": subject.backend,
        "precision": subject.precision,
        "verdict": verdict_in(parity, *subject),
        **summary(one.samples),
        "images_per_s": round(float(turn.batch * one.samples.size / one.samples.sum() * 1e6), 1),
        "speedup_vs_eager": against and round(against.value, 3),
        "speedup_ci": against and [round(against.low, 3), round(against.high, 3)],
        "steady": one.steady,
        "warm_up_calls": one.warm_up_calls,
        "undisturbed_us": _interval(one.samples),
        "yardstick_us": _interval(turn.ticks),
    }


def _interval(samples: Samples) -> list[float]:
    found = undisturbed(samples)
    return [round(us, 3) for us in (found.value, found.low, found.high)]


def _apart(turn: Turn, subject: Subject, images: Images, seconds: float) -> dict[str, Any]:
    """Return what is measured beside the samples: the parts of a call, throughput without pauses, energy."""
    runner, batch = turn.runners[subject], turn.batch
    before = energy_j()
    offline = throughput(runner, images, batch, seconds / 4)
    after = energy_j()
    joules = None if before is None or after is None else (after - before) / max(1.0, offline * seconds / 4)
    return {
        "phases_us": {name: round(us, 2) for name, us in phases(runner, images, batch).items()},
        "offline_images_per_s": round(offline, 1),
        "joules_per_image": joules,
        "device_memory_bytes": runner.device_memory_bytes(),
    }


def _start(release: Release, subject: Subject, config: BenchConfig, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"starting {subject.backend} with {subject.precision} afresh, {config.starts} times")
    cost = start_up(release.path, *subject, config.threads[0], config.starts)
    return {"backend": subject.backend, "precision": subject.precision, "threads": config.threads[0]} | cost
