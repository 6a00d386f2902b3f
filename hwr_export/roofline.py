"""Release + real digits -> where the time goes: by batch and threads, by layer, against what this machine can do.

A roofline of each file on each backend (Williams et al. 2009), with the machine's own peaks measured in the same run.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.card import write_card
from hwr_export.files import json_bytes
from hwr_export.layers import Layer, layers, total
from hwr_export.machine import machine_facts
from hwr_export.measurement import Images, Progress
from hwr_export.peaks import measure_peaks
from hwr_export.release import PROFILE, Release
from hwr_export.runners import ONNX_BACKENDS, why_absent
from hwr_export.subjects import BenchConfig, Subject, Subjects, images_of

HALF = 0.5  # what takes half of the time, or reaches half of a roof, binds
ARITHMETIC = {"fp32": "fp32", "fp16": "fp32", "bf16": "bf16", "int8": "int8", "int8-cpu": "int8"}


@dataclass(frozen=True)
class Line:
    """Time of a call as `overhead_us` + `us_per_image` x batch, fitted to relative errors; both never negative."""

    overhead_us: float
    us_per_image: float

    def at(self, batch: int) -> float:
        return self.overhead_us + self.us_per_image * batch


def fit_line(batches: Sequence[int], times_us: Sequence[float]) -> Line:
    """Fit the line to at least two points; small batches weigh as much as large ones."""
    t = np.asarray(times_us, dtype=np.float64)
    n = np.asarray(batches, dtype=np.float64)
    (overhead, slope), *_ = np.linalg.lstsq(np.stack([1 / t, n / t], axis=1), np.ones(len(t)), rcond=None)
    if overhead < 0:
        overhead, slope = 0.0, float(np.mean(t / n))
    return Line(float(overhead), float(max(slope, 0.0)))


def bound(
    line: Line, batch: int, time_us: float, flop: float, moved: float, peak: float, memory: float
) -> dict[str, Any]:
    """Return what binds a call: `overhead`, `compute`, `memory`, or `kernels` where none of them explains half of it.

    Args:
        flop, moved: of one image; `moved` counts every value once, as if nothing stayed in a cache.
        peak, memory: FLOP and bytes a second that the machine reaches.
    """
    seconds = time_us / 1e6
    overhead = min(1.0, line.overhead_us / time_us)
    compute, traffic = batch * flop / seconds / peak, batch * moved / seconds / memory
    if overhead >= HALF:
        name = "overhead"
    elif max(compute, traffic) < HALF:
        name = "kernels"
    else:
        name = "compute" if compute >= traffic else "memory"
    shares = {"overhead_share": overhead, "fraction_of_peak": compute, "fraction_of_bandwidth": traffic}
    return {"batch": batch, "p50_us": round(time_us, 2), "bound": name} | {k: round(v, 4) for k, v in shares.items()}


def profile(
    release: Release,
    config: BenchConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure, write `profile.json`, return its document.

    Raises:
        UsageError: a batch, thread count or backend that is not possible.
        ReleaseError: a model file is missing or changed.
        RunnerError: a graph whose shapes cannot be inferred.
    """
    release.require_writable()
    subjects = Subjects(release, config, variants=())
    images, source = images_of(release, config)
    graphs = {str(m.precision): layers(release.read(m)) for m in release.by_role("onnx")}
    peaks, watches = dict[int, dict[str, Any]](), []
    times: dict[tuple[Subject, int], list[tuple[int, float]]] = {}
    for turn in subjects.turns(images, say, progress):
        watches.append(turn.watch)
        for subject, one in turn.found.items():
            times.setdefault((subject, turn.threads), []).append((turn.batch, float(np.median(one.samples))))
        if turn.threads not in peaks:
            say(f"what {turn.threads} thread(s) of this machine can do")
            peaks[turn.threads] = measure_peaks(turn.threads)
    scaling = [
        _scaled(s, n, points, graphs, peaks[n]) for (s, n), points in times.items() if s.backend in ONNX_BACKENDS
    ]
    document = {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "machine": machine_facts(),
        "watches": watches,
        "data": source,
        "peaks": list(peaks.values()),
        "scaling": scaling,
        "models": [
            {"precision": precision, **total(found), "layers": _layer_rows(release, precision, found, images, config)}
            for precision, found in graphs.items()
        ],
    }
    with release.change() as change:
        change.write(PROFILE, json_bytes(document), "profile", [m.sha256 for m in release.by_role("onnx")])
        write_card(change)
    return document


def _scaled(
    subject: Subject,
    threads: int,
    points: Sequence[tuple[int, float]],
    graphs: dict[str, list[Layer]],
    peaks: dict[str, Any],
) -> dict[str, Any]:
    backend, precision = subject
    batches, times = zip(*points, strict=True)
    arithmetic = ARITHMETIC[ONNX_BACKENDS[backend].computes or precision]
    peak, sums = peaks[arithmetic], total(graphs[precision])
    line = fit_line(batches, times)
    return {
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "arithmetic": arithmetic,
        "overhead_us": round(line.overhead_us, 2),
        "us_per_image": round(line.us_per_image, 3),
        "points": [
            bound(line, n, t, sums["flop"], sums["bytes"], peak["gflops"] * 1e9, peaks["memory_gb_s"] * 1e9)
            for n, t in points
        ]
        if peak
        else [],
    }


def _layer_rows(
    release: Release, precision: str, found: list[Layer], images: Images, config: BenchConfig
) -> list[dict[str, Any]]:
    """Return the layers, each with its share of the time in OpenVINO at the largest batch where that runs the file."""
    shares: dict[str, float] = {}
    if precision != "int8-cpu" and not why_absent("openvino"):
        shares = openvino_shares(release.read(release.onnx(precision)), images, max(config.batches), config.threads[0])
    return [
        asdict(one)
        | {"output_shape": list(one.output_shape), "intensity": round(one.intensity, 2), "share": shares.get(one.name)}
        for one in found
    ]


def openvino_shares(model: bytes, images: Images, batch: int, threads: int) -> dict[str, float]:
    """Return each layer's share of a call's time by OpenVINO's own counters; what it fused away has none."""
    from hwr_export.runners.openvino import compile_model
    from hwr_export.spec import INPUT

    request = compile_model(model, threads, "f32", profiled=True)[0].create_infer_request()
    window: npt.NDArray[np.uint8] = np.resize(images, (batch, *images.shape[1:]))
    times: dict[str, list[float]] = {}
    for _ in range(12):
        request.infer({INPUT: window})
        for node in request.get_profiling_info():
            times.setdefault(node.node_name.partition("/")[0], []).append(node.real_time.total_seconds())
    medians = {name: float(np.median(t)) for name, t in times.items()}
    whole = sum(medians.values()) or 1.0
    return {name: round(t / whole, 4) for name, t in medians.items() if t}
