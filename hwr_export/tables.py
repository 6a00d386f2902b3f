"""Documents that commands print as JSON -> tables and sentences for people."""

from collections.abc import Iterator
from typing import Any

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
DIRECTIONS = ("right_to_wrong", "wrong_to_right", "wrong_to_wrong")


def parity_table(document: dict[str, Any]) -> Table:
    """Return the columns and one row a cell."""
    columns = (
        "backend",
        "precision",
        "verdict",
        "agreement",
        "accuracy",
        "change, points (95 %)",
        "flips -/+/x",
        "corrupted",
        "max diff",
        "tolerance",
    )
    return columns, [_row(cell) for cell in document["cells"]]


def parity_notes(document: dict[str, Any]) -> Iterator[str]:
    """Yield why each cell is what it is, which stage is at fault, and where the two sides part."""
    for cell in document["cells"]:
        name = f"{cell['backend']} {cell['precision']}"
        yield from (f"{name}: {reason}" for reason in cell["reasons"])
        if cell["stage_reason"]:
            fault = f" ({cell['fault']})" if cell["fault"] else ""
            yield f"{name}: stage at fault: {cell['stage'] or 'unknown'}{fault}: {cell['stage_reason']}"
        if "bisect" in cell:
            yield f"{name}: {_parting(cell['bisect'])}"
    yield from (f"{plan['path']}: not run here: {plan['reason']}" for plan in document["not_run"])


def read_table(result: dict[str, Any]) -> Table:
    rows = [
        (
            r["image"],
            "(blank)" if r["label"] is None else r["label"],
            f"{r['confidence']:.4f}",
            "rejected" if r["rejected"] else "",
        )
        for r in result["results"]
    ]
    return ("image", "label", "confidence", ""), rows


def recommend_table(result: dict[str, Any]) -> Table:
    columns = ("backend", "precision", "verdict", "error", "p50 us", "bytes", "vs fp32", "front", "")
    rows = [
        (
            c["backend"],
            c["precision"],
            c["verdict"],
            "-" if c["error_percent"] is None else f"{c['error_percent']:.2f} %",
            f"{c['latency_us']:,.0f}",
            f"{c['size_bytes']:,}",
            "-" if c["speedup"] is None else f"{c['speedup']:.2f}x",
            "yes" if c["on_front"] else "",
            c["why"],
        )
        for c in result["cells"]
    ]
    return columns, rows


def bench_table(result: dict[str, Any]) -> Table:
    columns = ("backend", "precision", "batch", "threads", "n", "p50 us", "p90 us", "p99 us", "images/s", "vs eager")
    rows = [
        (
            c["backend"],
            c["precision"],
            c["batch"],
            c["threads"],
            c["n"],
            *(f"{c[k]:,.0f}" for k in ("p50_us", "p90_us", "p99_us", "images_per_s")),
            "-" if c["speedup_vs_eager"] is None else f"{c['speedup_vs_eager']:.1f}x",
        )
        for c in result["cells"]
    ]
    return columns, rows


def targets_table(document: dict[str, Any]) -> Table:
    columns = ("target", "capability", "device", "product", "precisions", "vendor's peak", "versions")
    rows = [
        (
            t["name"],
            t["compute_capability"],
            t["device"],
            t["product"],
            ", ".join(t["precisions"]),
            t["peak"],
            t["versions"],
        )
        for t in document["targets"]
    ]
    return columns, rows


def targets_notes(document: dict[str, Any]) -> Iterator[str]:
    """Yield who builds where, and where each row is from."""
    for key, what in (("built", "Built"), ("source", "Source:")):
        for value in dict.fromkeys(t[key] for t in document["targets"]):
            yield f"{what} {value}: {', '.join(t['name'] for t in document['targets'] if t[key] == value)}."


def preflight_table(document: dict[str, Any]) -> Table:
    columns = ("file", "target", "product", "status", "")
    return columns, [
        (
            f["path"],
            f["target"],
            f["product"],
            f["status"],
            "; ".join(": ".join(filter(None, (x["node"], x["sentence"]))) for x in f["findings"]),
        )
        for f in document["files"]
    ]


def doctor_tables(result: dict[str, Any]) -> Iterator[Table]:
    yield ("backend", "status", ""), [(b["backend"], b["status"], b["detail"] or b["fix"]) for b in result["backends"]]
    packages = [(p["package"], p["version"] or "not installed", p["extra"] or "base") for p in result["packages"]]
    yield ("package", "version", "extra"), packages
    yield ("device", ""), [(k, v if v not in (None, []) else "none") for k, v in result["device"].items()]


def doctor_notes(result: dict[str, Any]) -> Iterator[str]:
    yield from (f"Problem: {problem}" for problem in result["problems"])


def engines_table(result: dict[str, Any]) -> Table:
    columns = ("engine", "version", "bytes", "build s", "status")
    rows = [
        (e["path"], e["product_version"], f"{e['size_bytes']:,}", f"{e['build_s']:.1f}", _status(e))
        for e in result["engines"]
    ]
    return columns, rows


def _status(engine: dict[str, Any]) -> str:
    """Return what was done with a plan, and the verdict on one that was executed."""
    return f"{engine['parity']['verdict']}, {engine['result']}" if "result" in engine else str(engine["status"])


def inspection_table(document: dict[str, Any]) -> Table:
    return ("layer", "reads"), [(layer["name"], layer["input_type"]) for layer in document["layers"]]


def inspection_notes(document: dict[str, Any]) -> Iterator[str]:
    """Yield what the plan is, how that was found, and where its sidecar tells of another."""
    targets = f" for {', '.join(document['targets'])}" if document["targets"] else ""
    yield f"{document['product']} {document['product_version']}{targets}, {document['size_bytes']:,} bytes: whole."
    source = document["source_onnx_sha256"]
    yield f"Built from the ONNX file {source}." if source else "It carries no hash of the ONNX file it was built from."
    yield f"Layers are read by {document['read_by']}."
    if document["sidecar"] and not document["problems"]:
        yield "Its sidecar agrees."
    yield from (f"Problem: {problem}." for problem in document["problems"])


def _row(cell: dict[str, Any]) -> tuple[str, ...]:
    flips, change, corruptions = cell["flips"], cell["accuracy_delta_pt"], cell["corruptions"]
    return (
        cell["backend"],
        cell["precision"],
        cell["verdict"],
        f"{cell['agreement']}/{cell['n']}",
        "-" if cell["accuracy"] is None else f"{100 * cell['accuracy']:.2f} %",
        "-" if change is None else f"{change:+.3f} ({cell['delta_ci_pt'][0]:+.3f} to {cell['delta_ci_pt'][1]:+.3f})",
        "-" if flips is None else "/".join(str(flips[k]) for k in DIRECTIONS),
        "-" if corruptions is None else f"{corruptions['delta_pt']:+.3f} {corruptions['verdict']}",
        _small(cell["max_abs_logit_diff"]),
        _small(cell["tolerance"]),
    )


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _parting(bisection: dict[str, Any]) -> str:
    if "problem" in bisection:
        return f"no first layer was found: {bisection['problem']}"
    first = bisection["first"]
    size = "beyond all measure" if first["difference"] is None else f"by {100 * first['difference']:.2g} %"
    if bisection["parted"]:
        return f"{bisection['sides']} part first at {first['layer']} ({first['operator']}), {size}"
    return f"{bisection['sides']} nowhere part; {first['layer']} ({first['operator']}) adds most, {size} there"
