"""A Vega-Lite specification -> static SVG that takes its colours and type from the page around it.

Drawn while the report is made: no script, no network, light and dark and paper by CSS variables. What a mark stands for
is kept as `data-tip`; the whole is one image with a sentence as its text alternative.
"""

import hashlib
import html
import json
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # a name, never fetched
INK, MUTED, RULE, ACCENT = "var(--ink)", "var(--muted)", "var(--rule)", "var(--accent)"
BAD, OPEN = "var(--fail)", "var(--undecided)"
FONT = "sans-serif"
PADDING = {"left": 16, "right": 10, "top": 6, "bottom": 4}  # the page's type may be wider than the one measured with
PANEL = (164, 120)  # of small multiples, pixels

Spec = dict[str, Any]

CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "domainColor": RULE,
        "gridColor": RULE,
        "tickColor": RULE,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "tickSize": 4,
        "gridOpacity": 0.7,
        "aria": False,
    },
    "text": {"color": INK, "fontSize": 11},
    "rule": {"color": RULE},
    "line": {"strokeWidth": 1.75},
}

_MARK_LABEL = re.compile(r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"')
_OTHER_ROLES = re.compile(r' (?:role="graphics-[a-z]+"|aria-[a-z]+="[^"]*"|xmlns:xlink="[^"]*"|class="[^"]*")')
_IDS = re.compile(r'(id="|url\(#)([A-Za-z_]+\d*)')


def draw(spec: Spec, alt: str, kind: str = "") -> Markup:
    """Return a figure's SVG; `alt` says in words what it shows, `kind` is its CSS class.

    Values come in as data, and Vega escapes them; marks with an encoded `description` show it as their tip.
    """
    import vl_convert

    whole = {"$schema": SCHEMA, "config": CONFIG, "padding": PADDING} | spec
    svg = vl_convert.vegalite_to_svg(whole, allowed_base_urls=[])
    svg = _MARK_LABEL.sub(r' data-tip="\1"', svg)
    svg = _OTHER_ROLES.sub("", svg).replace(f' font-family="{FONT}"', "")
    # Vega numbers ids through a process; by the drawing they are unique in a page and the same every time.
    mine = hashlib.sha256(f"{alt}{kind}{json.dumps(spec)}".encode()).hexdigest()[:8]
    order = list(dict.fromkeys(match[1] for match in _IDS.findall(svg)))
    svg = _IDS.sub(lambda match: f"{match[1]}f{mine}-{order.index(match[2])}", svg)
    opening = f'<svg class="chart {kind}" role="img" aria-label="{html.escape(alt)}"'
    return Markup(svg.replace("<svg", opening, 1).replace(' version="1.1"', ""))  # noqa: S704  escaped by Vega and above


def axis(title: str | None = None, **changes: Any) -> Spec:
    """Return an axis without a frame."""
    return {"title": title, "domain": False, **changes}


def upright(title: str, **changes: Any) -> Spec:
    """Return a y axis whose title stands level above it."""
    place = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": -28, "titleY": -10}
    return axis(title, **place, **changes)


def names(field: str) -> Spec:
    """Return the encoding of rows by their names, in the order they come in."""
    return {"field": field, "type": "nominal", "sort": None, "axis": axis(ticks=False, labelColor=INK, labelPadding=8)}


def q(field: str, **more: Any) -> Spec:
    """Return the encoding of a number."""
    return {"field": field, "type": "quantitative", **more}


def line_at(channel: str, value: float, mark: Spec, **more: Any) -> Spec:
    """Return a layer with a line across at one value of `channel`, x or y."""
    return {
        "data": {"values": [{"at": value}]},
        "mark": {"type": "rule", "aria": False, **mark},
        "encoding": {channel: q("at", **more)},
    }


def panel(spec: Spec, alt: str) -> Markup:
    """Draw one of several small multiples."""
    width, height = PANEL
    return draw(
        {"width": width, "height": height, "padding": {"left": 2, "right": 8, "top": 4, "bottom": 2}} | spec,
        alt,
        "panel",
    )


def wide_and_narrow(make: Callable[[int, str], Markup]) -> Markup:
    """Draw for a desk and for a phone, given the width in pixels; the style sheet shows the one that fits."""
    return Markup("").join([make(560, "wide"), make(190, "narrow")])
