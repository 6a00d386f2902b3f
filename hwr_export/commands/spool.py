"""A scanner's spool -> what a person can do about it: dead-letters, send-again, discard, repair of `hwr-scan`."""

import os
import pwd
from pathlib import Path

import click

from hwr_export.commands.scan import config_option
from hwr_export.console import json_option, print_json, print_table
from hwr_export.errors import UsageError

PAGE = click.option("--page", help="Of this page alone. [default: all of the sink]")


@click.command("dead-letters")
@config_option
@json_option
def dead_letters(config: Path, as_json: bool) -> None:
    """List the results that a sink refused: the page, why, and no value that was read."""
    from dataclasses import asdict

    from hwr_export.scanner.config import load_config
    from hwr_export.scanner.visit import Visit

    with Visit(load_config(config).spool.directory) as visit:
        letters = visit.outbox.dead_letters()
    if as_json:
        print_json({"schema": 1, "dead_letters": [asdict(letter) for letter in letters]})
        return
    rows = [(x.sink, x.page_id, x.source, x.received_at, x.attempts, x.error) for x in letters]
    print_table(("sink", "page", "source", "received", "attempts", "why"), rows)


@click.command("send-again")
@click.argument("sink")
@PAGE
@config_option
def send_again(sink: str, page: str | None, config: Path) -> None:
    """Give a SINK its dead letters again, under the same ids; a running service does so within seconds."""
    from hwr_export.scanner.visit import Visit

    with Visit(_spool(config, sink)) as visit:
        count = visit.outbox.send_again(sink, page)
    click.echo(_counted(count, sink, page, "is sent again", "are sent again"))


@click.command()
@click.argument("sink")
@PAGE
@click.option("--pending", is_flag=True, help="Also what it has still to get, as of a sink that is gone for good.")
@click.option("--yes", is_flag=True, help="Do it: what is discarded is gone for this sink.")
@config_option
def discard(sink: str, page: str | None, pending: bool, yes: bool, config: Path) -> None:
    """Give up a SINK's dead letters; the results are gone where no other sink waits for them."""
    from hwr_export.scanner.visit import Visit

    directory = _spool(config, sink)
    if not yes:
        raise UsageError("what is discarded is gone for this sink; `hwr-scan dead-letters` lists it; then give --yes")
    with Visit(directory) as visit:
        count = visit.outbox.discard(sink, page, pending=pending)
    click.echo(_counted(count, sink, page, "was discarded", "were discarded"))


@click.command()
@config_option
@json_option
def repair(config: Path, as_json: bool) -> None:
    """Build a damaged spool anew from what can be read of it; the service must not run."""
    from hwr_export.scanner.config import load_config
    from hwr_export.scanner.repair import repair as build_anew

    found = load_config(config)
    _as_its_owner(found.spool.directory)
    done = build_anew(found.spool.directory, tuple(sink.name for sink in found.sinks))
    if as_json:
        print_json({"pages": done.pages, "adopted": done.adopted, "owed": done.owed, "kept": str(done.kept)})
        return
    click.echo(
        f"{done.pages} pages are in the spool again; {done.adopted} images are read once more, {done.owed} results are "
        f"delivered once more, under their ids. The damaged database is in {done.kept}: it may hold read values, "
        "delete it when you need it no more."
    )


def _spool(config: Path, sink: str) -> Path:
    """Return the spool's directory; a sink that neither the configuration nor the spool knows is refused."""
    from hwr_export.scanner.config import load_config
    from hwr_export.scanner.visit import Visit

    found = load_config(config)
    with Visit(found.spool.directory) as visit:
        known = sorted(visit.outbox.counts(tuple(each.name for each in found.sinks)))
    if sink not in known:
        raise UsageError(f"there is no sink {sink!r}; the spool knows {', '.join(known)}")
    return found.spool.directory


def _as_its_owner(directory: Path) -> None:
    """Refuse what would leave files in the spool that the service cannot open."""
    try:
        owner = directory.stat().st_uid
    except OSError as err:
        raise UsageError(f"{directory}: there is no spool ({err.strerror})") from err
    if owner != os.geteuid():
        name = pwd.getpwuid(owner).pw_name
        raise UsageError(f"{directory} belongs to {name}: sudo -u {name} hwr-scan repair")


def _counted(count: int, sink: str, page: str | None, one: str, many: str) -> str:
    if not count:
        raise UsageError(f"{sink} has no dead letter" + (f" of the page {page}" if page else ""))
    return f"{count} result for {sink} {one}." if count == 1 else f"{count} results for {sink} {many}."
