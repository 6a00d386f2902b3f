"""`scan.toml` -> the service itself, and how it is: run of `hwr-scan`, and what its status says of the service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hwr_export.commands import PathArgument
from hwr_export.console import print_table

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """Add `--config`."""
    return click.option(
        "--config", type=PathArgument, default="/etc/hwr-scan/scan.toml", help="What the service does."
    )(command)


@click.command()
@config_option
def run(config: Path) -> None:
    """Read pages until told to stop: SIGTERM ends in order, SIGHUP takes the configuration anew."""
    from hwr_export.scanner.service import run_service

    run_service(config)


def print_service(status: dict[str, Any]) -> None:
    """Print what `service_status` found, for people."""
    from hwr_export.scanner.status import sources_table, spool_table

    print_table(*sources_table(status))
    print_table(*spool_table(status))
    for problem in status["problems"]:
        click.echo(f"Problem: {problem}")
