"""What a command says and how it ends: one report on stdout, everything else on stderr, errors as one paragraph.

Libraries (and the C++ under them) print to stdout as they please; while a stage runs, file descriptor 1 points at
stderr, so that stdout carries the report alone and `--json` is exactly one document.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwr_export.errors import HwrError
from hwr_export.files import json_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])

# Packages that commands import and the base install does not bring -> the extra that does.
EXTRA_OF = {
    "torch": "export",
    "torchvision": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "torchao": "export",
    "yaml": "forms",
    "captum": "train",
    "matplotlib": "train",
    "optuna": "train",
    "tensorboard": "train",
    "jinja2": "report",
    "inotify_simple": "scan",
    "systemd_watchdog": "scan",
    "tomli": "scan",
    "markupsafe": "report",
    "vl_convert": "report",
    "model_signing": "sign",
    "OpenSSL": "sign",
    "cryptography": "scan",
    "cv2": "forms",
    "pypdfium2": "forms",
    "reportlab": "forms",
    "ray": "ray",
    "starlette": "review",
    "uvicorn": "review",
    "anyio": "review",
}


class Commands(click.Group):
    """A group whose commands turn expected failures into one paragraph and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HwrError as err:
            click.echo(f"Error: {err}", err=True)
            sys.exit(err.exit_code)
        except ModuleNotFoundError as err:
            if err.name not in EXTRA_OF:
                raise
            click.echo(f"Error: this needs {err.name}: pip install 'hwr-export[{EXTRA_OF[err.name]}]'", err=True)
            sys.exit(2)
        except OSError as err:
            if isinstance(err, BrokenPipeError):
                raise
            # A full disk, a missing permission: the user's world, not our bug.
            where = f"{err.filename}: " if err.filename else ""
            click.echo(f"Error: {where}{err.strerror or err}; nothing was changed", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("Stopped; what was there before is unchanged.", err=True)
            sys.exit(130)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")(command)


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send everything that writes to stdout, C++ included, to stderr for the time of a stage."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json_bytes(document).decode(), nl=False)


class Struck(str):
    """A cell of a table that is shown struck through."""

    __slots__ = ()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print a table on stdout: text left, numbers right, never cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 160
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[i]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(cell, console.is_terminal) for cell in row))
    console.print(table)


def _shown(cell: Any, styled: bool) -> "Text":
    from rich.text import Text

    if not isinstance(cell, Struck):
        return Text(str(cell))
    return Text(cell, style="strike") if styled else Text(f"~{cell}~")


def stderr_console() -> "Console":
    """Return the console that progress and remarks go to."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


def progress_bar(console: "Console | None" = None, counted: bool = True) -> "Progress":
    """Return a progress display on stderr, of things counted or in per cent; silent where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = console or stderr_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _is_number(cell: Any) -> bool:
    text = str(cell).strip().rstrip("x%")
    try:
        float(text.replace(",", "") or "x")
    except ValueError:
        return text in {"", "-"}
    return True
