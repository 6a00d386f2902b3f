"""Where time goes -> drawings: shares of a call under the machine's roofs, by layer, by phase, and of a start.

Parts of a whole are shades of one accent, in the order in which they come; every shade is named in a table beside it.
"""

from collections.abc import Sequence

from markupsafe import Markup

from hwr_export.report.cost_facts import Graph, Latency, Scaled, Start
from hwr_export.report.vega import (
    ACCENT,
    INK,
    MUTED,
    Spec,
    axis,
    draw,
    line_at,
    names,
    panel,
    q,
    upright,
    wide_and_narrow,
)

HALF = 0.5  # what takes half of the time, or reaches half of a roof, binds
PHASES = {"copy_in": 0.35, "preprocess": 0.65, "compute": 1.0, "copy_out": 0.35}  # part of a call -> shade
PARTS = {"import_s": ("imports", 1.0), "load_s": ("load", 0.35), "first_answer_s": ("first answer", 0.65)}


def roofs(found: Scaled) -> Markup:
    """By batch: fraction of the arithmetic peak (line), of the bandwidth (grey), and the fixed share (dashed)."""
    rows: list[Spec] = [
        {
            "b": p.batch,
            "peak": p.of_peak,
            "memory": p.of_bandwidth,
            "fixed": p.fixed,
            "tip": f"batch {p.batch}: {p.of_peak:.0%} of the peak, {p.of_bandwidth:.0%} of the bandwidth, "
            f"{p.fixed:.0%} of the time fixed; {p.bound}",
        }
        for p in found.points
    ]
    highest = max([1.0, *(r[key] for r in rows for key in ("peak", "memory"))])
    scale = {"domain": [0, highest]}
    x = q(
        "b", scale={"type": "log", "base": 2}, axis=axis("batch", values=[r["b"] for r in rows], format="d", grid=False)
    )
    styles: dict[str, Spec] = {
        "fixed": {"color": INK, "strokeDash": [3, 3], "strokeWidth": 1.25},
        "memory": {"color": MUTED, "strokeWidth": 2.5, "opacity": 0.55},
        "peak": {"color": ACCENT, "point": {"filled": True, "size": 26, "opacity": 1, "color": ACCENT}},
    }
    layers: list[Spec] = [line_at("y", HALF, {"color": MUTED, "strokeDash": [1, 3]}, scale=scale)]
    for key, style in styles.items():
        encoding: Spec = {"y": q(key, scale=scale, axis=upright("share", values=[0, HALF, 1], format="%"))}
        if key == "peak":
            encoding["description"] = {"field": "tip"}
        layers.append({"mark": {"type": "line", "aria": key == "peak", **style}, "encoding": encoding})
    alt = f"What binds {found.name}, threads {found.threads}: " + "; ".join(r["tip"] for r in rows)
    return panel({"data": {"values": rows}, "encoding": {"x": x}, "layer": layers}, alt)


def layers(graph: Graph) -> Markup:
    """Each layer's share of the time, a bar a layer in the graph's order; in grey what wastes the vector unit."""
    rows: list[Spec] = [
        {
            "layer": n.name,
            "share": n.share,
            "wasted": bool(n.waste),
            "tip": f"{n.name}, {n.operator}: {n.share:.1%} of the time, {n.flop:,} FLOP"
            + (f"; {n.waste}" if n.waste else ""),
        }
        for n in graph.timed
    ]
    spec: Spec = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 10, "cornerRadius": 1},
        "encoding": {
            "y": names("layer"),
            "x": q("share", axis=axis("share of the time", tickCount=4, format="%")),
            "color": {"condition": {"test": "datum.wasted", "value": MUTED}, "value": ACCENT},
            "description": {"field": "tip"},
        },
    }
    alt = f"Time of the {graph.precision} file by layer. " + "; ".join(r["tip"] for r in rows)
    return wide_and_narrow(lambda width, kind: draw({"width": width - 60, "height": {"step": 20}} | spec, alt, kind))


def phases(row: Latency) -> Markup:
    """The parts of a call as shares of it, in order."""
    whole = sum(row.phases_us.values()) or 1.0
    rows: list[Spec] = []
    at = 0.0
    for name, shade in PHASES.items():
        if name in row.phases_us:
            us = row.phases_us[name]
            tip = f"{name.replace('_', ' ')}: {us:,.1f} µs, {us / whole:.1%}"
            rows.append({"from": at, "to": at + us / whole, "shade": shade, "tip": tip})
            at += us / whole
    spec = _stacked(rows, scale={"domain": [0, 1], "nice": False}, axis=None) | {
        "width": 140,
        "height": 14,
        "padding": 1,
    }
    return draw(spec, "Parts of a call: " + "; ".join(r["tip"] for r in rows), "spark")


def starts(found: Sequence[Start]) -> Markup:
    """What a start takes, a bar a file and backend: imports, load, first answer."""
    rows: list[Spec] = []
    for one in found:
        at = 0.0
        for key, (name, shade) in PARTS.items():
            seconds = getattr(one, key)
            tip = f"{one.name}: {name} {seconds:.3f} s"
            rows.append({"name": one.name, "from": at, "to": at + seconds, "shade": shade, "tip": tip})
            at += seconds
    alt = "Seconds of a start. " + "; ".join(r["tip"] for r in rows)
    spec = _stacked(rows, axis=axis("seconds", tickCount=4), scale={"domainMin": 0})
    spec["encoding"]["y"] = names("name")
    return wide_and_narrow(lambda width, kind: draw({"width": width - 60, "height": {"step": 20}} | spec, alt, kind))


def _stacked(rows: list[Spec], **x: object) -> Spec:
    """Return bars from `from` to `to` in shades."""
    return {
        "data": {"values": rows},
        "mark": {"type": "bar", "color": ACCENT, "height": 10},
        "encoding": {
            "x": q("from", **x),
            "x2": {"field": "to"},
            "opacity": q("shade", scale=None, legend=None),
            "description": {"field": "tip"},
        },
    }
