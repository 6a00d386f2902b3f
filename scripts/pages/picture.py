"""The proof's document -> a picture: referred and wrong fields by how harsh a page is, by what was done to it, and the
drawings that were taken for another character."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from hwr_export.scanner.form.acceptance import BOUND
from scripts.pages.hand import Grey, Hands
from scripts.pages.judge import LAST_PX, MOST_PX

INK, COLOURS = "#1f2933", {"digits": "#2a6f97", "letters": "#c2410c"}
MOST_DRAWINGS = 16  # that are shown


def mistaken(document: dict[str, Any], hands: Hands) -> list[tuple[Grey, str]]:
    """Return what was taken for another character, uint8 (28, 28), and what of it was taken for what, how often."""
    pools = {pool.source: pool for pool in (hands.digits, hands.characters) if pool}
    return [
        (pools[each["source"]].images[each["number"]], f"{each['is']} as {each['read']}\n{each['times']} x")
        for each in document["drawings"]["mistaken"][:MOST_DRAWINGS]
    ]


def picture(document: dict[str, Any], drawings: Sequence[tuple[Grey, str]] = ()) -> bytes:
    """Return it as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 10.4), dpi=110, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(3, 6, height_ratios=(1, 1.15, 0.25))
    families = [name for name in COLOURS if name in document["families"]]
    _by_strength(figure.add_subplot(grid[0, :2]), document, families)
    _wrong(figure.add_subplot(grid[0, 2:4]), document, families)
    _curve(figure.add_subplot(grid[0, 4:]), document, families)
    _effects(figure.add_subplot(grid[1, :3]), document, families)
    _registration(figure.add_subplot(grid[1, 3:]), document)
    _drawings(figure, grid[2, :], document, drawings)
    figure.suptitle(
        f"{document['pages']:,} pages of the form {document['form']['id']!r}, handwriting of the "
        f"{document['handwriting']} part",
        color=INK,
        weight="bold",
    )
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _by_strength(axes: Any, document: dict[str, Any], families: list[str]) -> None:
    rows = document["by_strength"]
    x = np.arange(1, len(rows) + 1)
    for name in families:
        share = np.array([100 * (1 - (row[name]["accepted_share"] or 0)) for row in rows])
        low = np.array([100 * (1 - row[name]["accepted_ci95"][1]) for row in rows])
        high = np.array([100 * (1 - row[name]["accepted_ci95"][0]) for row in rows])
        axes.plot(x, share, "o-", color=COLOURS[name], label=name, linewidth=2, markersize=4)
        axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    refused = [100 * row["refused"] / max(1, row["pages"]) for row in rows]
    axes.plot(x, refused, "--", color=INK, linewidth=1, label="pages refused")
    axes.set_ylim(bottom=0)
    axes.set_xticks(x)
    axes.set_xlabel("tenth of the pages, from the gentlest to the harshest", color=INK)
    axes.set_ylabel("% of written fields", color=INK)
    _title(axes, "Left to a person")
    axes.legend(frameon=False, labelcolor=INK)


def _wrong(axes: Any, document: dict[str, Any], families: list[str]) -> None:
    rows = document["by_strength"]
    width = 0.8 / max(1, len(families))
    for k, name in enumerate(families):
        x = np.arange(1, len(rows) + 1) + (k - (len(families) - 1) / 2) * width
        wrong = [row[name]["wrong"] for row in rows]
        axes.bar(x, wrong, width, color=COLOURS[name], label=name)
    axes.set_xticks(np.arange(1, len(rows) + 1))
    axes.set_xlabel("tenth of the pages, from the gentlest to the harshest", color=INK)
    axes.set_ylabel("accepted fields that are wrong", color=INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    lines = []
    for name in families:
        own = document["families"][name]
        bound = f"{own['wrong']} of {own['accepted']:,} accepted, at most {100 * own['wrong_upper95']:.2g} %"
        lines.append(f"{name}: {bound if own['accepted'] else 'none is accepted'}")
    _title(axes, "Accepted and wrong\n" + "\n".join(lines))


def _effects(axes: Any, document: dict[str, Any], families: list[str]) -> None:
    kinds = document["by_distortion"]
    first = families[0] if families else None
    names = sorted(kinds, key=lambda kind: kinds[kind][first]["more_referred_pt"] if first else 0)
    height = 0.8 / max(1, len(families))
    for k, name in enumerate(families):
        y = np.arange(len(names)) + (k - (len(families) - 1) / 2) * height
        effect = [kinds[kind][name]["more_referred_pt"] for kind in names]
        error = [1.96 * kinds[kind][name]["standard_error_pt"] for kind in names]
        axes.barh(y, effect, height, xerr=error, color=COLOURS[name], error_kw={"elinewidth": 1, "ecolor": INK})
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), [f"{kind} ({kinds[kind]['pages']:,})" for kind in names], fontsize=8, color=INK)
    axes.set_xlabel("more fields referred at full strength, points (95 % interval)", color=INK)
    _title(axes, "What makes fields be referred, all else equal (pages)")


def _registration(axes: Any, document: dict[str, Any]) -> None:
    found = document["registration"]
    counts = found.get("histogram_px", [])
    edges = np.linspace(0, LAST_PX, len(counts) + 1)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS["digits"])
    axes.axvline(MOST_PX, color=INK, linewidth=1, linestyle="--")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("worst corner of any box from where it truly is, pixels at 300 dpi", color=INK)
    axes.set_ylabel("pages", color=INK)
    refused = document["refused"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in refused["reasons"].items()) or "none"
    worst = found.get("worst_px")
    _title(axes, f"Registration: worst {'-' if worst is None else f'{worst:.2f}'} px; refused: {reasons}")


def _curve(axes: Any, document: dict[str, Any], families: list[str]) -> None:
    for name in families:
        own, rows = document["families"][name], document["at_other_thresholds"][name]
        share = np.array([row["accepted_percent"] for row in rows])
        wrong = np.array([row["wrong"] for row in rows]) / np.maximum(1, share / 100 * own["fields"])
        axes.plot(share, 100 * wrong, color=COLOURS[name], linewidth=2, label=name)
        if own["accepted"]:
            at = 100 * own["accepted_share"], 100 * own["wrong_share"]
            axes.plot(*at, "o", color=COLOURS[name], label=f"{name}, as calibrated")
    axes.axhline(100 * BOUND, color=INK, linewidth=1, linestyle="--")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("% of written fields accepted", color=INK)
    axes.set_ylabel("% of them wrong", color=INK)
    _title(axes, "If the surest were accepted")
    axes.legend(frameon=False, labelcolor=INK)


def _drawings(figure: Any, place: Any, document: dict[str, Any], drawings: Sequence[tuple[Grey, str]]) -> None:
    axes = figure.add_subplot(place)
    axes.axis("off")
    for i, (image, text) in enumerate(drawings):
        axes.imshow(255 - image, cmap="gray", vmin=0, vmax=255, extent=(i, i + 0.9, 0, 0.9), aspect="equal")
        axes.text(i + 0.45, -0.08, text, ha="center", va="top", size=8, color=INK)
    axes.set_xlim(0, MOST_DRAWINGS)
    axes.set_ylim(-0.7, 1)
    different, count = document["drawings"]["different"], len(document["drawings"]["mistaken"])
    _title(axes, f"Accepted as another character: {count} of {different:,} drawings; what it is by its label")


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
