"""The command line of a scanner, `hwr-scan`: words -> one call -> a table or one JSON document."""

import click

import hwr_export
from hwr_export.commands import device, scan, spool
from hwr_export.console import Commands

COMMANDS = (
    scan.run,
    device.install,
    device.rollback,
    device.status,
    device.gc,
    spool.dead_letters,
    spool.send_again,
    spool.discard,
    spool.repair,
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(hwr_export.__version__, prog_name="hwr-scan")
def main() -> None:
    """Run a document scanner with releases that prove themselves before they read."""


for command in COMMANDS:
    main.add_command(command)
