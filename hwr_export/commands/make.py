"""Checkpoint -> release, and the files added to it: onnx, quantize, lint."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from hwr_export.commands import DATA, PathArgument
from hwr_export.console import json_option, print_json, print_table, quiet_stdout, stderr_console
from hwr_export.errors import UsageError


@click.command()
@click.argument("checkpoint", required=False, type=PathArgument)
@click.option("-o", "--out", required=True, type=PathArgument, help="Release directory to make or replace.")
@click.option("--module", help="Instead of CHECKPOINT: package.module:factory of your own network.")
@click.option("--weights", type=PathArgument, help="With --module: state dict (.safetensors, .pt, .pth).")
@click.option("--input-size", default="28x28", help="HEIGHTxWIDTH, for --module and .pt2.")
@click.option("--channels", default=1, help="Channels the network takes; grey is repeated.")
@click.option("--mean", default=0.0, help="Subtracted from pixel / 255.")
@click.option("--std", default=1.0, help="Divides what is left.")
@click.option("--labels", default="0123456789", help="Characters in class order, for --module and .pt2.")
@click.option("--max-batch", default=256, type=click.IntRange(2, 65536), help="Largest batch that the graph accepts.")
@click.option("--opset", default=20, help="ONNX opset, 18 to 26.")
@click.option(
    "--precision", default="fp32", type=click.Choice(["fp32", "fp16"]), help="fp16: a second file, in half precision."
)
@click.option("--samples", default="mnist", help="Dataset or folder of images to record goldens of.")
@click.option("--name", help="Name of the release; else that of its directory.")
@DATA
def onnx(
    checkpoint: Path | None,
    out: Path,
    module: str | None,
    weights: Path | None,
    input_size: str,
    channels: int,
    mean: float,
    std: float,
    labels: str,
    max_batch: int,
    opset: int,
    precision: str,
    samples: str,
    name: str | None,
    data_root: Path | None,
) -> None:
    """Export CHECKPOINT (a run directory, checkpoint.json or .pt2 program) to ONNX and begin a release."""
    preprocessing = _preprocessing(input_size, channels, mean, std)
    console = stderr_console()
    name = name or out.resolve().name
    with quiet_stdout():
        from hwr_export.export import ExportConfig, checkpoint_from_factory, export_onnx, load_source

        if (module is None) == (checkpoint is None) or (module is None) != (weights is None):
            raise UsageError("give either CHECKPOINT, or --module together with --weights")
        if module and weights:
            source = checkpoint_from_factory(module, weights, labels, preprocessing, name)
        else:
            assert checkpoint is not None
            source = load_source(checkpoint, labels, preprocessing, name)
        config = ExportConfig(name, max_batch, opset, samples, data_root, half=precision == "fp16")
        release = export_onnx(source, out, config, console.print)
    rows = [(f.path, f"{f.size_bytes:,}", f.sha256[:16]) for f in release.manifest.files]
    print_table(("file", "bytes", "sha256"), rows)


@click.command()
@click.argument("release", type=PathArgument)
@click.option(
    "--budget", type=click.FloatRange(0, 100), help="Points of accuracy that may be lost. [default: no limit]"
)
@click.option("--observer", type=click.Choice(["min-max", "histogram", "percentile"]), help="Else the best of all.")
@click.option("--images", default=512, help="Training images to calibrate with.")
@click.option("--data", help="Dataset, folder or CSV to calibrate with. [default: what was trained on]")
@click.option("--plot", type=PathArgument, help="Write a picture of what each layer costs, a .png file.")
@DATA
@json_option
def quantize(
    release: Path,
    budget: float | None,
    observer: Any,
    images: int,
    data: str | None,
    plot: Path | None,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Add int8 files to a release: one for TensorRT and OpenVINO, one for ONNX Runtime on a CPU."""
    from hwr_export.release import Release

    opened = Release.open(release)
    with quiet_stdout():
        from hwr_export.quantize import QuantizeConfig
        from hwr_export.quantize import quantize as run

        config = QuantizeConfig(budget, observer, data, data_root, images, plot=plot)
        result = run(opened, config, stderr_console().print)
    if as_json:
        print_json(result)
        return
    rows = [
        (f["path"], f"{f['size_bytes']:,}", f"{100 * f['ratio_to_fp32']:.1f} %", ", ".join(f["float_layers"]) or "none")
        for f in result["files"]
    ]
    print_table(("file", "bytes", "of fp32", "layers in float"), rows)


@click.command()
@click.argument("model", type=PathArgument)
@json_option
def lint(model: Path, as_json: bool) -> None:
    """Say what TensorRT will refuse in a Q/DQ ONNX file, anybody's: exit 0 if nothing, 1 if anything."""
    from hwr_export.qdq_lint import lint_file

    findings = lint_file(model)
    if as_json:
        print_json({"schema": 1, "file": str(model), "ok": not findings, "findings": [vars(f) for f in findings]})
    else:
        for finding in findings:
            click.echo(f"{finding.node or model}: {finding.sentence}")
        click.echo(f"{len(findings)} thing(s) that TensorRT will refuse." if findings else "Nothing to refuse.")
    sys.exit(1 if findings else 0)


def _preprocessing(input_size: str, channels: int, mean: float, std: float) -> Any:
    from pydantic import ValidationError

    from hwr_export.spec import Preprocessing

    match = re.fullmatch(r"(\d+)x(\d+)", input_size)
    if match is None:
        raise UsageError(f"--input-size takes HEIGHTxWIDTH such as 28x28, got {input_size!r}")
    try:
        return Preprocessing(height=int(match[1]), width=int(match[2]), channels=channels, mean=mean, std=std)
    except ValidationError as err:
        first = err.errors()[0]
        raise UsageError(f"preprocessing cannot have {first['loc'][0]} {first['input']}: {first['msg']}") from err
