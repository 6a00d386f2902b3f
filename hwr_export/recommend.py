"""Verdicts and latencies of a release -> which file is worth shipping to each backend, and why the others are not.

Only what passed parity can be recommended, and only the fastest of that: an int8 file slower than its float is said to
be. Pure arithmetic on `parity.json` and `bench.json`; both must be about the files that the release holds now.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hwr_export.engine.products import PRODUCTS
from hwr_export.errors import ReleaseError, UsageError
from hwr_export.evidence import evidence, verdict_in
from hwr_export.release import BENCH, PARITY, Release
from hwr_export.runners import ONNX_BACKENDS

Target = Literal["any", "cpu", "gpu"]
FLOAT = "fp32"  # what every other precision has to beat


@dataclass(frozen=True)
class Choice:
    """One file on one backend. `speedup` is against the float32 file on the same backend, in the same run.

    `latency_us` is the median of a call, `tail_us` its 99th percentile, or its 90th where n does not support that.
    """

    backend: str
    precision: str
    path: str
    verdict: str
    error_percent: float | None
    latency_us: float
    tail_us: float
    size_bytes: int
    speedup: float | None
    on_front: bool = False
    recommended: bool = False
    why: str = ""


def recommend(
    release: Release,
    batch: int | None = None,
    threads: int = 1,
    target: Target = "any",
    max_latency_us: float | None = None,
) -> dict[str, Any]:
    """Return the document of what to ship for batches of `batch` images.

    Args:
        batch: None for 1, or with `max_latency_us` for the batch that reads most images a second within it.
        target: the kind of device whose backends are considered.
        max_latency_us: what a call may take, at its 99th percentile, or its 90th where so few calls were measured.

    Raises:
        ReleaseError: parity or bench have not looked at the files that the release holds now.
        UsageError: bench did not measure this batch and thread count.
    """
    parity, bench = _evidence(release, PARITY, "parity"), _evidence(release, BENCH, "bench")
    cells = [c for c in bench["cells"] if c["threads"] == threads and _is_on(c["backend"], target)]
    limit = math.inf if max_latency_us is None else max_latency_us
    if batch is None:
        batch = _best_batch(parity, cells, limit) if max_latency_us is not None else 1
    choices = _choices(release, parity, bench["cells"], cells, batch, threads)
    passed = [c for c in choices if c.verdict == "PASS" and c.tail_us <= limit]
    fastest = {c.backend: c for c in sorted(passed, key=lambda c: -c.latency_us)}
    judged = [_judged(c, passed, fastest.get(c.backend), limit) for c in choices]
    overall = min(fastest.values(), key=lambda c: c.latency_us, default=None)
    return {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "batch": batch,
        "threads": threads,
        "target": target,
        "max_latency_us": max_latency_us,
        "recommended": overall and {"backend": overall.backend, "precision": overall.precision, "path": overall.path},
        "cells": [asdict(c) for c in judged],
    }


def _evidence(release: Release, path: str, command: str) -> dict[str, Any]:
    found = evidence(release, path)
    if found is None:
        state = "has no" if release.entry(path) is None else "holds ONNX files newer than its"
        raise ReleaseError(f"{release.path} {state} {path}; run `hwr-export {command} {release.path}`")
    return found


def _is_on(backend: str, target: Target) -> bool:
    on_gpu = backend in PRODUCTS or (backend in ONNX_BACKENDS and ONNX_BACKENDS[backend].needs == "an NVIDIA GPU")
    return target == "any" or (target == "gpu") == on_gpu


def _tail(cell: dict[str, Any]) -> float:
    """Return the largest percentile that a cell has, microseconds."""
    return float(next(cell[p] for p in ("p99_us", "p90_us", "p50_us") if cell.get(p) is not None))


def _best_batch(parity: dict[str, Any], cells: list[dict[str, Any]], limit: float) -> int:
    """Return the batch that reads most images a second within the limit, the smallest where none keeps to it."""
    allowed = [c for c in cells if _tail(c) <= limit and verdict_in(parity, c["backend"], c["precision"]) == "PASS"]
    best = max(allowed, key=lambda c: c["batch"] / c["p50_us"], default=None)
    return int(best["batch"] if best else min((c["batch"] for c in cells), default=1))


def _choices(
    release: Release,
    parity: dict[str, Any],
    measured: list[dict[str, Any]],
    cells: list[dict[str, Any]],
    batch: int,
    threads: int,
) -> list[Choice]:
    verdicts = {(c["backend"], c["precision"]): c for c in parity["cells"]}
    found = {(c["backend"], c["precision"]): c for c in cells if c["batch"] == batch}
    latencies = {key: c["p50_us"] for key, c in found.items()}
    if not latencies:
        known = sorted({(c["batch"], c["threads"]) for c in measured})
        raise UsageError(
            f"bench did not measure a batch of {batch} on {threads} thread(s); it has "
            + ", ".join(f"{b} on {t}" for b, t in known)
        )
    choices = []
    for key, cell in verdicts.items():
        if key not in latencies:
            continue
        reference = latencies.get((key[0], FLOAT))
        path = cell["file"]["path"] if "file" in cell else release.onnx(key[1]).path
        shipped = release.entry(path) or release.onnx(key[1])
        choices.append(
            Choice(
                backend=key[0],
                precision=key[1],
                path=path,
                verdict=cell["verdict"],
                error_percent=None if cell["accuracy"] is None else round(100 * (1 - cell["accuracy"]), 4),
                latency_us=latencies[key],
                tail_us=_tail(found[key]),
                size_bytes=shipped.size_bytes,
                speedup=None if reference is None else round(reference / latencies[key], 3),
            )
        )
    return choices


def _judged(choice: Choice, passed: list[Choice], fastest: Choice | None, limit: float) -> Choice:
    """Say of one file whether it is the one to ship to its backend, and if not, why."""
    facts = asdict(choice)
    facts["on_front"] = choice in passed and not any(_dominates(other, choice) for other in passed)
    facts["recommended"] = choice == fastest
    if choice.verdict != "PASS":
        facts["why"] = f"parity says {choice.verdict}"
    elif choice.tail_us > limit:
        facts["why"] = f"one in a hundred calls takes {choice.tail_us:,.0f} us or more"
    elif choice == fastest:
        facts["why"] = f"the fastest that passes on {choice.backend}"
    elif choice.speedup is not None and choice.precision != FLOAT and choice.speedup < 1:
        facts["why"] = f"does not pay: {1 / choice.speedup:.1f} times slower than {FLOAT} on {choice.backend}"
    elif fastest is not None:
        facts["why"] = f"{fastest.precision} is {choice.latency_us / fastest.latency_us:.1f} times faster"
    return Choice(**facts)


def _dominates(a: Choice, b: Choice) -> bool:
    """Whether `a` is nowhere worse than `b` in error, latency and size, and somewhere better."""
    ours, theirs = _costs(a), _costs(b)
    return all(x <= y for x, y in zip(ours, theirs, strict=True)) and ours != theirs


def _costs(choice: Choice) -> tuple[float, float, float]:
    return choice.error_percent or 0.0, choice.latency_us, choice.size_bytes
