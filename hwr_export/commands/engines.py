"""Release -> TensorRT engines, and the machines they are for: trt, targets."""

from pathlib import Path

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, progress_bar, quiet_stdout


@click.command()
@click.argument("release", type=PathArgument)
@click.option("--target", "targets", multiple=True, help="As `targets` lists them (repeatable). [default: four]")
@click.option("--product", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Else chosen by target.")
@click.option("--opt-batch", "opt_batches", type=int, multiple=True, help="A profile for it (repeatable). [default: 1]")
@click.option("--max-batch", type=int, help="Largest batch the plan takes. [default: the graph's]")
@click.option("--precision", "precisions", multiple=True, help="fp32, fp16, int8 (repeatable). [default: all]")
@click.option("--together", is_flag=True, help="One plan for all targets instead of one for each.")
@json_option
def trt(
    release: Path,
    targets: tuple[str, ...],
    product: str | None,
    opt_batches: tuple[int, ...],
    max_batch: int | None,
    precisions: tuple[str, ...],
    together: bool,
    as_json: bool,
) -> None:
    """Build TensorRT engines from a release's ONNX files, without a GPU where the product can."""
    from hwr_export.engine.stage import EngineConfig, build_engines
    from hwr_export.release import Release
    from hwr_export.tables import engines_table

    opened = Release.open(release)
    with quiet_stdout(), progress_bar() as bar:
        task = bar.add_task("building", total=None)

        def show(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=phase, completed=done, total=max(1, steps))

        config = EngineConfig(targets, product, opt_batches, max_batch, precisions, together)
        result = build_engines(opened, config, bar.console.print, show)
    if as_json:
        print_json(result)
        return
    print_table(*engines_table(result))


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """List the machines that `trt --target` knows by name, what builds for them, and how that is known."""
    from hwr_export.engine.targets import targets_document
    from hwr_export.tables import targets_notes, targets_table

    document = targets_document()
    if as_json:
        print_json(document)
        return
    print_table(*targets_table(document))
    click.echo("\n".join(targets_notes(document)))
