"""Archive -> the device's slots -> what is in them: install, rollback, status, gc of `hwr-scan`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hwr_export.commands import PathArgument
from hwr_export.commands.scan import print_service
from hwr_export.console import json_option, print_json, print_table, quiet_stdout, stderr_console

F = TypeVar("F", bound=Callable[..., Any])


def root_option(command: F) -> F:
    """Add `--root`."""
    return click.option(
        "--root", type=PathArgument, default="/var/lib/hwr-scan", help="Directory of this scanner's releases."
    )(command)


@click.command()
@click.argument("archive", type=PathArgument)
@root_option
@click.option(
    "--target", type=click.Choice(["cpu", "native"]), help="native: build for the GPU here. [default: as now]"
)
@click.option("--precision", help="fp32, fp16, int8, int8-cpu. [default: that of now, else fp32]")
@click.option("--trusted", type=PathArgument, help="Folder of public keys and certificates. [default: ROOT/trusted]")
@click.option("--signature", type=PathArgument, help="[default: ARCHIVE.sig]")
@click.option("--allow-unsigned", is_flag=True, help="Install what nobody has signed.")
@click.option("--allow-downgrade", is_flag=True, help="Install an older version than the active one.")
@json_option
def install(archive: Path, root: Path, as_json: bool, **options: Any) -> None:
    """Verify ARCHIVE, put it into the free slot, and make it the release of the next start once it passes here.

    What fails, or is cut off at any moment, leaves the device as it was.
    """
    from hwr_export.device.install import InstallConfig
    from hwr_export.device.install import install as install_archive

    say = stderr_console().print
    with quiet_stdout():
        result = install_archive(archive, root, InstallConfig(**options), say)
    if as_json:
        print_json(result)
        return
    title = f"{result['release']['name']} {result['release']['version']}"
    if result["result"] == "already active":
        click.echo(f"{title} is active already, in slot {result['slot']}; nothing was changed.")
    else:
        click.echo(f"{title} is in slot {result['slot']}: the service reads with it from its next start on.")


@click.command()
@root_option
@json_option
def rollback(root: Path, as_json: bool) -> None:
    """Go back to the release before, once it passes its self-test; from the service's next start on."""
    from hwr_export.device.upkeep import rollback as roll_back

    with quiet_stdout():
        result = roll_back(root)
    if as_json:
        print_json(result)
        return
    title = f"{result['release']['name']} {result['release']['version']}"
    click.echo(f"{title} in slot {result['slot']} is active again, from the service's next start on.")


@click.command()
@root_option
@click.option("--config", type=PathArgument, help="Tell of the service that runs by this scan.toml, too.")
@json_option
def status(root: Path, config: Path | None, as_json: bool) -> None:
    """Tell what is in the slots and whether it is whole: exit 1 where the active one is not."""
    from hwr_export.device.upkeep import status as status_of
    from hwr_export.tables import slots_table

    with quiet_stdout():
        document = status_of(root)
    if config is not None:
        from hwr_export.scanner.status import service_status

        document["service"] = service_status(config)
        document["ok"] = document["ok"] and document["service"]["ok"]
    if as_json:
        print_json(document)
    else:
        print_table(*slots_table(document))
        if config is not None:
            print_service(document["service"])
        for problem in document["problems"]:
            click.echo(f"Problem: {problem}")
        if document["left_overs"]:
            click.echo("Something was cut off: `hwr-scan gc` removes what it left.")
    sys.exit(0 if document["ok"] else 1)


@click.command()
@root_option
@json_option
def gc(root: Path, as_json: bool) -> None:
    """Remove what cut-off installs left, and the inactive release where it was given up or is damaged."""
    from hwr_export.device.upkeep import gc as collect

    result = collect(root)
    if as_json:
        print_json(result)
        return
    for name in result["removed"]:
        click.echo(f"removed {name}")
    click.echo(f"{result['freed_bytes']:,} bytes are free again.")
