"""Numbers of an evaluation or of a run -> PNG pictures, as bytes. Matplotlib's object interface only."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION, RISK_COVERAGE, CURVES = "confusion.png", "risk-coverage.png", "curves.png"
DPI = 100
FULL_BIN = 20  # images from which a bin of the reliability diagram says something
WRITTEN = 16  # classes up to which every count is written into its cell
BLUE, ORANGE, GREY = "#1f5fa8", "#d9680f", "#888888"


def confusion_png(evaluation: dict[str, Any]) -> bytes:
    """Draw what is taken for what: mistakes coloured by their share of the true class, on a logarithmic scale."""
    from matplotlib.colors import LogNorm

    counts = np.asarray(evaluation["confusion"], dtype=np.int64)
    labels = list(evaluation["labels"])
    few = len(labels) <= WRITTEN
    side = 2.6 + (0.62 if few else 0.235) * len(labels)
    figure = _figure(side * 1.1, side)
    axes = figure.add_subplot()
    share = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    mistakes = np.ma.masked_where((counts == 0) | np.eye(len(labels), dtype=bool), share)
    # One scale for every model: from one image in ten thousand to all of a class.
    image = axes.imshow(mistakes, cmap="YlOrRd", norm=LogNorm(0.05, 100))
    places = np.arange(len(labels))
    size = 12 if few else 9
    axes.set_xticks(places, labels, fontsize=size)
    axes.set_yticks(places, labels, fontsize=size)
    axes.tick_params(length=0, labeltop=True, labelright=not few)
    axes.set_xticks(places[:-1] + 0.5, minor=True)
    axes.set_yticks(places[:-1] + 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd" if few else "#eeeeee", linewidth=0.8 if few else 0.5)
    axes.tick_params(which="minor", length=0)
    for i in places:
        axes.add_patch(_cell(i))
    if few:
        for (i, j), n in np.ndenumerate(counts):
            if n:
                dark = i != j and share[i, j] > 10
                axes.text(j, i, f"{n:,}", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axes.set_xlabel("answer")
    axes.set_ylabel("true character")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.03, aspect=40)
    bar.set_label("mistakes, % of the true class")
    bar.set_ticks([0.1, 1, 10, 100], labels=["0.1", "1", "10", "100"])
    axes.set_title(
        f"{evaluation['data']}: {round(evaluation['error_percent'] * evaluation['n'] / 100):,} of "
        f"{evaluation['n']:,} wrong ({evaluation['error_percent']:.2f} %)",
        pad=12,
    )
    return _png(figure)


def risk_coverage_png(evaluation: dict[str, Any]) -> bytes:
    """Draw the error among the accepted against the share rejected, and confidence against accuracy."""
    figure = _figure(12.5, 5.4)
    _draw_risk(figure.add_subplot(1, 2, 1), evaluation)
    _draw_reliability(figure.add_subplot(1, 2, 2), evaluation)
    return _png(figure)


def curves_png(records: list[dict[str, Any]], best_epoch: int | None) -> bytes:
    """Draw loss, validation accuracy and learning rate of every epoch."""
    figure = _figure(14, 4.2)
    epochs = [record["epoch"] for record in records]
    panels = (
        ("loss, nats (logarithmic)", {"train_loss": "training", "validation_loss": "validation"}, 1),
        ("validation error, % (logarithmic)", {"validation_accuracy": ""}, 100),
        ("learning rate", {"learning_rate": ""}, 1),
    )
    for i, (title, names, factor) in enumerate(panels):
        axes = figure.add_subplot(1, 3, i + 1)
        for (name, label), colour in zip(names.items(), (ORANGE if len(names) > 1 else BLUE, BLUE), strict=False):
            values = np.asarray([record[name] for record in records], dtype=float)
            values = 1 - values if name == "validation_accuracy" else values
            axes.plot(epochs, factor * values, color=colour, marker=".", label=label or None)
        if "logarithmic" in title and any(line.get_ydata().max() > 0 for line in axes.lines):
            axes.set_yscale("log", nonpositive="mask")
            _plain_ticks(axes.yaxis)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {best_epoch}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#e5e5e5")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return _png(figure)


def _draw_risk(axes: "Axes", evaluation: dict[str, Any]) -> None:
    curve = evaluation["risk_coverage"]
    rejected = 100 * (1 - np.asarray(curve["coverage"]))
    risk = 100 * np.asarray(curve["risk"])
    axes.plot(rejected, risk, color=BLUE)
    points = evaluation["at_rejection"].values()
    x = [100 * point["rejected"] / evaluation["n"] for point in points]
    y = [100 * point["error"] for point in points]
    names = ", ".join(name.removesuffix(" %") for name in evaluation["at_rejection"])
    errors = ", ".join(f"{error:.3g}" for error in y)
    axes.plot(x, y, "o", color=BLUE, markersize=5, label=f"{names} % rejected: {errors} % wrong")
    # Where the shipped threshold puts this model; the horizontal axis ends where hardly an error is left.
    shipped = 100 * evaluation["rejected"], 100 * evaluation["error_accepted"]
    axes.plot(
        *shipped,
        "D",
        color=ORANGE,
        markersize=7,
        label=f"as shipped, {shipped[0]:.3g} % rejected: {shipped[1]:.3g} % wrong",
    )
    few_left = rejected[risk <= 0.02 * risk[0]]
    axes.set_xlim(0, min(100.0, max(6.0, 1.1 * shipped[0], 1.2 * few_left[0] if len(few_left) else 100.0)))
    axes.set_ylim(0, max(1.08 * risk[0], 1e-3))
    axes.set_xlabel("rejected, % of the images")
    axes.set_ylabel("wrong, % of the accepted")
    axes.set_title(f"Error against rejection ({evaluation['data']}, AURC {evaluation['aurc']:.2g})")
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False)


def _draw_reliability(axes: "Axes", evaluation: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    shown = (
        ("before", "ece_before_temperature", ORANGE, "without temperature"),
        ("after", "ece", BLUE, f"with temperature {evaluation['temperature']:.2f}"),
    )
    for when, ece, colour, name in shown:
        bins = evaluation["reliability"][when]
        # A line through bins of a handful of images would be drawn through noise; they stay as faint points.
        full = [b for b in bins if b["n"] >= FULL_BIN]
        rest = [b for b in bins if b["n"] < FULL_BIN]
        label = f"{name}: ECE {100 * evaluation[ece]:.2f} %"
        axes.plot(*_columns(full), color=colour, marker="o", linewidth=1.2, label=label, clip_on=False)
        axes.scatter(*_columns(rest), color=colour, alpha=0.35, s=14, clip_on=False, linewidths=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"Reliability (faint: bins of fewer than {FULL_BIN} images)")
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, loc="lower right")


def _columns(bins: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [b["confidence"] for b in bins], [b["accuracy"] for b in bins]


def _cell(i: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="#e9e9e9", edgecolor="none")


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
