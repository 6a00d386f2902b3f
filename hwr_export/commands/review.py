"""What a release left in doubt -> what a person says it is: review."""

from pathlib import Path

import click

from hwr_export.commands import PathArgument
from hwr_export.console import stderr_console
from hwr_export.errors import UsageError


@click.command()
@click.argument("results", type=PathArgument)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option("--two-pass", is_flag=True, help="From now on two people look at each field; a third look settles.")
@click.option("--labelled", type=PathArgument, help="Save settled characters in this folder, for `train renew`.")
@click.option("--no-browser", is_flag=True, help="Print the link only.")
@click.option("--export", "out", type=PathArgument, help="Write the values to FILE.csv or FILE.json, and end.")
def review(results: Path, port: int, two_pass: bool, labelled: Path | None, no_browser: bool, out: Path | None) -> None:
    """Lay the referred fields of RESULTS before a person, on a page that this machine alone can open."""
    if out is None:
        from hwr_export.scanner.review.serve import review as serve

        serve(results, stderr_console(), port, two_pass, labelled, not no_browser)
        return
    if port or two_pass or labelled or no_browser:
        raise UsageError("--export writes the values and ends: leave out the options of the page")
    from hwr_export.scanner.review.export import export
    from hwr_export.scanner.review.results_folder import Folder
    from hwr_export.scanner.review.store import read_ledger

    counts = export(Folder(results), read_ledger(results), out)
    decided = {"model": "accepted", "person": "settled by people", "open": "open", "refused": "pages refused"}
    told = ", ".join(f"{counts.get(who, 0):,} {words}" for who, words in decided.items())
    click.echo(f"{out}: {told}")
