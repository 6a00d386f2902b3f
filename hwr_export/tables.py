"""Documents that commands print as JSON -> tables and sentences for people."""

from collections.abc import Iterable, Iterator
from typing import Any

from hwr_export.console import Struck
from hwr_export.runners import EAGER, VARIANTS

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
    not_run = _by_reason((plan["path"], plan["reason"]) for plan in document["not_run"])
    yield from (f"not run here: {paths}: {reason}" for reason, paths in not_run.items())


def _by_reason(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return (name, reason) pairs as reason -> the names it holds for: one cause is said once."""
    together: dict[str, list[str]] = {}
    for name, reason in found:
        together.setdefault(reason, []).append(name)
    return {reason: ", ".join(names) for reason, names in together.items()}


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
    columns = ("backend", "precision", "verdict", "error", "p50 us", "tail us", "bytes", "vs fp32", "front", "")
    rows = [
        (
            c["backend"],
            c["precision"],
            c["verdict"],
            "-" if c["error_percent"] is None else f"{c['error_percent']:.2f} %",
            f"{c['latency_us']:,.0f}",
            f"{c['tail_us']:,.0f}",
            f"{c['size_bytes']:,}",
            "-" if c["speedup"] is None else f"{c['speedup']:.2f}x",
            "yes" if c["on_front"] else "",
            c["why"],
        )
        for c in result["cells"]
    ]
    return columns, rows


def recommend_note(result: dict[str, Any]) -> str:
    best, limit = result["recommended"], result["max_latency_us"]
    if best:
        return f"Ship {best['path']} on {best['backend']}, batches of {result['batch']}."
    within = "" if limit is None else f" and answers within {limit:,.0f} us"
    return f"Nothing passed parity{within}: ship nothing."


def bench_table(result: dict[str, Any]) -> Table:
    """A row is struck through where the file did not pass parity; a percentile that n does not support is a dash."""
    columns = (
        *("backend", "precision", "parity", "batch", "threads", "n", "p50 us", "p90 us", "p99 us"),
        *("images/s", "vs eager"),
    )
    rows = []
    for c in result["cells"]:
        row = (
            *(c["backend"], c["precision"], _parity_of(c), c["batch"], c["threads"], c["n"]),
            *("-" if c[k] is None else f"{c[k]:,.0f}" for k in ("p50_us", "p90_us", "p99_us", "offline_images_per_s")),
            "-" if c["speedup_vs_eager"] is None else f"{c['speedup_vs_eager']:.1f}x",
        )
        rows.append(tuple(Struck(cell) for cell in row) if c["verdict"] in ("FAIL", "UNDECIDED") else row)
    return columns, rows


def bench_notes(result: dict[str, Any]) -> list[str]:
    """Return what a reader of the table must know: what is absent, what noise there was, and what was not judged."""
    absent = _by_reason((missing["backend"], missing["reason"]) for missing in result["absent"])
    notes = [f"not measured: {names}: {reason}" for reason, names in absent.items()]
    notes += noise_notes(result)
    if any(c["verdict"] is None and c["backend"] not in VARIANTS for c in result["cells"]):
        notes.append(f"Not every file was judged: run `hwr-export parity` on {result['release']['name']}.")
    return notes


def noise_notes(result: dict[str, Any]) -> list[str]:
    """Return what made the machine too noisy to believe, a sentence each."""
    return [
        f"noisy at batch {watch['batch']}, {watch['threads']} thread(s): {noise}; measure again"
        for watch in result["watches"]
        for noise in watch["noisy"]
    ]


def scaling_table(result: dict[str, Any]) -> Table:
    """A row a file, backend and thread count: what a call and an image cost, and what binds small and large batches."""
    columns = (
        *("backend", "precision", "threads", "us a call", "us an image", "smallest batch", "largest batch"),
        *("of peak", "of memory"),
    )
    rows = [
        (
            *(s["backend"], s["precision"], s["threads"], f"{s['overhead_us']:,.0f}", f"{s['us_per_image']:,.1f}"),
            *(f"{p['batch']}: {p['bound']}" for p in (s["points"][0], s["points"][-1])),
            *(f"{100 * s['points'][-1][k]:.0f} %" for k in ("fraction_of_peak", "fraction_of_bandwidth")),
        )
        for s in result["scaling"]
        if s["points"]
    ]
    return columns, rows


def layers_table(result: dict[str, Any]) -> Table:
    """A row a layer that takes time or wastes the hardware, of the int8 file where there is one."""
    model = next((m for m in result["models"] if m["precision"] == "int8"), result["models"][0])
    columns = (f"layer ({model['precision']})", "operator", "output", "kFLOP", "FLOP/byte", "of the time", "")
    rows = [
        (
            *(one["name"], one["operator"], " x ".join(map(str, one["output_shape"][1:])), f"{one['flop'] / 1e3:,.0f}"),
            *(f"{one['intensity']:.1f}", "-" if one["share"] is None else f"{100 * one['share']:.1f} %", one["waste"]),
        )
        for one in model["layers"]
        if one["share"] or one["waste"]
    ]
    return columns, rows


def compare_table(comparison: dict[str, Any]) -> Table:
    columns = ("backend", "precision", "batch", "threads", "against before", "new / old", "95 % interval")
    rows = [
        (
            *(c["backend"], c["precision"], c["batch"], c["threads"], c["answer"], f"{c['ratio']:.3f}"),
            f"{c['ratio_ci'][0]:.3f} to {c['ratio_ci'][1]:.3f}",
        )
        for c in comparison["cells"]
    ]
    return columns, rows


def _parity_of(cell: dict[str, Any]) -> str:
    return "baseline" if cell["backend"] == EAGER else "-" if cell["verdict"] is None else str(cell["verdict"])


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


def slots_table(document: dict[str, Any]) -> Table:
    columns = ("slot", "state", "release", "signed by", "runs", "installed", "failures", "problem")
    rows = []
    for slot in document["slots"]:
        record = slot["record"] or {}
        rows.append(
            (
                *(slot["slot"], slot["state"], slot["release"]),
                record.get("signer") or ("nobody" if record else ""),
                f"{record['file']} on {record['backend']}" if record else "",
                record.get("installed_at", ""),
                *(slot["failures"], slot["problem"]),
            )
        )
    return columns, rows


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
