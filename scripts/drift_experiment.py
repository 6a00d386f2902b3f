"""Measure the drift alarm on people it was not set with: how often it is false, and what it finds in how many images.

Writes `docs/figures/drift.json` and `drift.png`. MNIST's training writers are cut in two halves: references are drawn
from one, windows from the other. The test split is not read. About twenty minutes on one core.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.checkpoint import load_checkpoint  # noqa: E402
from hwr_export.datasets import data_roots, load_chars62, load_mnist  # noqa: E402
from hwr_export.drift import Alarm, image_statistics, make_reference, model_statistics  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402
from hwr_export.glyph import load_grey, normalize  # noqa: E402
from hwr_export.runners.eager import EagerRunner  # noqa: E402
from hwr_export.spec import PROBABILITIES  # noqa: E402
from hwr_export.statistics import rate_upper_bound  # noqa: E402

Images = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

ALPHA = 0.01
REFERENCE_WRITERS = 54  # as many as in a tenth of MNIST, which is what a recipe validates on
PER_WRITER = 112  # images, of a median writer of MNIST
FORM = 10  # images a person writes on a small form
SIZES = (20, 50, 100, 200, 500, 1000, 2000)
RATE_REFERENCES, RATE_WINDOWS = 100, 20
POWER_REFERENCES, POWER_WINDOWS = 10, 20
POWER_WRITERS = 100


def thicker(images: Images) -> Images:
    """Let every stroke grow by half a pixel to each side: the largest of 3 x 3, at twice the resolution."""
    n, height, width = images.shape
    p = np.pad(images.repeat(2, axis=1).repeat(2, axis=2), ((0, 0), (1, 1), (1, 1)))
    rows = np.maximum.reduce([p[:, :-2], p[:, 1:-1], p[:, 2:]])
    grown = np.maximum.reduce([rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:]])
    return np.round(grown.reshape(n, height, 2, width, 2).mean(axis=(2, 4))).astype(np.uint8)


def moved(images: Images) -> Images:
    return np.pad(images, ((0, 0), (0, 0), (3, 0)))[:, :, : images.shape[2]]


def blurred(images: Images) -> Images:
    """Convolve with a Gaussian of one pixel."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    found = images.astype(np.float64)
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (3, 3)
        padded = np.pad(found, width)
        n = images.shape[axis]
        found = sum(t * padded.take(range(i, i + n), axis=axis) for i, t in enumerate(taps / taps.sum()))
    return np.round(found).astype(np.uint8)


def inverted(images: Images) -> Images:
    return 255 - images


CHANGES: dict[str, Callable[[Images], Images]] = {
    "strokes 1 px thicker": thicker,
    "shifted by 3 px": moved,
    "blurred, sigma 1 px": blurred,
    "inverted": inverted,
}


def crops_of(images: Images) -> Images:
    """Do what reading does; blank images drop out."""
    return np.stack([crop for image in images if (crop := normalize(image, 28, 28)) is not None])


@dataclass
class People:
    """Statistics (N, K) of images and who wrote each."""

    values: Values
    writers: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        self.ids = np.unique(self.writers)
        self.of = {int(w): np.flatnonzero(self.writers == w) for w in self.ids}

    def window(self, n: int, writers: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the indices of about `n` images, equally many by each of `writers` people."""
        chosen = rng.choice(self.ids, min(writers, len(self.ids)), replace=False)
        each = -(-n // len(chosen))
        return np.concatenate([rng.permutation(self.of[int(w)])[:each] for w in chosen])[:n]

    def reference(self, writers: int, rng: np.random.Generator) -> Any:
        index = np.flatnonzero(np.isin(self.writers, rng.choice(self.ids, writers, replace=False)))
        return make_reference(self.values[index], self.writers[index], {})


def interval(events: int, n: int) -> list[float]:
    """Return the 95 % interval of a rate (Clopper and Pearson 1934)."""
    return [1 - rate_upper_bound(n - events, n, 0.975), rate_upper_bound(events, n, 0.975)]


def false_alarms(name: str, ours: People, theirs: People, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Count alarms on windows of other people of the same population."""
    k = ours.values.shape[1]
    by_writer = len(ours.ids) < len(ours.writers)
    if by_writer:
        whole = [(PER_WRITER * m, m, m) for m in (1, 2, 5, 10, 20)]
        forms = [(FORM * m, m, m) for m in (2, 5, 10, 20, 50)]
        settings = [*whole, *forms, (PER_WRITER, 1, PER_WRITER)]
    else:
        settings = [(n, n, n) for n in (20, 50, 100, 200, 500)]
    rows = []
    for n, writers, judged_as in settings:
        least = []
        for _ in range(RATE_REFERENCES):
            reference = ours.reference(REFERENCE_WRITERS if by_writer else len(ours.ids), rng)
            alarm = Alarm(reference, n, judged_as, k)
            least += [
                float(alarm.test(theirs.values[theirs.window(n, writers, rng)])[1].min()) for _ in range(RATE_WINDOWS)
            ]
        events = int((np.array(least) <= ALPHA).sum())
        row = {
            "data": name,
            "n": n,
            "writers": writers if by_writer else None,
            "judged_as_writers": judged_as if by_writer else None,
            "windows": len(least),
            "false_alarms": events,
            "rate": events / len(least),
            "ci95": interval(events, len(least)),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def power(
    name: str, ours: People, drifted: dict[str, People], designs: dict[str, int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Count alarms on windows that did drift, by how many images of how many people."""
    k = ours.values.shape[1]
    by_writer = len(ours.ids) < len(ours.writers)
    found: dict[tuple[str, str, int], list[bool]] = {}
    for design, each in designs.items():
        for n in SIZES:
            writers = max(1, round(n / each))
            for _ in range(POWER_REFERENCES):
                reference = ours.reference(REFERENCE_WRITERS if by_writer else len(ours.ids), rng)
                alarm = Alarm(reference, n, writers, k)
                for kind, theirs in drifted.items():
                    unknown = len(theirs.ids) == len(theirs.writers)
                    if n > len(theirs.writers):
                        continue
                    for _ in range(POWER_WINDOWS):
                        window = theirs.window(n, n if unknown else writers, rng)
                        p_value = float(alarm.test(theirs.values[window])[1].min())
                        found.setdefault((kind, design, n), []).append(p_value <= ALPHA)
    rows = []
    for kind in drifted:
        for design in designs:
            by_size = {n: float(np.mean(found[kind, design, n])) for n in SIZES if (kind, design, n) in found}
            row = {
                "data": name,
                "drift": kind,
                "design": design,
                "windows": POWER_REFERENCES * POWER_WINDOWS,
                "detected": {str(n): rate for n, rate in by_size.items()},
                # The smallest from which on every larger window is found as surely.
                "smallest_window_90": next(
                    (n for n in by_size if all(r >= 0.9 for size, r in by_size.items() if size >= n)), None
                ),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def changed(images: Images, writers: npt.NDArray[np.int32], measure: Callable[[Images], Values]) -> dict[str, People]:
    """Return every change twice: after the normalisation, as a broken scanner would make it, and before it."""
    crops = crops_of(images)
    after = {f"{name}, after": People(measure(change(crops)), writers) for name, change in CHANGES.items()}
    before = {f"{name}, before": People(measure(crops_of(change(images))), writers) for name, change in CHANGES.items()}
    return after | before


def alone(values: Values) -> People:
    return People(values, np.arange(len(values), dtype=np.int32))


def hw62_digits(root: Path | None) -> Images:
    folder = next(r / "hw62" / "images" for r in data_roots(root) if (r / "hw62" / "images").is_dir())
    greys = (load_grey(path) for path in sorted(folder.glob("DIGIT_*")))
    return np.stack([crop for grey in greys if (crop := normalize(grey, 28, 28)) is not None])


@click.command()
@click.argument("chars62_checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
def main(chars62_checkpoint: Path, data_root: Path | None) -> None:
    """Run the experiment; CHARS62_CHECKPOINT is the model whose confidence is watched in the second part."""
    rng = np.random.default_rng(20)
    mnist = load_mnist("train", data_root)
    assert mnist.writers is not None
    ids = rng.permutation(np.unique(mnist.writers))
    values = image_statistics(crops_of(mnist.images))
    halves = []
    for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
        index = np.flatnonzero(np.isin(mnist.writers, part))
        halves.append(People(values[index], mnist.writers[index]))
    ours, theirs = halves
    rates = false_alarms("mnist, by writer", ours, theirs, rng)

    chars62 = load_chars62("validation", data_root)
    letters = chars62.images[chars62.labels >= 10]
    index = np.flatnonzero(np.isin(mnist.writers, theirs.ids[:POWER_WRITERS]))
    drifted = {
        **changed(mnist.images[index], mnist.writers[index], image_statistics),
        "letters (chars62)": alone(image_statistics(crops_of(letters))),
        "photographed digits (hw62)": alone(image_statistics(hw62_digits(data_root))),
    }
    designs = {f"{FORM} images a writer": FORM, f"{PER_WRITER} images a writer": PER_WRITER}
    found = power("mnist, by writer", ours, drifted, designs, rng)

    checkpoint = load_checkpoint(chars62_checkpoint)
    with EagerRunner(checkpoint, checkpoint.info.spec()) as runner:

        def both(images: Images) -> Values:
            return np.concatenate(
                [image_statistics(images), model_statistics(runner.infer_all(images)[PROBABILITIES])], axis=1
            )

        order = rng.permutation(len(chars62))
        halves_of_images = np.split(chars62.images[order], 2)
        ours, theirs = (alone(both(crops_of(half))) for half in halves_of_images)
        rates += false_alarms("chars62 with confidence, independent images", ours, theirs, rng)
        each = np.arange(len(theirs.writers), dtype=np.int32)
        drifted = changed(halves_of_images[1], each, both)
    found += power("chars62 with confidence, independent images", ours, drifted, {"1 image a writer": 1}, rng)

    document = {
        "schema": 1,
        "made_by": "python scripts/drift_experiment.py runs/chars62-edge",
        "alpha": ALPHA,
        "reference_writers": REFERENCE_WRITERS,
        "references": {"false_alarms": RATE_REFERENCES, "power": POWER_REFERENCES},
        "note": "windows share references and writers, so the intervals of rates, which take windows for independent, "
        "are somewhat too narrow; `before` and `after` say on which side of the reader's normalisation a change is",
        "false_alarms": rates,
        "power": found,
    }
    figures = ROOT / "docs" / "figures"
    write_atomic(figures / "drift.json", json_bytes(document))
    write_atomic(figures / "drift.png", picture(document))


def picture(document: dict[str, Any]) -> bytes:
    """Draw the rates with their intervals, and a table of what is found in windows of which size."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.6), dpi=110, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.25))
    _draw_rates(figure.add_subplot(grid[:, 0]), document)
    for row, each in enumerate((FORM, PER_WRITER)):
        _draw_power(figure.add_subplot(grid[row, 1]), document, "mnist, by writer", f"{each} images a writer")
    figure.supxlabel(
        "Before, after: on which side of the reader's normalisation the change is made. "
        "A shift or inverted paper before it never reaches the model.",
        fontsize=10, color=INK,
    )  # fmt: skip
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


INK, GOOD, BAD = "#1f2933", "#2a6f97", "#c2410c"


def _draw_rates(axes: Any, document: dict[str, Any]) -> None:
    rows = document["false_alarms"]
    names = []
    for place, row in enumerate(rows):
        misled = row["writers"] != row["judged_as_writers"]
        low, high = (100 * max(bound, 2e-4) for bound in row["ci95"])
        axes.plot([low, high], [place, place], color=BAD if misled else GOOD, linewidth=2.5, solid_capstyle="round")
        axes.plot([100 * max(row["rate"], 2e-4)], [place], "o", color=BAD if misled else GOOD, markersize=5)
        people = f"{row['writers']} writer{'s' * (row['writers'] > 1)}" if row["writers"] else "chars62 + confidence"
        names.append(f"{row['n']} images, {people}" + (f"\njudged as {row['judged_as_writers']} writers" * misled))
    axes.axvline(100 * document["alpha"], color=INK, linewidth=1, linestyle="--")
    axes.text(100 * document["alpha"] * 1.08, -0.75, f"alpha = {document['alpha']:.0%}", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=9, color=INK)
    axes.set_ylim(len(names) - 0.5, -1.2)
    axes.set_xscale("log")
    axes.set_xticks([0.02, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.set_xlabel(f"false alarms, % of {rows[0]['windows']:,} windows without drift (95 % interval)", color=INK)
    axes.set_title("Alarms without drift", loc="left", weight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_power(axes: Any, document: dict[str, Any], data: str, design: str) -> None:
    rows = [row for row in document["power"] if (row["data"], row["design"]) == (data, design)]
    rates = np.array([[row["detected"].get(str(n), np.nan) for n in SIZES] for row in rows])
    axes.imshow(np.ma.masked_invalid(rates), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (r, c), rate in np.ndenumerate(rates):
        text = "–" if np.isnan(rate) else f"{100 * rate:.0f}"
        style = {"weight": "bold"} if rate >= 0.9 else {}
        axes.text(c, r, text, ha="center", va="center", fontsize=9, color="white" if rate > 0.7 else INK, **style)
    axes.set_xticks(range(len(SIZES)), [f"{n:,}" for n in SIZES])
    axes.set_yticks(range(len(rows)), [row["drift"] for row in rows], fontsize=9, color=INK)
    axes.set_xlabel(f"images in the window ({rows[0]['windows']} windows each)", color=INK)
    axes.set_title(f"Alarms with drift, %: {design}", loc="left", weight="bold", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
