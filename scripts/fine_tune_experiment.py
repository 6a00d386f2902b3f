"""Pre-trained on the letters of chars62, then 10, 100 or 1000 labels a class of digits, against from scratch.

    python scripts/fine_tune_experiment.py   # about 20 minutes; writes docs/figures/fine-tune.json and .png

Labels include those kept for validation (a fifth). Every method sees the same labels and the same number of steps;
three seeds draw labels, start and order. MNIST's test split is read once a run, at the end.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.checkpoint import load_checkpoint  # noqa: E402
from hwr_export.datasets import load_mnist  # noqa: E402
from hwr_export.runners.eager import EagerRunner  # noqa: E402
from train.fit import fit  # noqa: E402
from train.recipe import Recipe, load_recipe  # noqa: E402

START = ROOT / "runs" / "letters-edge"
RUNS = ROOT / "runs" / "fine-tune"
LABELS = {10: (8, 60), 100: (32, 40), 1000: (64, 12)}  # a class: batch size, epochs
METHODS: dict[str, dict[str, Any] | None] = {
    "from scratch": None,
    "head alone": {"train_from": "head"},
    "all, slower below": {"train_from": "all", "lr_decay": 0.5},
    "all, unfrozen from the top": {"train_from": "all", "lr_decay": 0.5, "unfreeze_every": 2},
}
SEEDS = 3
FIGURES = ROOT / "docs" / "figures"


def recipe(method: str, labels: int, seed: int) -> Recipe:
    batch, epochs = LABELS[labels]
    settings = METHODS[method]
    return Recipe.model_validate(
        {
            "schema": 1,
            "name": "fine-tune-experiment",
            # What the letters were learnt by: edge-m as it was until its stem was made for the machine.
            "model": {"name": "edge", "config": {"channels": [16, 32, 48, 48]}},
            "data": {"name": "mnist", "per_class": labels, "validation_fraction": 0.2, "split_seed": seed},
            "epochs": epochs,
            "batch_size": batch,
            "learning_rate": 0.003,
            "ema_decay": 0.95,
            "seed": seed,
            "fine_tune": None if settings is None else settings | {"checkpoint": str(START.relative_to(ROOT))},
        }
    )


def main() -> None:
    console = Console(stderr=True)
    letters = ROOT / "train" / "recipes" / "letters-edge.yaml"
    fit(load_recipe(letters), START, None, resume=START.exists(), console=console)
    test = load_mnist("test")
    found: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for labels in LABELS:
        for method in METHODS:
            errors = []
            for seed in range(SEEDS):
                out = RUNS / f"{method.replace(' ', '-').replace(',', '')}-{labels}-{seed}"
                fit(recipe(method, labels, seed), out, None, resume=out.exists(), console=Console(quiet=True))
                checkpoint = load_checkpoint(out)
                with EagerRunner(checkpoint, checkpoint.info.spec()) as runner:
                    right = runner.infer_all(test.images)["probabilities"].argmax(1) == test.labels
                errors.append(round(100 * float(1 - right.mean()), 2))
            found[method][str(labels)] = {
                "error_percent": errors, "median": statistics.median(errors), "range": [min(errors), max(errors)]
            }  # fmt: skip
            console.print(f"{labels} labels a class, {method}: {errors}")
    beats = {
        method: {n: by[n]["median"] < found["from scratch"][n]["range"][0] for n in by}
        for method, by in found.items()
        if method != "from scratch"
    }
    report = {
        "schema": 1,
        "command": "python scripts/fine_tune_experiment.py",
        "start": {"recipe": letters.name, "weights": load_checkpoint(START).info.weights.sha256},
        "seeds": SEEDS,
        "test_error": found,
        "median_beats_every_seed_from_scratch": beats,
    }
    (FIGURES / "fine-tune.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(found, FIGURES / "fine-tune.png")
    print(json.dumps(report, indent=2))


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, (method, by) in enumerate(found.items()):
        x = [int(n) * (1 + 0.04 * (i - 1.5)) for n in by]
        median = [r["median"] for r in by.values()]
        spread = [[m - r["range"][0] for m, r in zip(median, by.values(), strict=True)],
                  [r["range"][1] - m for m, r in zip(median, by.values(), strict=True)]]  # fmt: skip
        axes.errorbar(x, median, yerr=spread, marker="o", capsize=3, label=method, color=f"C{i}")
    axes.set(xscale="log", yscale="log", xlabel="labels a class (validation included)", ylabel="MNIST test error, %")
    axes.set_xticks([int(n) for n in next(iter(found.values()))], labels=list(next(iter(found.values()))))
    axes.set_yticks([0.5, 1, 2, 5, 10, 20], labels=["0.5", "1", "2", "5", "10", "20"])
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="median and range of three seeds")
    axes.set_title("Digits from few labels, pre-trained on letters")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
