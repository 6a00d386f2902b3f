"""What files cost -> drawings: distributions of latency, Pareto front, scaling, and layers that lose most to int8."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from hwr_export.report.cost_facts import PASS, Latency
from hwr_export.report.facts import Layer
from hwr_export.report.vega import (
    ACCENT,
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

BINS = 64  # of a distribution
SAME_PLACE = 1.12  # ratio of latencies whose discs lie on one another
EXPONENTS = "datum.value == 0 ? '0' : format(datum.value, '.0e')"


def distribution(row: Latency, low: float, high: float) -> Markup:
    """How often a call took how long, on a logarithmic axis shared with the other rows; median and p99 as ticks."""
    assert row.samples is not None
    edges = np.geomspace(low, high, BINS + 1)
    counts, _ = np.histogram(row.samples, edges)
    middles = np.sqrt(edges[:-1] * edges[1:])
    inside = np.flatnonzero(counts)
    shown = slice(max(0, inside[0] - 1), inside[-1] + 2)
    values = [{"x": float(x), "n": int(n)} for x, n in zip(middles[shown], counts[shown], strict=True)]
    colour = MUTED if row.struck else ACCENT
    scale = {"type": "log", "domain": [low, high], "nice": False}
    layers: list[Spec] = [
        {
            "data": {"values": values},
            "mark": {"type": "area", "color": colour, "opacity": 0.45, "interpolate": "monotone", "aria": False},
            "encoding": {"x": q("x", scale=scale, axis=None), "y": q("n", axis=None)},
        }
    ]
    for us, style in ((row.p50_us, {"strokeWidth": 2}), (row.p99_us, {"strokeWidth": 1, "strokeDash": [2, 2]})):
        if us is not None:
            layers.append(line_at("x", us, {"color": colour, **style}, scale=scale, axis=None))
    alt = f"Distribution of {row.n:,} calls, from {row.samples.min():,.0f} to {row.samples.max():,.0f} µs"
    return draw({"width": 140, "height": 24, "padding": 1, "layer": layers}, alt, "spark")


def pareto(choices: Sequence[dict[str, Any]]) -> Markup:
    """Error by latency, files numbered as in the table; what nothing beats in error, latency and size is filled."""
    rows: list[Spec] = [
        {
            "n": i,
            "us": c["latency_us"],
            "error": c["error_percent"],
            "kib": c["size_bytes"] / 1024,
            "front": c["on_front"],
            "passed": c["verdict"] == PASS,
            "tip": f"{c['precision']} on {c['backend']}: {c['error_percent']:.2f} % wrong, {c['latency_us']:,.0f} µs, "
            f"{c['size_bytes']:,} bytes, {c['verdict']}",
        }
        for i, c in enumerate(choices, 1)
        if c["error_percent"] is not None
    ]
    if not rows:
        return Markup("")
    errors, times = [r["error"] for r in rows], [r["us"] for r in rows]
    room = max(0.02, 0.3 * (max(errors) - min(errors)))
    low, high = min(times) / 1.3, max(times) * 1.3
    x_axis = axis("median latency, µs", values=_round_values(low, high), format=",~r")
    x = q("us", scale={"type": "log", "domain": [low, high], "nice": False}, axis=x_axis)
    domain = {"domain": [max(0, min(errors) - room), max(errors) + room]}
    y = q("error", scale=domain, axis=upright("wrong, %", tickCount=4))
    colour = {"condition": {"test": "datum.passed", "value": ACCENT}, "value": MUTED}
    points: Spec = {
        "mark": {"type": "point", "opacity": 1, "strokeWidth": 1.5},
        "encoding": {
            "size": q("kib", scale={"rangeMin": 50, "rangeMax": 240, "zero": False}, legend=None),
            "stroke": colour,
            "fill": {"condition": {"test": "datum.front", "value": ACCENT}, "value": "var(--paper)"},
            "description": {"field": "tip"},
        },
    }
    numbers: Spec = {
        "data": {"values": _labels(rows)},
        "mark": {"type": "text", "fontWeight": 600, "dy": -16, "aria": False},
        "encoding": {"text": {"field": "text"}},
    }
    alt = "Error and latency. " + "; ".join(r["tip"] + (", on the front" if r["front"] else "") for r in rows)
    # The largest first, so that a smaller disc lies on it.
    data = {"values": sorted(rows, key=lambda r: -r["kib"])}
    return panel(
        {"height": 150, "width": 250, "data": data, "encoding": {"x": x, "y": y}, "layer": [points, numbers]}, alt
    )


def _labels(rows: Sequence[Spec]) -> list[Spec]:
    """Return one label for discs that lie on one another, of all their numbers."""
    labels: list[Spec] = []
    for row in sorted(rows, key=lambda r: (r["error"], r["us"])):
        last = labels[-1] if labels else None
        if last and last["error"] == row["error"] and row["us"] < SAME_PLACE * last["us"]:
            last["numbers"] = sorted([*last["numbers"], row["n"]])
        else:
            labels.append({"us": row["us"], "error": row["error"], "numbers": [row["n"]]})
    return [label | {"text": ", ".join(map(str, label["numbers"]))} for label in labels]


def _round_values(low: float, high: float, steps: Sequence[int] = (1, 2, 5)) -> list[float]:
    """Return the round numbers of a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]


def scaling(rows: Sequence[Latency], eager: Sequence[Latency], whose: str) -> Markup:
    """Images a second by batch, a line a thread count; the eager model's in grey."""

    def values(cells: Sequence[Latency]) -> list[Spec]:
        return [
            {
                "b": c.batch,
                "ips": c.images_per_s,
                "t": c.threads,
                "tip": f"batch {c.batch}, threads {c.threads}: {c.images_per_s:,.0f} images/s",
            }
            for c in cells
        ]

    batches = sorted({c.batch for c in rows})
    speeds = [c.images_per_s for c in (*rows, *eager)]
    rates = (min(speeds) / 10, max(speeds) * 10)
    x = q("b", scale={"type": "log", "base": 2}, axis=axis("batch", values=batches, grid=False, format="d"))
    y = q("ips", scale={"type": "log"}, axis=upright("images/s", values=_round_values(*rates, (1,)), format="~s"))
    line = {"type": "line", "point": {"filled": True, "size": 26, "opacity": 1, "color": ACCENT}}
    dash = {"field": "t", "type": "nominal", "sort": "ascending", "legend": None}
    tipped = {"strokeDash": dash, "detail": {"field": "t"}, "description": {"field": "tip"}}
    grey = line | {"color": MUTED, "opacity": 0.7, "point": False, "aria": False}
    layers: list[Spec] = [
        {"data": {"values": values(eager)}, "mark": grey, "encoding": {"strokeDash": dash, "detail": {"field": "t"}}},
        {"data": {"values": values(rows)}, "mark": line | {"color": ACCENT}, "encoding": tipped},
    ]
    alt = f"Throughput of {whose}: " + "; ".join(v["tip"] for v in values(rows))
    return panel({"encoding": {"x": x, "y": y}, "layer": layers}, alt)


def sensitivity(layers: Sequence[Layer], whose: str) -> Markup:
    """What leaving one layer in float saves, a bar a layer, as divergence from the float model."""
    rows: list[Spec] = [
        {
            "layer": layer.name,
            "kl": layer.kl_saved,
            "tip": f"{layer.name}: saves {layer.flips_saved} flips and {layer.kl_saved:.2e} nats",
        }
        for layer in layers
    ]
    spec: Spec = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 10, "cornerRadius": 1},
        "encoding": {
            "y": names("layer"),
            "x": q("kl", axis=axis("divergence saved, nats", tickCount=3, labelExpr=EXPONENTS)),
            "color": {"condition": {"test": "datum.kl >= 0", "value": ACCENT}, "value": MUTED},
            "description": {"field": "tip"},
        },
    }
    alt = f"Sensitivity of {whose}, layer by layer. " + "; ".join(r["tip"] for r in rows[:5])
    return wide_and_narrow(lambda width, kind: draw({"width": width - 60, "height": {"step": 20}} | spec, alt, kind))


def shared_domain(rows: Sequence[Latency]) -> tuple[float, float] | None:
    """Return the range of microseconds that all rows' samples lie in, with a little room; None where none are kept."""
    kept = [r.samples for r in rows if r.samples is not None]
    if not kept:
        return None
    low, high = min(float(s.min()) for s in kept), max(float(s.max()) for s in kept)
    return low / 1.05, math.nextafter(high * 1.05, math.inf)
