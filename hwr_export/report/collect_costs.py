"""What `bench` and `profile` measured -> the facts of a report: latencies with samples, roofs, layers, watches."""

import io
import zipfile
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.errors import ReleaseError
from hwr_export.evidence import evidence
from hwr_export.recommend import recommend
from hwr_export.release import BENCH, BENCH_SAMPLES, PROFILE, Release
from hwr_export.report.cost_facts import (
    Bench,
    Graph,
    Latency,
    Node,
    Peaks,
    Profile,
    Roof,
    Scaled,
    Setting,
    Start,
    Watch,
)
from hwr_export.report.documents import absent, understood
from hwr_export.report.facts import Missing

BENCH_SCHEMA = 3


def bench_of(release: Release, command: str, judged: bool) -> Bench | Missing:
    """Return what `bench` measured; nothing is recommended where nothing was `judged`."""
    document = evidence(release, BENCH)
    if document is None:
        return absent(release, BENCH, "The latency of these files was not measured yet.", command)
    if document.get("schema") != BENCH_SCHEMA:
        return Missing("The latency was measured by an earlier version.", command)
    samples = _samples(release, command)

    def read() -> Bench:
        keys = sorted({(c["batch"], c["threads"]) for c in document["cells"]})
        return Bench(
            document["machine"],
            document["data"],
            document["timed"],
            tuple(document["absent"]),
            tuple(_watch(w) for w in document["watches"]),
            tuple(Start(**{f.name: s[f.name] for f in fields(Start)}) for s in document["starts"]),
            tuple(_setting(release, document["cells"], samples, *key, judged) for key in keys),
        )

    return understood(release, BENCH, command, read)


def _samples(release: Release, command: str) -> dict[str, npt.NDArray[np.float64]]:
    entry = release.entry(BENCH_SAMPLES)
    if entry is None:
        return {}
    try:
        with np.load(io.BytesIO(release.read(entry)), allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float64).ravel() for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise ReleaseError(
            f"{release.path / BENCH_SAMPLES} cannot be read as samples ({err}); run `{command}` again"
        ) from err


def _setting(
    release: Release,
    cells: list[dict[str, Any]],
    samples: dict[str, npt.NDArray[np.float64]],
    batch: int,
    threads: int,
    judged: bool,
) -> Setting:
    here = (c for c in cells if (c["batch"], c["threads"]) == (batch, threads))
    rows = sorted((_latency(c, samples) for c in here), key=lambda row: row.p50_us)
    choice = recommend(release, batch, threads) if judged else {"cells": [], "recommended": None}
    return Setting(batch, threads, tuple(rows), tuple(choice["cells"]), choice["recommended"])


def _latency(cell: dict[str, Any], samples: dict[str, npt.NDArray[np.float64]]) -> Latency:
    def pair(key: str) -> tuple[float, float] | None:
        return None if cell[key] is None else (cell[key][0], cell[key][1])

    key = "/".join(str(cell[k]) for k in ("backend", "precision", "batch", "threads"))
    return Latency(
        backend=cell["backend"],
        precision=cell["precision"],
        batch=cell["batch"],
        threads=cell["threads"],
        verdict=cell["verdict"],
        n=cell["n"],
        p50_us=cell["p50_us"],
        p50_ci_us=pair("p50_ci_us"),
        p90_us=cell["p90_us"],
        p90_ci_us=pair("p90_ci_us"),
        p90_bound_us=cell["p90_mlperf_bound_us"],
        p99_us=cell["p99_us"],
        p99_ci_us=pair("p99_ci_us"),
        p99_bound_us=cell["p99_mlperf_bound_us"],
        images_per_s=cell["offline_images_per_s"],
        speedup=cell["speedup_vs_eager"],
        speedup_ci=pair("speedup_ci"),
        steady=cell["steady"],
        phases_us=cell["phases_us"],
        samples=samples.get(key),
    )


def _watch(found: dict[str, Any]) -> Watch:
    return Watch(
        batch=found["batch"],
        threads=found["threads"],
        seconds=found["seconds"],
        load_average=tuple(found["load_average_1min"]),
        clock_mhz=tuple(found["clock_mhz"]),
        stolen=found["stolen_fraction"],
        throttled=found["throttled"],
        spread=found["yardstick_spread"],
        noisy=tuple(found["noisy"]),
    )


def profile_of(release: Release, command: str) -> Profile | Missing:
    """Return what `profile` measured."""
    document = evidence(release, PROFILE)
    if document is None:
        return absent(release, PROFILE, "Where the time goes was not looked at yet.", command)

    def read() -> Profile:
        return Profile(
            document["machine"],
            tuple(_peaks(p) for p in document["peaks"]),
            tuple(_scaled(s) for s in document["scaling"]),
            tuple(_graph(m) for m in document["models"]),
            tuple(_watch(w) for w in document["watches"]),
        )

    return understood(release, PROFILE, command, read)


def _peaks(found: dict[str, Any]) -> Peaks:
    rates = {name: found[name] and (found[name]["gflops"], found[name]["by"]) for name in ("fp32", "bf16", "int8")}
    return Peaks(found["threads"], found["side"], rates, found["memory_gb_s"])


def _scaled(found: dict[str, Any]) -> Scaled:
    return Scaled(
        backend=found["backend"],
        precision=found["precision"],
        threads=found["threads"],
        arithmetic=found["arithmetic"],
        overhead_us=found["overhead_us"],
        us_per_image=found["us_per_image"],
        points=tuple(
            Roof(
                p["batch"],
                p["p50_us"],
                p["bound"],
                p["overhead_share"],
                p["fraction_of_peak"],
                p["fraction_of_bandwidth"],
            )
            for p in found["points"]
        ),
    )


def _graph(found: dict[str, Any]) -> Graph:
    nodes = tuple(
        Node(
            n["name"],
            n["operator"],
            tuple(n["output_shape"]),
            n["flop"],
            n["bytes"],
            n["intensity"],
            n["share"],
            n["waste"],
        )
        for n in found["layers"]
    )
    return Graph(found["precision"], found["flop"], found["bytes"], nodes)
