"""Facts -> one HTML file that needs nothing else: no network, no script to be read, whatever the names in it are.

Everything that comes from files is escaped; the policy in the page's head refuses whatever is not in the page itself.
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hwr_export.report import answer_charts, cost_charts, work_charts
from hwr_export.report.cost_facts import FAIL, PASS, UNDECIDED, UNKNOWN, Bench, Latency, Profile, Setting
from hwr_export.report.facts import Facts, Missing, Parity

TEMPLATES = "templates"
SENTENCES = {
    PASS: "Every file may replace the eager model, on every backend it was tried on.",
    FAIL: "Not every file may replace the eager model.",
    UNDECIDED: "The images at hand cannot tell whether every file may replace the eager model.",
    UNKNOWN: "Nothing was compared with the eager model yet.",
}


@dataclass(frozen=True)
class KeyFigure:
    """One of the few numbers under the verdict."""

    name: str
    value: str
    note: str


def render(facts: Facts) -> bytes:
    """Return the page."""
    style, script = _asset("style.css"), _asset("report.js")
    environment = Environment(
        loader=PackageLoader("hwr_export.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
    )
    shown = {"percent": percent, "signed": signed, "whole": whole, "plain": plain}
    environment.filters |= shown | {"interval": interval}
    environment.globals |= shown
    page = environment.get_template("report.html.j2").render(
        facts=facts,
        parity=facts.parity if isinstance(facts.parity, Parity) else None,
        bench=facts.bench if isinstance(facts.bench, Bench) else None,
        profile=facts.profile if isinstance(facts.profile, Profile) else None,
        quantised=None if isinstance(facts.quantised, Missing) else facts.quantised,
        headline=headline(facts),
        figures=list(key_figures(facts)),
        answers=answer_charts,
        costs=cost_charts,
        work=work_charts,
        scaled=_scaled(facts),
        style=Markup(style),  # noqa: S704  our own files, as shipped
        script=Markup(script),  # noqa: S704
        policy=(
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )
    return (page.strip() + "\n").encode()


def headline(facts: Facts) -> str:
    """Return the verdict as a sentence."""
    if broken := facts.broken:
        names = ", ".join(f"{f.path} ({f.problem})" for f in broken)
        return f"The release is not what its manifest vouches for: {names}."
    sentence = SENTENCES[facts.verdict]
    if facts.verdict in (FAIL, UNDECIDED) and isinstance(facts.parity, Parity):
        cells = facts.parity.cells
        by_verdict = {word: [c.name for c in cells if c.verdict == word] for word in (FAIL, UNDECIDED)}
        named = (f"{word}: {', '.join(names)}." for word, names in by_verdict.items() if names)
        passed = sum(c.verdict == PASS for c in cells)
        sentence = " ".join([sentence, *named, f"{passed} of {len(cells)} pass."])
    return sentence


def key_figures(facts: Facts) -> Iterable[KeyFigure]:
    """Yield the numbers that a reader wants first, as far as there is evidence for them."""
    if isinstance(facts.parity, Parity):
        parity = facts.parity
        if parity.eager:
            yield KeyFigure(
                "Accuracy before export",
                percent(parity.eager.accuracy),
                f"95 %: {interval(parity.eager.accuracy_ci95, percent)}, {parity.n:,} images of {parity.data}",
            )
        if ran := [c for c in parity.cells if c.n]:
            least = min(ran, key=lambda c: c.agreement / c.n)
            yield KeyFigure("Answers kept, at least", f"{least.agreement:,} of {least.n:,}", least.name)
        lost = [c for c in ran if c.delta_ci_pt]
        if lost:
            worst = min(lost, key=lambda c: (c.delta_ci_pt or (0,))[0])
            low = (worst.delta_ci_pt or (0.0,))[0]
            note = f"points, by the 95 % bound of {worst.name}; the margin is {parity.margin_pt:g}"
            yield KeyFigure("Accuracy lost, at most", f"{max(0.0, -low):.3f}", note)
    if isinstance(facts.bench, Bench):
        setting = facts.bench.settings[0]
        if best := _recommended(setting):
            times = "" if best.speedup is None else f"; {best.speedup:.1f} times as fast as the eager model"
            threads = f"{best.threads} thread{'s' if best.threads > 1 else ''}"
            note = f"{best.name}, batch {best.batch}, {threads}{times}"
            yield KeyFigure("Fastest that passed", f"{best.p50_us:,.0f} µs", note)


def _recommended(setting: Setting) -> Latency | None:
    best = setting.recommended
    key = best and (best["backend"], best["precision"])
    return next((r for r in setting.rows if (r.backend, r.precision) == key), None)


def _scaled(facts: Facts) -> dict[str, list[Latency]]:
    """Return the latencies of each file on a backend that was measured at more than one batch or thread count."""
    found: dict[str, list[Latency]] = {}
    if isinstance(facts.bench, Bench):
        for row in (row for setting in facts.bench.settings for row in setting.rows):
            found.setdefault(row.name, []).append(row)
    return {name: rows for name, rows in found.items() if len(rows) > 1}


def percent(fraction: float | None, digits: int = 2) -> str:
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def signed(points: float | None, digits: int = 3) -> str:
    return "–" if points is None else f"{points:+.{digits}f}".replace("-", "−")


def whole(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def plain(number: float | None, digits: int = 1) -> str:
    return "–" if number is None else f"{number:,.{digits}f}"


def interval(bounds: tuple[float, float] | None, shown: Callable[[float], str] = whole) -> str:
    """Return both bounds, a unit once."""
    return "–" if bounds is None else f"{shown(bounds[0]).removesuffix(' %')} to {shown(bounds[1])}"


def _asset(name: str) -> str:
    return (importlib.resources.files("hwr_export.report") / TEMPLATES / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
