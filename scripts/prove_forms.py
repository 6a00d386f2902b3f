"""Prove that forms are read: make pages, read them, and count what was accepted, what of that was wrong, and why.

    python scripts/prove_forms.py read RESULTS --pages 2000 --seed 8 --release exported/digits
    python scripts/prove_forms.py judge RESULTS     -> docs/figures/forms.json, forms.png
    python scripts/prove_forms.py boxes --pages 200 --seed 9 --release exported/digits  -> docs/figures/form-boxes.json

RESULTS is a folder as `hwr-export read-form -o` writes it, with the truth beside: `form calibrate` takes it. Pages are
made and read in one go, and no image is kept. Stopped, the same command goes on.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.console import progress_bar, stderr_console  # noqa: E402
from hwr_export.errors import HwrError, UsageError  # noqa: E402
from hwr_export.files import json_bytes, sha256_bytes, write_atomic, write_together  # noqa: E402
from hwr_export.machine import machine_facts  # noqa: E402
from hwr_export.release import Release  # noqa: E402
from hwr_export.scanner.form.acceptance import load_acceptance  # noqa: E402
from hwr_export.scanner.form.definition import Form, dump_form, load_form  # noqa: E402
from scripts.pages import boxes, journal, reading, work  # noqa: E402
from scripts.pages.hand import Hands, Part, identities, load_hands  # noqa: E402
from scripts.pages.judge import judge  # noqa: E402
from scripts.pages.page import needs_letters  # noqa: E402
from scripts.pages.picture import mistaken, picture  # noqa: E402

PROOF = ROOT / "docs" / "examples" / "proof.yaml"
FIGURES = ROOT / "docs" / "figures"
RUN, RESULTS, TRUTH = "run.json", "results.jsonl", "truth.json"


def read_pages(
    out: Path,
    form: Form,
    hands: Hands,
    releases: Sequence[Path],
    pages: int,
    seed: int,
    strength: float = 1.0,
    struck: float = 0.0,
    jobs: int = 1,
    opens: reading.Opens = reading.open_reader,
    registers: reading.Registers = reading.register_page,
) -> int:
    """Make and read all pages that were not read yet; return how many those were.

    Raises:
        FormError: OUT holds something else, or no pages can be made of the form.
        ReleaseError: a release cannot be read.
    """
    form_yaml = dump_form(form).encode()
    settings = {
        "schema": 1,
        "made_by": "python scripts/prove_forms.py read",
        "form": {"id": form.id, "version": form.version, "sha256": sha256_bytes(form_yaml)},
        "releases": [_described(Release.open(path)) for path in releases],
        "pages": pages,
        "seed": seed,
        "handwriting": hands.part,
        "glyphs": identities(hands),
        "strength": strength,
        "struck": struck,
    }
    records = journal.begin(out, RUN, RESULTS, settings, {"form.yaml": form_yaml})
    missing = [number for number in range(1, pages + 1) if number not in records]
    arguments = ((form, hands, seed, strength, False, struck), tuple(releases), opens, registers)
    with (out / RESULTS).open("a") as file, progress_bar(stderr_console()) as bar:
        task = bar.add_task("pages", total=pages, completed=pages - len(missing))
        made = work.in_processes(jobs, missing, reading.begin_reading, arguments, reading.read_page)
        for number, record in zip(missing, made, strict=True):
            records[number] = record
            file.write(journal.line(number, record))
            file.flush()
            bar.advance(task)
    truth = {records[number]["path"]: records[number]["truth"] for number in range(1, pages + 1)}
    write_together({out / TRUTH: json_bytes(truth), out / RUN: journal.finished(settings, True)})
    return len(missing)


def judge_pages(results: Path) -> dict[str, Any]:
    """Return the document about a folder of pages that `read_pages` finished.

    Raises:
        UsageError: it is no such folder, or not finished.
    """
    try:
        settings = json.loads((results / RUN).read_bytes())
        records = [json.loads(line) for line in (results / RESULTS).read_bytes().splitlines()]
    except (OSError, ValueError) as err:
        raise UsageError(f"{results} is no folder that `prove_forms.py read` has filled: {err}") from err
    if settings.pop("finished", None) is not True or any("scan" not in record for record in records):
        raise UsageError(f"{results} is not finished; repeat the command that fills it")
    records.sort(key=lambda record: record["number"])
    commands = {"made_by": f"{settings.pop('made_by')}, then python scripts/prove_forms.py judge"}
    return settings | commands | {"machine": machine_facts()["cpu"]} | judge(load_form(results / "form.yaml"), records)


def compare_boxes(
    form: Form,
    hands: Hands,
    releases: Sequence[Path],
    pages: int,
    seed: int,
    strength: float = 1.0,
    jobs: int = 1,
    finds: boxes.Finds = boxes.find_page_cells,
) -> dict[str, Any]:
    """Return the document about what the boxes that are printed cost.

    Raises:
        FormError: no pages can be made of the form.
        ReleaseError: a release cannot be read.
    """
    arguments = ((form, hands, seed, strength), hands, tuple(releases), finds)
    with progress_bar(stderr_console()) as bar:
        made = work.in_processes(jobs, range(1, pages + 1), boxes.begin_comparing, arguments, boxes.compare_page)
        records = list(bar.track(made, total=pages, description="pages"))
    return {
        "schema": 1,
        "made_by": f"python scripts/prove_forms.py boxes --pages {pages} --seed {seed} --strength {strength:g}",
        "form": {"id": form.id, "version": form.version},
        "releases": [{k: v for k, v in _described(Release.open(p)).items() if k != "thresholds"} for p in releases],
        "handwriting": hands.part,
        "glyphs": identities(hands),
        **boxes.costs(records),
    }


def _described(release: Release) -> dict[str, Any]:
    acceptance = load_acceptance(release)
    return {
        "name": release.manifest.name,
        "manifest_sha256": release.manifest_sha256,
        "thresholds": [t.model_dump(mode="json") for t in acceptance.thresholds] if acceptance else [],
    }


@click.group()
def main() -> None:
    """Prove that forms are read."""


@main.command()
@click.argument("results", type=click.Path(path_type=Path, file_okay=False))
@click.option("--pages", type=click.IntRange(1, 99_999), required=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), required=True, help="Of all that is drawn.")
@click.option("--release", "releases", type=click.Path(path_type=Path), multiple=True, required=True)
@click.option("--handwriting", "part", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option("--form", "form_path", type=click.Path(path_type=Path), default=PROOF, help="Else the proof's.")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of all distortions.")
@click.option("--struck", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Pages with such a field.")
@click.option("--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1, help="Processes; else one a core.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
def read(
    results: Path,
    pages: int,
    seed: int,
    releases: tuple[Path, ...],
    part: Part,
    form_path: Path,
    strength: float,
    struck: float,
    jobs: int,
    data_root: Path | None,
) -> None:
    """Make pages and read them into RESULTS."""
    try:
        form = load_form(form_path)
        hands = load_hands(part, needs_letters(form), data_root)
        made = read_pages(results, form, hands, releases, pages, seed, strength, struck, jobs)
    except HwrError as err:
        click.echo(f"Error: {err}", err=True)
        sys.exit(err.exit_code)
    except KeyboardInterrupt:
        click.echo(f"Stopped; the same command goes on in {results}.", err=True)
        sys.exit(130)
    click.echo(f"read {made} pages into {results}" + (f", {pages - made} were there" if made < pages else ""))


@main.command("judge")
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@click.option("-o", "--out", type=click.Path(path_type=Path, exists=True, file_okay=False), default=FIGURES)
def judge_command(results: Path, data_root: Path | None, out: Path) -> None:
    """Count what RESULTS says, and write forms.json and forms.png."""
    try:
        document = judge_pages(results)
        hands = load_hands(document["handwriting"], needs_letters(load_form(results / "form.yaml")), data_root)
    except HwrError as err:
        click.echo(f"Error: {err}", err=True)
        sys.exit(err.exit_code)
    write_atomic(out / "forms.json", json_bytes(document))
    write_atomic(out / "forms.png", picture(document, mistaken(document, hands)))
    summary = {key: document[key] for key in ("pages", "registration", "refused", "struck_out", "ms")}
    families = {name: {k: v for k, v in own.items() if k != "kinds"} for name, own in document["families"].items()}
    click.echo(json_bytes(summary | families).decode(), nl=False)


@main.command("boxes")
@click.option("--pages", type=click.IntRange(1, 99_999), required=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), required=True, help="Of all that is drawn.")
@click.option("--release", "releases", type=click.Path(path_type=Path), multiple=True, required=True)
@click.option("--handwriting", "part", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option("--form", "form_path", type=click.Path(path_type=Path), default=PROOF, help="Else the proof's.")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of all distortions.")
@click.option("--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1, help="Processes; else one a core.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@click.option("-o", "--out", type=click.Path(path_type=Path, exists=True, file_okay=False), default=FIGURES)
def boxes_command(
    pages: int,
    seed: int,
    releases: tuple[Path, ...],
    part: Part,
    form_path: Path,
    strength: float,
    jobs: int,
    data_root: Path | None,
    out: Path,
) -> None:
    """Compare characters cut out of printed pages with the same ones on white paper, and write form-boxes.json."""
    try:
        form = load_form(form_path)
        hands = load_hands(part, needs_letters(form), data_root)
        document = compare_boxes(form, hands, releases, pages, seed, strength, jobs)
    except HwrError as err:
        click.echo(f"Error: {err}", err=True)
        sys.exit(err.exit_code)
    write_atomic(out / "form-boxes.json", json_bytes(document))
    click.echo(json_bytes(document).decode(), nl=False)


if __name__ == "__main__":
    main()
