"""`python -m train`: fetch data, fit a recipe, evaluate what came out."""

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
@click.argument("dataset", type=click.Choice(["mnist"]))
@DATA
def fetch(dataset: str, data_root: Path | None) -> None:
    """Find a dataset, or get it, and check its hashes."""
    from train.fetch import FETCHERS

    click.echo(FETCHERS[dataset](data_root, stderr_console()))


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run directory.")
@click.option("--resume", is_flag=True, help="Continue the run in the directory, if there is one.")
@DATA
def fit(recipe: Path, out: Path, resume: bool, data_root: Path | None) -> None:
    """Train a model as RECIPE says; the best epoch on validation is the checkpoint."""
    from train.fit import fit as run
    from train.recipe import load_recipe

    click.echo(run(load_recipe(recipe), out, data_root, resume, stderr_console()))


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
@click.option("--data", "dataset", default="mnist", show_default=True, help="Dataset whose test split is read.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@json_option
def evaluate(checkpoint_or_release: Path, dataset: str, data_root: Path | None, as_json: bool) -> None:
    """Measure accuracy and calibration on a test split: the eager model of a checkpoint, the ONNX file of a release."""
    from train.evaluate import evaluate as run

    with quiet_stdout():
        result = run(checkpoint_or_release, dataset, data_root)
    if as_json:
        print_json(result)
    else:
        plain = {k: v for k, v in result.items() if k not in ("schema", "per_class", "error_at_rejection")}
        at_rejection = {f"error at {share} rejected": v for share, v in result["error_at_rejection"].items()}
        print_table(("measure", "value"), [(k, str(v)) for k, v in (plain | at_rejection).items()])
        print_table(
            ("class", "n", "accuracy"), [(c, r["n"], f"{r['accuracy']:.4f}") for c, r in result["per_class"].items()]
        )


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


if __name__ == "__main__":
    main(prog_name="python -m train")
