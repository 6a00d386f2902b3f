"""Release -> characters read, what is in it, what runs here: read, show, doctor."""

import sys
from pathlib import Path

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, quiet_stdout
from hwr_export.errors import UsageError


@click.command()
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


@click.command()
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


@click.command()
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
