"""Release -> evidence, and what it comes to: parity, bench, recommend, report."""

import sys
from pathlib import Path
from typing import Any

import click

from hwr_export.commands import DATA, PathArgument
from hwr_export.console import json_option, print_json, print_table, progress_bar, quiet_stdout, stderr_console


@click.command()
@click.argument("release", type=PathArgument)
@click.option("--data", default="mnist", help="Dataset whose test split is compared.")
@click.option(
    "--baseline", type=click.Choice(["eager", "goldens"]), default="eager", help="goldens: no torch, no dataset."
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    help="onnxruntime, openvino, tensorrt, tensorrt_rtx (repeatable). [default: all that run here]",
)
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
    """Compare ONNX files, and plans that run here, with the eager model: PASS (exit 0), FAIL (1) or UNDECIDED (3)."""
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


@click.command()
@click.argument("release", type=PathArgument)
@click.option("--batch", "batches", multiple=True, type=int, help="Batch size (repeatable). [default: 1, 32, 256]")
@click.option("--threads", multiple=True, type=int, help="Threads (repeatable). [default: 1]")
@click.option("--seconds", default=2.0, help="Time for one backend at one batch; at least 100 calls.")
@click.option("--backend", "backends", multiple=True, help="Beside eager (repeatable). [default: all that are here]")
@click.option("--starts", default=3, type=click.IntRange(0), help="Fresh processes that tell what loading costs.")
@click.option("--against", type=PathArgument, help="An earlier bench.json of this machine: exit 1 if any is SLOWER.")
@click.option("--tolerance", default=5.0, type=click.FloatRange(0, 100, min_open=True), help="Percent that is SAME.")
@DATA
@json_option
def bench(
    release: Path,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    backends: tuple[str, ...],
    starts: int,
    against: Path | None,
    tolerance: float,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Measure latency against the eager model, all backends interleaved in one run."""
    from hwr_export.bench import bench as run
    from hwr_export.compare import compare, load_bench
    from hwr_export.release import Release
    from hwr_export.subjects import BenchConfig
    from hwr_export.tables import bench_notes, bench_table, compare_table

    opened = Release.open(release)
    earlier = load_bench(against) if against else None
    limit = opened.spec.max_batch
    config = BenchConfig(
        batches=batches or tuple(b for b in BenchConfig.batches if b <= limit),
        threads=threads or (1,),
        seconds=seconds,
        backends=backends,
        starts=starts,
        data_root=data_root,
    )
    with quiet_stdout(), progress_bar() as bar:
        task = bar.add_task("measuring", total=None)
        result = run(opened, config, bar.console.print, lambda n, of: bar.update(task, completed=n, total=of))
    if earlier:
        result = result | {"comparison": compare(result, earlier, tolerance / 100)}
    if as_json:
        print_json(result)
    else:
        print_table(*bench_table(result))
        if earlier:
            print_table(*compare_table(result["comparison"]))
        for note in bench_notes(result):
            click.echo(note)
    sys.exit(1 if earlier and result["comparison"]["regression"] else 0)


@click.command()
@click.argument("release", type=PathArgument)
@click.option("--batch", "batches", multiple=True, type=int, help="Batch (repeatable). [default: 1, 2, 4 ... 256]")
@click.option("--threads", multiple=True, type=int, help="Threads (repeatable). [default: 1 to all]")
@click.option("--seconds", default=0.3, help="Time for one backend at one batch; at least 100 calls.")
@click.option("--backend", "backends", multiple=True, help="As bench takes them (repeatable). [default: all here]")
@DATA
@json_option
def profile(
    release: Path,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    backends: tuple[str, ...],
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Tell where the time goes: scaling over batch and threads, layers, and how near to what this machine can do."""
    import os

    from hwr_export.release import Release
    from hwr_export.subjects import BenchConfig
    from hwr_export.tables import layers_table, noise_notes, scaling_table

    opened = Release.open(release)
    limit = opened.spec.max_batch
    with quiet_stdout(), progress_bar() as bar:
        from hwr_export.roofline import profile as run

        config = BenchConfig(
            batches=batches or tuple(2**i for i in range(limit.bit_length())),
            threads=threads or tuple(range(1, len(os.sched_getaffinity(0)) + 1)),
            seconds=seconds,
            backends=backends,
            data_root=data_root,
        )
        task = bar.add_task("measuring", total=None)
        result = run(opened, config, bar.console.print, lambda n, of: bar.update(task, completed=n, total=of))
    if as_json:
        print_json(result)
        return
    print_table(*scaling_table(result))
    print_table(*layers_table(result))
    for note in noise_notes(result):
        click.echo(note)


@click.command()
@click.argument("release", type=PathArgument)
@click.option("--batch", type=click.IntRange(1), help="Images that come at once. [default: 1, or the best within]")
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads that bench gave each backend.")
@click.option("--target", type=click.Choice(["any", "cpu", "gpu"]), default="any", help="Backends to consider.")
@click.option("--max-latency-us", type=click.FloatRange(0, min_open=True), help="What 99 calls of 100 may take.")
@json_option
def recommend(
    release: Path, batch: int | None, threads: int, target: Any, max_latency_us: float | None, as_json: bool
) -> None:
    """Tell which file to ship to which backend: the fastest that passed parity (exit 1 if none), and why not others."""
    from hwr_export.recommend import recommend as run
    from hwr_export.release import Release
    from hwr_export.tables import recommend_note, recommend_table

    result = run(Release.open(release), batch, threads, target, max_latency_us)
    best = result["recommended"]
    if as_json:
        print_json(result)
    else:
        print_table(*recommend_table(result))
        click.echo(recommend_note(result))
    sys.exit(0 if best else 1)


@click.command()
@click.argument("release", type=PathArgument)
@click.option("-o", "--out", type=PathArgument, help="HTML file to write. [default: report.html in RELEASE]")
@json_option
def report(release: Path, out: Path | None, as_json: bool) -> None:
    """Show all evidence of a release as one HTML file that needs no network: verdict first."""
    from hwr_export.release import Release

    opened = Release.open(release)
    with quiet_stdout():
        from hwr_export.report import write_report

        result = write_report(opened, out)
    if as_json:
        print_json(result)
        return
    click.echo(f"{result['path']}: {result['verdict']}, {result['size_bytes']:,} bytes")
    for gap in result["missing"]:
        click.echo(f"Not in it: {gap['why']} Run `{gap['command']}`.")
