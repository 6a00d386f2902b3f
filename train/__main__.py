"""`python -m train`: fetch data, fit a recipe, evaluate what came out."""

import os
import sys
from pathlib import Path

import click

from hwr_export.console import Commands, json_option, print_json, print_table, quiet_stdout, stderr_console

DATA = click.option(
    "--data",
    "--data-root",
    "data_root",
    type=click.Path(path_type=Path),
    help="Data root; else HWR_DATA, else the user cache.",
)


@click.group(cls=Commands)
def main() -> None:
    """Train handwriting recognisers: fetch, fit, evaluate."""


@main.command()
@click.argument("dataset", type=click.Choice(["mnist", "emnist"]))
@DATA
def fetch(dataset: str, data_root: Path | None) -> None:
    """Find a dataset, or get it, and check its hashes."""
    from train.fetch import FETCHERS

    click.echo(FETCHERS[dataset](data_root, stderr_console()))


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run directory.")
@click.option("--resume", is_flag=True, help="Continue the run in the directory, if there is one.")
@click.option("--tensorboard", is_flag=True, help="Also log to OUT/tensorboard.")
@DATA
def fit(recipe: Path, out: Path, resume: bool, tensorboard: bool, data_root: Path | None) -> None:
    """Train a model as RECIPE says; the newest of the best epochs on validation is the checkpoint.

    Several processes: `torchrun --nproc-per-node N -m train fit ...`; the recipe's batch is that of all together.
    """
    from train.fit import fit as run
    from train.recipe import load_recipe

    _finish(run(load_recipe(recipe), out, data_root, resume, stderr_console(), tensorboard=tensorboard))


@main.command("fine-tune")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run directory.")
@click.option("--resume", is_flag=True, help="Continue the run in the directory, if there is one.")
@click.option("--tensorboard", is_flag=True, help="Also log to OUT/tensorboard.")
@DATA
def fine_tune(
    checkpoint: Path, recipe: Path, out: Path, resume: bool, tensorboard: bool, data_root: Path | None
) -> None:
    """Train CHECKPOINT further on the data of RECIPE, which names no model; other labels get a new head.

    By default the head alone learns; fine_tune.train_from, lr_decay, unfreeze_every and batch_norm say otherwise.
    """
    from train.finetune import load_fine_tune_recipe
    from train.fit import fit as run

    found = load_fine_tune_recipe(recipe, checkpoint)
    _finish(run(found, out, data_root, resume, stderr_console(), tensorboard=tensorboard))


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--new-data", required=True, type=click.Path(path_type=Path), help="Folder of images per class, or CSV of paths."
)
@click.option(
    "--replay", multiple=True, type=click.Path(path_type=Path),
    help="New data of an earlier renewal of CHECKPOINT; once for each.",
)  # fmt: skip
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where the checkpoint to ship goes.")
@click.option("--epochs", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--new-share", default=0.5, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of new images in a batch; the rest replays the old.",
)  # fmt: skip
@click.option(
    "--margin", default=0.1, show_default=True, type=click.FloatRange(0, 100),
    help="Points of accuracy that may be lost on the old test images.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue the renewal in the directory, if there is one.")
@DATA
@json_option
def renew(
    checkpoint: Path,
    new_data: Path,
    replay: tuple[Path, ...],
    out: Path,
    epochs: int,
    new_share: float,
    margin: float,
    resume: bool,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Train CHECKPOINT on newly labelled images and its old ones; keep the new model only if a paired test says so.

    Exit code 0: promoted. 1: the old checkpoint stays the one to ship.
    """
    from train.renew import renew as run

    console = stderr_console()
    with quiet_stdout():
        report = run(
            checkpoint, new_data, out, data_root, console,
            replay=replay, epochs=epochs, new_share=new_share, margin=margin / 100, resume=resume,
        )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        columns = ("test images", "n", "old", "renewed", "fixed", "broken", "lower bound")
        rows = [
            (name, f"{r['n']:,}", f"{100 * r['accuracy_old']:.2f} %", f"{100 * r['accuracy_new']:.2f} %",
             r["fixed"], r["broken"], f"{100 * r['lower']:+.2f}")
            for name, r in (("old", report["on_old"]), ("new", report["on_new"]))
        ]  # fmt: skip
        print_table(columns, rows)
        click.echo("Promoted." if report["promoted"] else f"The old checkpoint stays: {'; '.join(report['reasons'])}.")
    if not report["promoted"]:
        sys.exit(1)


@main.command()
@click.argument("space", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the study.")
@click.option("--trials", type=click.IntRange(min=1), help="Trials in all, earlier ones included; else SPACE's number.")
@click.option(
    "--timeout", "minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes after which no trial starts."
)
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes; they divide the threads."
)
@DATA
@json_option
def search(
    space: Path, out: Path, trials: int | None, minutes: float | None, jobs: int, data_root: Path | None, as_json: bool
) -> None:
    """Search SPACE for the recipe of the lowest validation loss; the same command again continues, or joins in."""
    from train.search import search as run
    from train.search_report import print_results

    with quiet_stdout():
        found = run(space, out, data_root, stderr_console(), trials=trials, timeout_minutes=minutes, jobs=jobs)
    if as_json:
        print_json(found)
    else:
        print_results(found)


@main.command()
@click.argument("dataset", type=click.Choice(["mnist"]))
@click.option("-n", "count", default=8, show_default=True, help="How many images.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write PNG files into.")
@DATA
def samples(dataset: str, count: int, out: Path, data_root: Path | None) -> None:
    """Write held-out digits as someone would scan them: dark on light or light on dark, of several sizes."""
    from train.samples import write_samples

    for path in write_samples(dataset, count, out, data_root):
        click.echo(path)


@main.command()
@click.argument("checkpoint_or_release", type=click.Path(path_type=Path))
@click.option("--data", "dataset", help="Dataset whose test part is read.  [default: that of the data trained on]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for evaluation.json and pictures.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@json_option
def evaluate(
    checkpoint_or_release: Path, dataset: str | None, out: Path | None, data_root: Path | None, as_json: bool
) -> None:
    """Measure accuracy, calibration and rejection on a test part, and what garbage is accepted.

    Of a checkpoint the eager model is measured, of a release its ONNX file. In a run directory as --out the model card
    is written anew.
    """
    from hwr_export.checkpoint import CHECKPOINT_JSON
    from train.card import write_card
    from train.evaluate import check_out, write_evaluation
    from train.evaluate import evaluate as run
    from train.summary import print_summary

    if out is not None:
        check_out(out)
    with quiet_stdout():
        result = run(checkpoint_or_release, dataset, data_root, stderr_console())
        written = []
        if out is not None:
            written = write_evaluation(result, out)
            if (out / CHECKPOINT_JSON).is_file():
                written.append(write_card(out))
    if as_json:
        print_json(result)
    else:
        print_summary(result)
        for path in written:
            click.echo(path)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def card(run: Path) -> None:
    """Write MODEL_CARD.md and curves.png of the checkpoint in RUN, from the files there."""
    from train.card import write_card

    click.echo(write_card(run))


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where the new checkpoint goes.")
@click.option("--epochs", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--rate", default=0.05, show_default=True, type=click.FloatRange(0, 1, min_open=True),
    help="Peak learning rate, as a share of the recipe's.",
)  # fmt: skip
@DATA
@json_option
def qat(checkpoint: Path, out: Path, epochs: int, rate: float, data_root: Path | None, as_json: bool) -> None:
    """Fine-tune CHECKPOINT under simulated int8 rounding; what comes out is exported and quantised like any other."""
    with quiet_stdout():
        from train.qat import qat as run

        report = run(checkpoint, out, data_root, stderr_console(), epochs=epochs, rate=rate)
    if as_json:
        print_json(report)
        return
    rows = [
        (name, f"{100 * r['accuracy']:.2f} %", r["flips"], f"{r['divergence']:.2g}")
        for name, r in report["rows"].items()
    ]
    print_table((f"{report['validation']['n']:,} validation images", "accuracy", "flips", "divergence"), rows)


def _finish(checkpoint: Path) -> None:
    """Write the card of a run, once where torchrun started several processes, and say where the checkpoint is."""
    if os.environ.get("RANK", "0") == "0":
        from train.card import write_card

        write_card(checkpoint.parent)
        click.echo(checkpoint)


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The picture, a .png file.")
@click.option("--target", help="Explain this label; else the model's answer to each image.")
@json_option
def explain(checkpoint: Path, images: tuple[Path, ...], out: Path, target: str | None, as_json: bool) -> None:
    """Draw why CHECKPOINT answers as it does to IMAGES: Grad-CAM and integrated gradients, a row an image."""
    with quiet_stdout():
        from train.explain import explain as run

        result = run(checkpoint, images, out, target)
    if as_json:
        print_json(result)
        return
    rows = [
        (r["image"], r["label"], f"{r['confidence']:.4f}", r["target"], f"{r['convergence_delta']:+.1e}")
        for r in result["results"]
    ]
    print_table(("image", "label", "confidence", "explained", "convergence delta"), rows)
    click.echo(result["picture"])


@main.command("drift-reference")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The reference, an .npz file.")
@DATA
def drift_reference(checkpoint: Path, out: Path, data_root: Path | None) -> None:
    """Summarise what images like CHECKPOINT's training data look like, from its validation part; no image is kept."""
    from train.drift import write_reference

    with quiet_stdout():
        write_reference(checkpoint, out, data_root)
    click.echo(out)


@main.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Checkpoint or release: judge its confidence too.")
@click.option("--writers", type=int, help="How many people wrote the images; else as few as in the reference.")
@click.option("--alpha", default=0.01, show_default=True, help="False alarms, as a share of windows without drift.")
@json_option
def drift(
    reference: Path, images: tuple[Path, ...], model: Path | None, writers: int | None, alpha: float, as_json: bool
) -> None:
    """Say how far IMAGES (files or folders) are from the training data: exit 1 on alarm."""
    from train.drift import drift as run

    with quiet_stdout():
        result = run(reference, images, model, writers, alpha)
    if as_json:
        print_json(result)
    else:
        rows = [
            (
                f"{s['name']} ({s['unit']})" if s["unit"] else s["name"],
                f"{s['reference']:.3f}",
                f"{s['window']:.3f}",
                f"{s['shift']:+.2f}",
                f"{s['distance']:.3f}",
                f"{s['p_value']:.4f}",
                "ALARM" if s["alarm"] else "",
            )
            for s in result["statistics"]
        ]
        print_table(("statistic", "training", "here", "shift (sd)", "KS distance", "p-value", ""), rows)
        moved = ", ".join(s["name"] for s in result["statistics"] if s["alarm"])
        click.echo(
            f"{'Drift: ' + moved if moved else 'No drift found'}; judged as {result['n']} images by "
            f"{result['writers']} writer(s) at a false-alarm rate of {alpha:g}; {result['blank']} without ink left out."
        )
    sys.exit(1 if result["alarm"] else 0)


if __name__ == "__main__":
    main(prog_name="python -m train")
