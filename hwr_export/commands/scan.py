"""`scan.toml` -> the service itself: run of `hwr-scan`."""

from pathlib import Path

import click

from hwr_export.commands import PathArgument


@click.command()
@click.option("--config", type=PathArgument, default="/etc/hwr-scan/scan.toml", help="What to do; docs/scan-config.md.")
def run(config: Path) -> None:
    """Read pages until told to stop: SIGTERM ends in order, SIGHUP takes the configuration anew."""
    from hwr_export.scanner.service import run_service

    run_service(config)
