"""A release -> the facts of its report, from its own evidence alone: no dataset, no backend, no torch."""

import json
import shlex
from typing import Any

from hwr_export.evidence import evidence
from hwr_export.release import CHECKPOINT, MODEL_CARD, PARITY, QUANTIZATION, REPORT, Release
from hwr_export.report.collect_costs import bench_of, profile_of
from hwr_export.report.documents import absent, understood
from hwr_export.report.facts import (
    Answers,
    Facts,
    File,
    Flip,
    Judged,
    Layer,
    Missing,
    Parity,
    Quantised,
    Reading,
)

COMMANDS = ("parity", "bench", "profile", "quantize")


def collect(release: Release) -> Facts:
    """Read everything that a report tells.

    Raises:
        ReleaseError: evidence is there and is not what the manifest vouches for, or is no such document.
    """
    commands = {name: f"hwr-export {name} {shlex.quote(str(release.path))}" for name in COMMANDS}
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
        bench=bench_of(release, commands["bench"], judged=isinstance(parity, Parity)),
        profile=profile_of(release, commands["profile"]),
        quantised=_quantised(release, commands["quantize"]),
        commands=commands,
    )


def _parity(release: Release, command: str) -> Parity | Missing:
    document = evidence(release, PARITY)
    if document is None:
        return absent(release, PARITY, "The files were not compared with the eager model yet.", command)

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

    return understood(release, PARITY, command, read)


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

    return understood(release, QUANTIZATION, command, read)


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
