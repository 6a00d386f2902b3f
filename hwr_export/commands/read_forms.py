"""Page files, a form and releases -> fields, each accepted or left to a person: read-form."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_table, progress_bar, quiet_stdout
from hwr_export.errors import UsageError

if TYPE_CHECKING:
    from hwr_export.scanner.form.batch import Counts, Engine
    from hwr_export.scanner.form.units import FormReaderOpener

TOLD_EVERY_S = 30.0  # where stderr is no terminal


@click.command()
@click.argument("pages", nargs=-1, required=True, type=PathArgument)
@click.option("--form", "definition", required=True, type=PathArgument, help="The form's definition.")
@click.option(
    "--release", "releases", required=True, multiple=True, type=PathArgument,
    help="Release directory. (repeatable: a field is read by all that know its characters)",
)  # fmt: skip
@click.option(
    "-o", "--out", type=PathArgument, help="Folder of results; the same command again goes on where it stopped."
)
@json_option
@click.option("--csv", "table", type=PathArgument, help="Write a CSV too, a row a page.")
@click.option(
    "--annotate", type=PathArgument, help="Draw what is decided on the pages that are read, into this folder."
)
@click.option("--jobs", type=click.IntRange(1, 1024), help="Pages read at once.  [default: processors]")
@click.option("--threads", type=click.IntRange(1, 64), default=1, help="Threads of the model, for each of them.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Processes of this machine, or a Ray cluster.",
)
def read_form(
    pages: tuple[Path, ...],
    definition: Path,
    releases: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    table: Path | None,
    annotate: Path | None,
    jobs: int | None,
    threads: int,
    engine: str,
) -> None:
    """Read PAGES of a form: PNG, JPEG, TIFF and PDF files, and folders of them. Exit 1 if some were refused.

    A field is accepted, or referred to a person with the reason. A page that is not the form is refused.
    """
    with quiet_stdout():
        from hwr_export.files import atomic_file
        from hwr_export.release import Release
        from hwr_export.scanner.form import listing
        from hwr_export.scanner.form.batch import read_pages
        from hwr_export.scanner.form.definition import load_form
        from hwr_export.scanner.form.journal import open_journal
        from hwr_export.scanner.form.units import FormReaderOpener, find_files

        form = load_form(definition)
        opened = [Release.open(path) for path in releases]
        beside = [path for path in (out, annotate) if path is not None]
        files = find_files(pages, beside)
        opener = FormReaderOpener(form, releases, threads)
    with _folder(out) as folder, open_journal(folder, form, opened, durable=out is not None) as journal:
        with quiet_stdout(), _told(pages, beside) as tell, _engine(engine, opener, jobs, annotate) as read:
            readings = read_pages(files, journal, read, tell)
        counts = readings.counts
        if not counts.pages:
            raise UsageError(f"no page file (PNG, JPEG, TIFF, PDF) is in {', '.join(map(str, pages))}")
        if table is not None:
            with atomic_file(table) as file:
                listing.write_csv(file, [field.name for field in form.fields], readings.documents())
        if as_json:
            names = ", ".join(release.manifest.name for release in opened)
            for text in listing.json_text(form.id, names, readings.documents()):
                click.echo(text, nl=False)
        else:
            for title, shown in listing.tables(counts.pages, readings.documents):
                print_table(*shown, title=title)
            click.echo(listing.summary(counts))
    sys.exit(1 if counts.refused else 0)


@contextmanager
def _engine(name: str, opener: "FormReaderOpener", jobs: int | None, annotate: Path | None) -> Iterator["Engine"]:
    if name == "ray":
        from hwr_export.scanner.form.ray_engine import ray_engine

        with ray_engine(opener, jobs, annotated=annotate) as read:
            yield read
        return
    from hwr_export.scanner.form.pool import local_engine

    with local_engine(opener, jobs or len(os.sched_getaffinity(0)), annotated=annotate) as pool:
        yield pool.read


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder of results, or one for the time of the command."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="hwr-read-form-") as folder:
            yield Path(folder)
        return
    try:
        yield out
    except KeyboardInterrupt:
        click.echo(f"Stopped: what was read is in {out}; the same command again goes on from there.", err=True)
        sys.exit(130)


@contextmanager
def _told(pages: Sequence[Path], beside: Sequence[Path]) -> Iterator[Callable[["Counts"], None]]:
    """Yield what shows how far a run has come: a bar on a terminal, else a line now and then."""
    from hwr_export.scanner.form.listing import summary
    from hwr_export.scanner.form.units import find_files

    last_s = time.monotonic()

    def line(counts: "Counts") -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= TOLD_EVERY_S:
            last_s = time.monotonic()
            click.echo(summary(counts), err=True)

    with progress_bar() as progress:
        if progress.disable:
            yield line
            return
        files = sum(1 for _ in find_files(pages, beside))
        task = progress.add_task("pages", total=files)

        def bar(counts: "Counts") -> None:
            refused = f", {counts.refused:,} refused" if counts.refused else ""
            # Of files that are still to come, each is a page until it is opened.
            total = max(files, counts.files) - counts.files + counts.pages
            progress.update(task, description=f"pages{refused}", completed=counts.pages, total=total)

        yield bar
