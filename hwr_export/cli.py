"""Words -> one stage call -> a table or one JSON document. Stages are imported inside commands: `--help` is instant."""

import re
import sys
from pathlib import Path
from typing import Any

import click

import hwr_export
from hwr_export.console import (
    Commands,
    json_option,
    print_json,
    print_table,
    progress_bar,
    quiet_stdout,
    stderr_console,
)
from hwr_export.errors import UsageError

PathArgument = click.Path(path_type=Path)
DATA = click.option("--data-root", type=PathArgument, help="Where datasets are; else HWR_DATA, else the user cache.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(hwr_export.__version__, prog_name="hwr-export")
def main() -> None:
    """Take a handwriting recogniser from PyTorch to an embedded scanner, with proof at every step."""


@main.command()
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


@main.command()
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


@main.command()
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


@main.command()
@click.argument("release", type=PathArgument)
@click.option("--target", "targets", multiple=True, help="As `targets` lists them (repeatable). [default: four]")
@click.option("--product", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Else chosen by target.")
@click.option("--opt-batch", default=1, help="Batch to optimise for.")
@click.option("--precision", "precisions", multiple=True, help="fp32, fp16, int8 (repeatable). [default: all]")
@click.option("--together", is_flag=True, help="One plan for all targets instead of one for each.")
@json_option
def trt(
    release: Path,
    targets: tuple[str, ...],
    product: str | None,
    opt_batch: int,
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

        config = EngineConfig(targets, product, opt_batch, precisions, together)
        result = build_engines(opened, config, bar.console.print, show)
    if as_json:
        print_json(result)
        return
    print_table(*engines_table(result))


@main.command()
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


@main.command()
@click.argument("release", type=PathArgument)
@click.option("--data", default="mnist", help="Dataset whose test split is compared.")
@click.option(
    "--baseline", type=click.Choice(["eager", "goldens"]), default="eager", help="goldens: no torch, no dataset."
)
@click.option("--backend", "backends", multiple=True, help="onnxruntime, openvino (repeatable). [default: installed]")
@click.option(
    "--margin", default=0.1, type=click.FloatRange(0, 100, min_open=True), help="Accuracy in points that may go."
)
@click.option("--corrupted", default=2000, type=click.IntRange(1), help="Test images seen under 21 scanner conditions.")
@click.option("--bisect", is_flag=True, help="Name the first layer where a failing file parts.")
@DATA
@json_option
def parity(
    release: Path,
    data: str,
    baseline: Any,
    backends: tuple[str, ...],
    margin: float,
    corrupted: int,
    bisect: bool,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Compare the ONNX files with the eager model: PASS (exit 0), FAIL (1) or UNDECIDED (3)."""
    from hwr_export.parity import ParityConfig
    from hwr_export.parity import parity as run
    from hwr_export.release import Release
    from hwr_export.tables import parity_notes, parity_table
    from hwr_export.verdict import EXIT_CODE

    opened = Release.open(release)
    with quiet_stdout():
        config = ParityConfig(data, data_root, baseline, backends, margin, corrupted, bisect)
        result = run(opened, config, stderr_console().print)
    if as_json:
        print_json(result)
    else:
        print_table(*parity_table(result))
        for line in parity_notes(result):
            click.echo(line)
        click.echo(f"Verdict: {result['verdict']}")
    sys.exit(EXIT_CODE[result["verdict"]])


@main.command()
@click.argument("release", type=PathArgument)
@click.option("--batch", "batches", multiple=True, type=int, help="Batch size (repeatable). [default: 1, 32, 256]")
@click.option("--threads", multiple=True, type=int, help="Threads (repeatable). [default: 1]")
@click.option("--seconds", default=2.0, help="Time for one backend at one batch; at least 100 calls.")
@click.option("--backend", "backends", multiple=True, help="onnxruntime, openvino (repeatable). [default: installed]")
@DATA
@json_option
def bench(
    release: Path,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    backends: tuple[str, ...],
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Measure latency against the eager model, all backends interleaved in one run."""
    from hwr_export.bench import BenchConfig
    from hwr_export.bench import bench as run
    from hwr_export.release import Release
    from hwr_export.tables import bench_table

    opened = Release.open(release)
    limit = opened.spec.max_batch
    config = BenchConfig(
        batches=batches or tuple(b for b in BenchConfig.batches if b <= limit),
        threads=threads or (1,),
        seconds=seconds,
        backends=backends,
        data_root=data_root,
    )
    with quiet_stdout(), progress_bar() as bar:
        task = bar.add_task("measuring", total=None)
        result = run(opened, config, bar.console.print, lambda n, of: bar.update(task, completed=n, total=of))
    if as_json:
        print_json(result)
        return
    for missing in result["absent"]:
        click.echo(f"{missing['backend']} not measured: {missing['reason']}")
    print_table(*bench_table(result))


@main.command()
@click.argument("release", type=PathArgument)
@click.option("--batch", default=1, type=click.IntRange(1), help="Images that come at once.")
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads that bench gave each backend.")
@json_option
def recommend(release: Path, batch: int, threads: int, as_json: bool) -> None:
    """Tell which file to ship to which backend: the fastest that passed parity, and why not the others."""
    from hwr_export.recommend import recommend as run
    from hwr_export.release import Release
    from hwr_export.tables import recommend_table

    result = run(Release.open(release), batch, threads)
    if as_json:
        print_json(result)
        return
    print_table(*recommend_table(result))
    best = result["recommended"]
    click.echo(f"Ship {best['path']} on {best['backend']}." if best else "Nothing passed parity: ship nothing.")


@main.command()
@click.argument("images", nargs=-1, required=True, type=PathArgument)
@click.option("--release", required=True, type=PathArgument, help="Release directory.")
@json_option
def read(images: tuple[Path, ...], release: Path, as_json: bool) -> None:
    """Read images of single characters: dark on light or light on dark, any size."""
    from hwr_export.reader import read_images
    from hwr_export.release import Release
    from hwr_export.tables import read_table

    with quiet_stdout():
        result = read_images(Release.open(release), images)
    if as_json:
        print_json(result)
        return
    print_table(*read_table(result))


@main.command()
@click.argument("release", required=False, type=PathArgument)
@click.option("--target", "targets", multiple=True, help="With RELEASE: would its files build for this? (repeatable)")
@json_option
def doctor(release: Path | None, targets: tuple[str, ...], as_json: bool) -> None:
    """Tell what runs here and what to install, or whether RELEASE would build for a --target: exit 1 if not."""
    if bool(targets) != (release is not None):
        raise UsageError("give RELEASE together with --target NAME, or neither")
    from hwr_export.tables import doctor_notes, doctor_tables, preflight_table

    if release is not None:
        from hwr_export.engine.preflight import preflight_release
        from hwr_export.engine.targets import find_targets
        from hwr_export.release import Release

        result = preflight_release(Release.open(release), find_targets(targets))
        tables, notes = [preflight_table(result)], list[str]()
    else:
        from hwr_export.doctor import examine

        with quiet_stdout():
            result = examine()
        tables, notes = list(doctor_tables(result)), list(doctor_notes(result))
    if as_json:
        print_json(result)
    else:
        for table in tables:
            print_table(*table)
        for note in notes:
            click.echo(note)
    sys.exit(0 if result["ok"] else 1)


@main.command()
@click.argument("release", type=PathArgument)
@json_option
def show(release: Path, as_json: bool) -> None:
    """List a release's files and check their hashes: exit 0 if all hold, 1 if not."""
    from hwr_export.release import Release

    opened = Release.open(release)
    statuses = opened.verify()
    ok = all(s.ok for s in statuses)
    if as_json:
        print_json(
            {
                "schema": 1,
                "release": {"name": opened.manifest.name, "manifest_sha256": opened.manifest_sha256},
                "model": opened.spec.model_dump(mode="json"),
                "files": [{"path": s.path, "sha256": s.sha256, "ok": s.ok, "problem": s.problem} for s in statuses],
                "ok": ok,
            }
        )
    else:
        sizes = {f.path: f"{f.size_bytes:,}" for f in opened.manifest.files}
        rows = [(s.path, sizes[s.path], s.sha256[:16], s.problem or "ok") for s in statuses]
        print_table(("file", "bytes", "sha256", "state"), rows, title=f"{opened.manifest.name}: {opened.spec.labels}")
        click.echo("Every hash holds." if ok else "The release is not what its manifest says; export it again.")
    sys.exit(0 if ok else 1)


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
