"""A release -> the facts of its report, from its own evidence alone: no dataset, no backend, no torch."""

import io
import json
import shlex
import zipfile
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hwr_export.errors import ReleaseError
from hwr_export.evidence import evidence
from hwr_export.recommend import recommend
from hwr_export.release import BENCH, BENCH_SAMPLES, CHECKPOINT, MODEL_CARD, PARITY, QUANTIZATION, REPORT, Release
from hwr_export.report.facts import (
    Answers,
    Bench,
    Facts,
    File,
    Flip,
    Judged,
    Latency,
    Layer,
    Missing,
    Parity,
    Quantised,
    Reading,
    Setting,
)

BENCH_SCHEMA = 2
T = TypeVar("T")


def collect(release: Release) -> Facts:
    """Read everything that a report tells.

    Raises:
        ReleaseError: evidence is there and is not what the manifest vouches for, or is no such document.
    """
    commands = {name: f"hwr-export {name} {shlex.quote(str(release.path))}" for name in ("parity", "bench", "quantize")}
    parity = _parity(release, commands["parity"])
    made = {f.path: f for f in release.manifest.files}
    # The page and the card are about the other files, and are written after them.
    statuses = [s for s in release.verify() if s.path not in (REPORT, MODEL_CARD)]
    files = (File(s.path, made[s.path].role, made[s.path].size_bytes, s.sha256, s.problem) for s in statuses)
    return Facts(
        name=release.manifest.name,
        made_with=release.manifest.hwr_export,
        manifest_sha256=release.manifest_sha256,
        labels=release.spec.labels,
        model=release.spec.model_dump(mode="json") | {"opset": release.manifest.opset},
        provenance=tuple(_provenance(release)),
        files=tuple(files),
        parity=parity,
        bench=_bench(release, commands["bench"], judged=isinstance(parity, Parity)),
        quantised=_quantised(release, commands["quantize"]),
        commands=commands,
    )


def _parity(release: Release, command: str) -> Parity | Missing:
    document = evidence(release, PARITY)
    if document is None:
        return _missing(release, PARITY, "The files were not compared with the eager model yet.", command)

    def read() -> Parity:
        flips, left_out = _flips(document["cells"], release.spec.labels)
        return Parity(
            document["verdict"],
            document["data"]["name"],
            document["data"]["n"],
            document["margin_pt"],
            tuple(_judged(c) for c in document["cells"]),
            _answers(document.get("eager")),
            flips,
            left_out,
        )

    return _understood(release, PARITY, command, read)


def _judged(cell: dict[str, Any]) -> Judged:
    interval = cell["delta_ci_pt"]
    return Judged(
        backend=cell["backend"],
        precision=cell["precision"],
        path=cell["file"]["path"],
        verdict=cell["verdict"],
        reasons=tuple(cell["reasons"]),
        n=cell["n"],
        agreement=cell["agreement"],
        flips=cell["flips"],
        accuracy=cell["accuracy"],
        delta_pt=cell["accuracy_delta_pt"],
        delta_ci_pt=interval and (interval[0], interval[1]),
        max_logit_difference=cell["max_abs_logit_diff"],
        tolerance=cell["tolerance"],
        task=cell["task"],
        corruptions=cell["corruptions"],
        answers=_answers(cell.get("answers")),
    )


def _answers(found: dict[str, Any] | None) -> Answers | None:
    if found is None:
        return None
    return Answers(
        right=found["right"],
        n=found["n"],
        accuracy_ci95=(found["accuracy_ci95"][0], found["accuracy_ci95"][1]),
        confusion=tuple((t, a, k) for t, a, k in found["confusion"]),
        reliability=tuple((c, a, n) for c, a, n in found["reliability"]),
        risk_coverage=tuple((c, r) for c, r in found["risk_coverage"]),
    )


def _flips(cells: list[dict[str, Any]], labels: str) -> tuple[tuple[Flip, ...], int]:
    """Return the images that files read otherwise, each once, and how many flips are counted but not kept."""
    found: dict[int, Flip] = {}
    left_out = 0
    for cell in cells:
        kept = cell.get("flipped") or []
        left_out += (cell["flips"] or {"total": 0})["total"] - len(kept)
        for flip in kept:
            one = found.get(flip["index"]) or Flip(
                flip["index"],
                None if flip["label"] is None else labels[flip["label"]],
                flip["png"],
                _reading("eager", flip["eager"], labels),
                (),
            )
            other = _reading(f"{cell['precision']} on {cell['backend']}", flip["exported"], labels)
            found[one.index] = Flip(one.index, one.label, one.png, one.eager, (*one.exported, other))
    return tuple(sorted(found.values(), key=lambda f: -f.eager.margin)), left_out


def _reading(side: str, found: dict[str, Any], labels: str) -> Reading:
    return Reading(side, labels[found["answer"]], found["margin"], found["confidence"])


def _bench(release: Release, command: str, judged: bool) -> Bench | Missing:
    document = evidence(release, BENCH)
    if document is None:
        return _missing(release, BENCH, "The latency of these files was not measured yet.", command)
    if document.get("schema") != BENCH_SCHEMA:
        return Missing("The latency was measured by an earlier version, which kept no samples.", command)
    samples = _samples(release, command)

    def read() -> Bench:
        keys = sorted({(c["batch"], c["threads"]) for c in document["cells"]})
        return Bench(
            document["machine"],
            document["data"],
            document["timed"],
            tuple(document["absent"]),
            tuple(f"Batch {w['batch']}, threads {w['threads']}: {n}" for w in document["watches"] for n in w["noisy"]),
            tuple(document["starts"]),
            tuple(_setting(release, document["cells"], samples, *key, judged) for key in keys),
        )

    return _understood(release, BENCH, command, read)


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
        p99_us=cell["p99_us"],
        p99_bound_us=cell["p99_mlperf_bound_us"],
        images_per_s=cell["offline_images_per_s"],
        speedup=cell["speedup_vs_eager"],
        speedup_ci=pair("speedup_ci"),
        steady=cell["steady"],
        phases_us=cell["phases_us"],
        samples=samples.get(key),
    )


def _quantised(release: Release, command: str) -> tuple[Quantised, ...] | Missing:
    entry = release.entry(QUANTIZATION)
    if entry is None:
        return Missing("This release has no int8 files.", command)
    document = json.loads(release.read(entry))

    def read() -> tuple[Quantised, ...]:
        return tuple(
            Quantised(
                path=f["path"],
                scheme=f["scheme"],
                observer=f["observer"],
                judged_on=f["judged_on"],
                ratio_to_fp32=f["ratio_to_fp32"],
                float_layers=tuple(f["float_layers"]),
                cost=f["cost"],
                layers=tuple(
                    Layer(row["layer"], row["flips"], row["kl"], row["flips_saved"], row["kl_saved"])
                    for row in f["layers"]
                ),
            )
            for f in document["files"]
        )

    return _understood(release, QUANTIZATION, command, read)


def _provenance(release: Release) -> list[tuple[str, str]]:
    """Return where the weights come from, as names and values."""
    entry = release.entry(CHECKPOINT)
    found = json.loads(release.read(entry)) if entry else {}
    rows = [("Architecture", found.get("architecture")), ("Parameters", f"{release.spec.parameters:,}")]
    if recipe := found.get("recipe"):
        rows.append(("Recipe", f"{recipe['name']}, seed {found['seed']}"))
    if data := found.get("data"):
        rows.append(("Training data", f"{data['name']}, {data['train']['n']:,} images"))
        rows.append(("Validation data", f"{data['validation']['n']:,} images, split {data['split']}"))
    if weights := found.get("weights"):
        rows.append(("Weights (sha256)", weights["sha256"]))
    return [(name, str(value)) for name, value in rows if value is not None]


def _missing(release: Release, path: str, why: str, command: str) -> Missing:
    stale = release.entry(path) is not None
    return Missing(f"{path} is about other ONNX files than this release holds now." if stale else why, command)


def _understood(release: Release, path: str, command: str, read: Callable[[], T]) -> T:
    """Return what `read` makes of a document.

    Raises:
        ReleaseError: it lacks something that this version writes.
    """
    try:
        return read()
    except (KeyError, TypeError, ValueError, IndexError) as err:
        raise ReleaseError(
            f"{release.path / path} is not the evidence that this version writes ({type(err).__name__}: {err}); run "
            f"`{command}` again"
        ) from err
