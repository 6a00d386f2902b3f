"""Release -> TensorRT engines, and the machines they are for: trt, targets."""

import sys
from pathlib import Path

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, progress_bar, quiet_stdout
from hwr_export.errors import UsageError


@click.command()
@click.argument("source", metavar="RELEASE|MODEL.onnx", type=PathArgument)
@click.option("--target", "targets", multiple=True, help="As `targets` lists them (repeatable). [default: four]")
@click.option("--product", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Else chosen by target.")
@click.option("--opt-batch", "opt_batches", type=int, multiple=True, help="A profile for it (repeatable). [default: 1]")
@click.option("--max-batch", type=int, help="Largest batch the plan takes. [default: the graph's]")
@click.option("--precision", "precisions", multiple=True, help="fp32, fp16, int8 (repeatable). [default: all]")
@click.option("--together", is_flag=True, help="One plan for all targets instead of one for each.")
@click.option("--native", is_flag=True, help="Build, run and prove on this machine's GPU; as --target native.")
@click.option(
    "--margin", default=0.1, type=click.FloatRange(0, 100, min_open=True), help="With --native: as of parity."
)
@click.option("--shape", "shapes", multiple=True, help="Of a MODEL.onnx's input: NAME=1x1x28x28 or NAME=MIN:OPT:MAX.")
@click.option(
    "-o", "--output", type=PathArgument, help="Plan of a MODEL.onnx. [default: MODEL.TARGET.engine beside it]"
)
@json_option
def trt(
    source: Path,
    targets: tuple[str, ...],
    product: str | None,
    opt_batches: tuple[int, ...],
    max_batch: int | None,
    precisions: tuple[str, ...],
    together: bool,
    native: bool,
    margin: float,
    shapes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Build TensorRT engines from a release or from any ONNX file, without a GPU where the product can.

    With --native: PASS (exit 0) and recorded, FAIL (1) or UNDECIDED (3) and not.
    """
    from hwr_export.engine.onnx_file import FileConfig, build_from_file
    from hwr_export.engine.recipe import BuildRecipe
    from hwr_export.engine.stage import EngineConfig, build_engines
    from hwr_export.engine.targets import wants_native
    from hwr_export.native import NativeConfig, build_native
    from hwr_export.release import Release
    from hwr_export.tables import engines_table
    from hwr_export.verdict import EXIT_CODE

    of_release = {"--opt-batch": opt_batches, "--max-batch": max_batch, "--precision": precisions, "--native": native}
    of_file = {"--shape": shapes, "--output": output}
    is_file = source.is_file() or source.suffix == ".onnx"
    for option, value in (of_release if is_file else of_file).items():
        if value:
            what = "a release, and this is a file; say its shapes with --shape" if is_file else "an ONNX file alone"
            raise UsageError(f"{option} is for {what}")
    opened = None if is_file else Release.open(source)
    with quiet_stdout(), progress_bar() as bar:
        task = bar.add_task("building", total=None)

        def show(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=phase, completed=done, total=max(1, steps))

        if opened is None:
            result = build_from_file(
                source, FileConfig(targets, product, shapes, together, output), bar.console.print, show
            )
        elif wants_native(native, targets, product):
            recipe = BuildRecipe(opt_batches=opt_batches, max_batch=max_batch)
            own = recipe if recipe != BuildRecipe() else None  # nothing said: as the release's own recipe has it
            here = NativeConfig(product, precisions, own, margin)
            result = build_native(opened, here, bar.console.print, show)
        else:
            config = EngineConfig(targets, product, opt_batches, max_batch, precisions, together)
            result = build_engines(opened, config, bar.console.print, show)
    if as_json:
        print_json(result)
    else:
        print_table(*engines_table(result))
    sys.exit(EXIT_CODE[result.get("verdict", "PASS")])


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
