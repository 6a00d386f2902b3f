"""Verdicts and latencies of a release -> which file is worth shipping to each backend, and why the others are not.

Only what passed parity can be recommended, and only the fastest of that: an int8 file slower than its float is said to
be. Pure arithmetic on `parity.json` and `bench.json`; both must be about the files that the release holds now.
"""

from dataclasses import asdict, dataclass
from typing import Any

from hwr_export.errors import ReleaseError, UsageError
from hwr_export.evidence import evidence
from hwr_export.release import BENCH, PARITY, Release

FLOAT = "fp32"  # what every other precision has to beat


@dataclass(frozen=True)
class Choice:
    """One file on one backend. `speedup` is against the float32 file on the same backend, in the same run."""

    backend: str
    precision: str
    path: str
    verdict: str
    error_percent: float | None
    latency_us: float
    size_bytes: int
    speedup: float | None
    on_front: bool = False
    recommended: bool = False
    why: str = ""


def recommend(release: Release, batch: int = 1, threads: int = 1) -> dict[str, Any]:
    """Return the document of what to ship for batches of `batch` images.

    Raises:
        ReleaseError: parity or bench have not looked at the files that the release holds now.
        UsageError: bench did not measure this batch and thread count.
    """
    parity, bench = _evidence(release, PARITY, "parity"), _evidence(release, BENCH, "bench")
    choices = _choices(release, parity, bench, batch, threads)
    passed = [c for c in choices if c.verdict == "PASS"]
    fastest = {c.backend: c for c in sorted(passed, key=lambda c: -c.latency_us)}
    judged = [_judged(c, passed, fastest.get(c.backend)) for c in choices]
    overall = min(fastest.values(), key=lambda c: c.latency_us, default=None)
    return {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "batch": batch,
        "threads": threads,
        "recommended": overall and {"backend": overall.backend, "precision": overall.precision, "path": overall.path},
        "cells": [asdict(c) for c in judged],
    }


def _evidence(release: Release, path: str, command: str) -> dict[str, Any]:
    found = evidence(release, path)
    if found is None:
        state = "has no" if release.entry(path) is None else "holds ONNX files newer than its"
        raise ReleaseError(f"{release.path} {state} {path}; run `hwr-export {command} {release.path}`")
    return found


def _choices(release: Release, parity: dict[str, Any], bench: dict[str, Any], batch: int, threads: int) -> list[Choice]:
    verdicts = {(c["backend"], c["precision"]): c for c in parity["cells"]}
    latencies = {
        (c["backend"], c["precision"]): c["p50_us"]
        for c in bench["cells"]
        if (c["batch"], c["threads"]) == (batch, threads)
    }
    if not latencies:
        known = sorted({(c["batch"], c["threads"]) for c in bench["cells"]})
        raise UsageError(
            f"bench did not measure a batch of {batch} on {threads} thread(s); it has "
            + ", ".join(f"{b} on {t}" for b, t in known)
        )
    choices = []
    for key, cell in verdicts.items():
        if key not in latencies:
            continue
        model, reference = release.onnx(key[1]), latencies.get((key[0], FLOAT))
        choices.append(
            Choice(
                backend=key[0],
                precision=key[1],
                path=model.path,
                verdict=cell["verdict"],
                error_percent=None if cell["accuracy"] is None else round(100 * (1 - cell["accuracy"]), 4),
                latency_us=latencies[key],
                size_bytes=model.size_bytes,
                speedup=None if reference is None else round(reference / latencies[key], 3),
            )
        )
    return choices


def _judged(choice: Choice, passed: list[Choice], fastest: Choice | None) -> Choice:
    """Say of one file whether it is the one to ship to its backend, and if not, why."""
    facts = asdict(choice)
    facts["on_front"] = choice in passed and not any(_dominates(other, choice) for other in passed)
    facts["recommended"] = choice == fastest
    if choice.verdict != "PASS":
        facts["why"] = f"parity says {choice.verdict}"
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
