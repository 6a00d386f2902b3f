"""What models answered -> drawings: accuracy against the margin, confusion, reliability, risk and coverage.

Names are positions on an axis or captions around a drawing, so one accent colour is enough.
"""

from collections.abc import Sequence

from markupsafe import Markup

from hwr_export.report.cost_facts import PASS, UNDECIDED
from hwr_export.report.facts import Answers, Judged
from hwr_export.report.vega import (
    ACCENT,
    BAD,
    INK,
    MUTED,
    OPEN,
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
from hwr_export.statistics import wilson_interval

COUNTED_CLASSES = 16  # up to here a confusion shows its counts, and every class has its tick
SHOWN_COVERAGE = 0.9  # of the risk-coverage curve: who rejects more has no recogniser


def accuracy_changes(cells: Sequence[Judged], margin_pt: float) -> Markup:
    """Every file's change of accuracy with its interval, and the margin that it may lose."""
    rows: list[Spec] = [
        {
            "name": c.name,
            "x": c.delta_pt,
            "low": c.delta_ci_pt[0],
            "high": c.delta_ci_pt[1],
            "verdict": c.verdict,
            "tip": f"{c.name}: {c.delta_pt:+.3f} points ({c.delta_ci_pt[0]:+.3f} to {c.delta_ci_pt[1]:+.3f})",
        }
        for c in cells
        if c.delta_pt is not None and c.delta_ci_pt
    ]
    colour: Spec = {
        "condition": [
            {"test": f"datum.verdict == '{word}'", "value": value}
            for word, value in ((PASS, ACCENT), (UNDECIDED, OPEN))
        ],
        "value": BAD,
    }
    y = names("name")
    lowest = min([-1.2 * margin_pt, *(r["low"] for r in rows)])
    x = {"scale": {"domain": [lowest, max([0.0, *(r["high"] for r in rows)])]}}
    title = "change of accuracy, points"
    layers: list[Spec] = [
        line_at("x", -margin_pt, {"color": BAD, "strokeDash": [4, 3]}),
        line_at("x", 0.0, {"color": MUTED}),
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"x": q("low", axis=axis(title, tickCount=5), **x), "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": q("x"), "color": colour},
        },
    ]
    for layer in layers[2:]:
        layer["encoding"] |= {"y": y, "description": {"field": "tip"}}
    alt = f"Change of accuracy in points, margin {margin_pt:g}. " + ". ".join(r["tip"] for r in rows)
    return wide_and_narrow(
        lambda width, kind: draw(
            {"width": width, "height": {"step": 26}, "data": {"values": rows}, "layer": layers}, alt, kind
        )
    )


def confusion(answers: Answers, labels: str, whose: str) -> Markup:
    """Images of each class (down) by what they were read as (across); what is right is on the diagonal, in grey."""
    rows: list[Spec] = [
        {
            "true": labels[t],
            "answer": labels[a],
            "n": n,
            "right": t == a,
            "tip": f"{labels[t]} read as {labels[a]}: {n:,}",
        }
        for t, a, n in answers.confusion
    ]
    few = len(labels) <= COUNTED_CLASSES
    most = max([1, *(r["n"] for r in rows if not r["right"])])
    ticks = axis(ticks=False, labelAngle=0, labelColor=INK, labelOverlap=not few)
    encoding: Spec = {
        "x": {
            "field": "answer",
            "type": "nominal",
            "scale": {"domain": list(labels)},
            "axis": {**ticks, "title": None},
        },
        "y": {"field": "true", "type": "nominal", "scale": {"domain": list(labels)}, "axis": {**ticks, "title": None}},
    }
    encoding["x"]["axis"] |= {"orient": "top"}
    shade = {"condition": {"test": "datum.right", "value": 0.16}, **q("n", legend=None)}
    shade["scale"] = {"domain": [1, most], "range": [0.18, 0.5] if few else [0.35, 1], "clamp": True}
    layers: list[Spec] = [
        {
            "mark": {"type": "rect", "cornerRadius": 2, "stroke": None},
            "encoding": {
                "fillOpacity": shade,
                "fill": {"condition": {"test": "datum.right", "value": MUTED}, "value": ACCENT},
                "description": {"field": "tip"},
            },
        }
    ]
    if few:
        mark = {"type": "text", "fontSize": 10, "aria": False}
        layers.append({"mark": mark, "encoding": {"text": q("n", format=",")}})
    worst = ", ".join(f"{labels[t]} as {labels[a]} {n} times" for t, a, n in answers.errors[:5]) or "none"
    alt = f"Confusion of {whose}: {answers.n - answers.right} of {answers.n:,} images are wrong; most often {worst}."
    size = {"step": 26} if few else {"step": 9}
    spec = {
        "width": size,
        "height": size,
        "data": {"values": rows},
        "encoding": encoding,
        "layer": layers,
        "padding": 4,
    }
    return draw(spec, alt, "confusion")


def reliability(found: Answers, eager: Answers | None, whose: str) -> Markup:
    """Accuracy of the answers by how sure they are, with 95 % intervals; the eager model's in grey."""
    rows: list[Spec] = [
        {
            "c": c,
            "a": a,
            "low": low,
            "high": high,
            "tip": f"confidence {c:.3f}: {a:.1%} of {n:,} right ({low:.1%} to {high:.1%})",
        }
        for c, a, n in found.reliability
        for low, high in [wilson_interval(round(a * n), n)]
    ]
    scale = {"domain": [0, 1]}
    x = q("c", scale=scale, axis=axis("confidence", format="%", tickCount=3, grid=False))
    y = q("a", scale=scale, axis=upright("right", format="%", tickCount=3))
    layers: list[Spec] = [
        {
            "data": {"values": [{"c": 0, "a": 0}, {"c": 1, "a": 1}]},
            "mark": {"type": "line", "color": MUTED, "strokeDash": [3, 3], "strokeWidth": 1, "aria": False},
        },
        {
            "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 1.5, "opacity": 0.5, "aria": False},
            "encoding": {"y": q("low", scale=scale), "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "color": ACCENT, "size": 34, "opacity": 1},
            "encoding": {"description": {"field": "tip"}},
        },
    ]
    if eager is not None:
        values = [{"c": c, "a": a} for c, a, _ in eager.reliability]
        mark = {
            "type": "point",
            "filled": False,
            "color": MUTED,
            "size": 62,
            "strokeWidth": 1,
            "opacity": 0.9,
            "aria": False,
        }
        layers.insert(1, {"data": {"values": values}, "mark": mark})
    alt = f"Reliability of {whose}: " + "; ".join(r["tip"] for r in rows[-5:])
    return panel({"data": {"values": rows}, "encoding": {"x": x, "y": y}, "layer": layers}, alt)


def risk_coverage(found: Answers, eager: Answers | None, whose: str) -> Markup:
    """Error among the answers accepted, by what fraction is accepted; the eager model's in grey."""

    def points(answers: Answers) -> list[Spec]:
        return [{"c": c, "r": r} for c, r in answers.risk_coverage if c >= SHOWN_COVERAGE]

    x = q("c", scale={"domain": [SHOWN_COVERAGE, 1], "clamp": True}, axis=axis("accepted", format=".0%", tickCount=3))
    y = q("r", axis=upright("wrong among them", format=".2%", tickCount=3))
    line = {"type": "line", "interpolate": "step-after", "color": ACCENT, "aria": False}
    layers: list[Spec] = [{"data": {"values": points(found)}, "mark": line}]
    if eager is not None:
        layers.insert(
            0, {"data": {"values": points(eager)}, "mark": line | {"color": MUTED, "strokeWidth": 3.5, "opacity": 0.45}}
        )
    at = [(c, r) for c, r in found.risk_coverage if c >= SHOWN_COVERAGE]
    marks = [min(at, key=lambda p: abs(p[0] - wanted)) for wanted in (1.0, 0.99, 0.97)]
    alt = f"Risk and coverage of {whose}: " + "; ".join(f"with {c:.1%} accepted {r:.3%} are wrong" for c, r in marks)
    return panel({"encoding": {"x": x, "y": y}, "layer": layers}, alt)
