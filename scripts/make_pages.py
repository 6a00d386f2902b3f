"""Make pages to prove with: a form's sheet, filled with real held-out handwriting, scanned virtually; all seeded.

Writes OUT/page-*.png, OUT/form.yaml, OUT/truth.json (what stands in the fields), OUT/scan.json (where the sheet lies
on each page, and what was done to it) and OUT/made.json (what made them). Stopped, the same command goes on.
"""

import os
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.console import progress_bar, stderr_console  # noqa: E402
from hwr_export.errors import HwrError  # noqa: E402
from hwr_export.files import json_bytes, sha256_bytes, write_together  # noqa: E402
from hwr_export.scanner.form.definition import Form, dump_form, load_form  # noqa: E402
from scripts.pages import journal, work  # noqa: E402
from scripts.pages.hand import Hands, Part, identities, load_hands  # noqa: E402
from scripts.pages.page import needs_letters  # noqa: E402

PROOF = ROOT / "docs" / "examples" / "proof.yaml"
MADE, RECORDS = "made.json", "unfinished.jsonl"


def make_pages(
    out: Path,
    form: Form,
    hands: Hands,
    pages: int,
    seed: int,
    strength: float = 1.0,
    plain: bool = False,
    struck: float = 0.0,
    jobs: int = 1,
) -> int:
    """Make all pages that are not there yet; return how many those were.

    Raises:
        FormError: OUT holds something else, or no pages can be made of the form.
    """
    settings = {
        "schema": 1,
        "made_by": "python scripts/make_pages.py",
        "form": {"id": form.id, "version": form.version, "sha256": sha256_bytes(dump_form(form).encode())},
        "pages": pages,
        "seed": seed,
        "handwriting": hands.part,
        "glyphs": identities(hands),
        "strength": strength,
        "plain": plain,
        "struck": struck,
    }
    records = journal.begin(out, MADE, RECORDS, settings, {"form.yaml": dump_form(form).encode()})
    records = {number: record for number, record in records.items() if (out / record["name"]).exists()}
    missing = [number for number in range(1, pages + 1) if number not in records]
    arguments = (form, hands, seed, strength, plain, struck)
    with (out / RECORDS).open("a") as file, progress_bar(stderr_console()) as bar:
        task = bar.add_task("pages", total=pages, completed=pages - len(missing))
        made = work.in_processes(jobs, missing, work.begin_writing, (out, arguments), work.write_page)
        for number, record in zip(missing, made, strict=True):
            records[number] = record
            file.write(journal.line(number, record))
            file.flush()
            bar.advance(task)
    ordered = [records[number] for number in range(1, pages + 1)]
    write_together(
        {
            out / "truth.json": json_bytes({record["name"]: record["truth"] for record in ordered}),
            out / "scan.json": json_bytes({record["name"]: record["scan"] for record in ordered}),
            out / MADE: journal.finished(settings, True),
        }
    )
    (out / RECORDS).unlink()
    return len(missing)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--pages", type=click.IntRange(1, 99_999), required=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), required=True, help="Of all that is drawn.")
@click.option(
    "--handwriting",
    "part",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Whose: of the test parts, or of what the recipes hold out for validation. Never of what models learn from.",
)
@click.option(
    "--form", "form_path", type=click.Path(path_type=Path), default=PROOF, help="A form's definition; else the proof's."
)
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of all distortions.")
@click.option("--plain", is_flag=True, help="No distortions: pages lie straight, at 300 dpi.")
@click.option(
    "--struck",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of pages with a field struck out.",
)
@click.option("--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1, help="Processes; else one a core.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
def main(
    out: Path,
    pages: int,
    seed: int,
    part: Part,
    form_path: Path,
    strength: float,
    plain: bool,
    struck: float,
    jobs: int,
    data_root: Path | None,
) -> None:
    """Make pages of a form into OUT, a new or empty folder."""
    try:
        form = load_form(form_path)
        hands = load_hands(part, needs_letters(form), data_root)
        made = make_pages(out, form, hands, pages, seed, strength, plain, struck, jobs)
    except HwrError as err:
        click.echo(f"Error: {err}", err=True)
        sys.exit(err.exit_code)
    except KeyboardInterrupt:
        click.echo(f"Stopped; the same command goes on in {out}.", err=True)
        sys.exit(130)
    click.echo(f"made {made} pages in {out}" + (f", {pages - made} were there" if made < pages else ""))


if __name__ == "__main__":
    main()
