"""Release -> TensorRT engines, and the machines they are for: trt, inspect, targets."""

import sys
from pathlib import Path
from typing import Any

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, progress_bar, quiet_stdout
from hwr_export.errors import UsageError


@click.command()
@click.argument("source", metavar="RELEASE|MODEL.onnx", type=PathArgument)
@click.option("--target", "targets", multiple=True, help="As `targets` lists them (repeatable). [default: four]")
@click.option("--product", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Else chosen by target.")
@click.option("--precision", "precisions", multiple=True, help="fp32, fp16, int8 (repeatable). [default: all]")
@click.option("--together", is_flag=True, help="One plan for all targets instead of one for each.")
@click.option("--opt-batch", "opt_batches", type=int, multiple=True, help="A profile for it (repeatable). [default: 1]")
@click.option("--max-batch", type=int, help="Largest batch the plan takes. [default: the graph's]")
@click.option("--workspace", "workspace_mib", default=1024, help="Scratch memory of a layer at most, in MiB.")
@click.option("--log-level", type=click.Choice(["error", "warning", "info", "verbose"]), help="TensorRT's own log.")
@click.option("--optimization-level", type=int, help="tensorrt alone: search effort, 0 to 5. [default: its own, 3]")
@click.option("--timing-cache", type=PathArgument, help="tensorrt alone: keep timings in this file, build faster.")
@click.option("--version-compatible", is_flag=True, help="tensorrt alone: later versions run the plan too.")
@click.option("--hardware-compatible", is_flag=True, help="tensorrt alone: all GPUs from Ampere on run it; no Jetson.")
@click.option("--strip-weights", is_flag=True, help="tensorrt alone: leave out the weights; refit before use.")
@click.option("--refittable", is_flag=True, help="tensorrt alone: other weights can be put in.")
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
    precisions: tuple[str, ...],
    together: bool,
    opt_batches: tuple[int, ...],
    max_batch: int | None,
    timing_cache: Path | None,
    native: bool,
    margin: float,
    shapes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Build TensorRT engines from a release or from any ONNX file, without a GPU where the product can.

    Precision is in the files, and no option changes it. With --native: PASS (exit 0) and recorded, FAIL (1) or
    UNDECIDED (3) and not.
    """
    from hwr_export.engine.onnx_file import FileConfig, build_from_file
    from hwr_export.engine.options import BuildOptions
    from hwr_export.engine.recipe import BuildRecipe
    from hwr_export.engine.stage import EngineConfig, build_engines
    from hwr_export.engine.targets import wants_native
    from hwr_export.native import NativeConfig, build_native
    from hwr_export.release import Release
    from hwr_export.tables import engines_table
    from hwr_export.verdict import EXIT_CODE

    of_release = {"--opt-batch": opt_batches, "--max-batch": max_batch, "--precision": precisions, "--native": native}
    of_file = {"--shape": shapes, "--output": output}
    is_file = source.suffix == ".onnx" and not source.is_dir()
    for option, value in (of_release if is_file else of_file).items():
        if value:
            kind = f"a release, and {source} is a file" if is_file else f"an ONNX file, and {source} is none"
            raise UsageError(f"{option} is for {kind}{'; give --shape' if option.endswith('batch') else ''}")
    opened = None if is_file else Release.open(source)
    with quiet_stdout(), progress_bar(counted=False) as bar:
        task = bar.add_task("building", total=None)

        def show(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=phase, completed=done, total=steps)

        build = BuildOptions(**options)
        if opened is None:
            asked = FileConfig(targets, product, shapes, together, output, build, timing_cache)
            result = build_from_file(source, asked, bar.console.print, show)
        elif wants_native(native, targets, product):
            recipe = BuildRecipe.of(opt_batches, max_batch, build)
            own = recipe if recipe != BuildRecipe() else None  # nothing said: as the release's own recipe has it
            here = NativeConfig(product, precisions, own, margin, timing_cache, build.log_level)
            result = build_native(opened, here, bar.console.print, show)
        else:
            config = EngineConfig(targets, product, opt_batches, max_batch, precisions, together, build, timing_cache)
            result = build_engines(opened, config, bar.console.print, show)
    if as_json:
        print_json(result)
    else:
        print_table(*engines_table(result))
    sys.exit(EXIT_CODE[result.get("verdict", "PASS")])


@click.command()
@click.argument("plan", type=PathArgument)
@click.option("--gpu", is_flag=True, help="Ask the engine inspector, on a GPU that the plan is for.")
@json_option
def inspect(plan: Path, gpu: bool, as_json: bool) -> None:
    """Tell what a plan (.engine) is: product, version, source, layers. Exit 1 if its sidecar tells of another."""
    from hwr_export.engine.inspection import inspect_plan
    from hwr_export.tables import inspection_notes, inspection_table

    with quiet_stdout():
        document = inspect_plan(plan, gpu)
    if as_json:
        print_json(document)
    else:
        print_table(*inspection_table(document))
        click.echo("\n".join(inspection_notes(document)))
    sys.exit(1 if document["problems"] else 0)


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
