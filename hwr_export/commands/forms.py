"""A form's definition -> the sheet to print, its preview, what is in it: the group `form`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, quiet_stdout
from hwr_export.errors import FormError, UsageError


@click.group()
def form() -> None:
    """Make forms that can be read: sheets to print, their previews, checks."""


@form.command()
@click.argument("definition", metavar="FORM", type=PathArgument)
@click.option("-o", "--out", required=True, type=PathArgument, help="The sheet, a .pdf file; FORM is copied beside it.")
@json_option
def make(definition: Path, out: Path, as_json: bool) -> None:
    """Write the sheet of FORM as a PDF to print, and beside it the definition that reads it."""
    from hwr_export.files import sha256_bytes, write_together

    with quiet_stdout():
        from hwr_export.scanner.form.definition import dump_form, load_form
        from hwr_export.scanner.form.layout import form_code
        from hwr_export.scanner.form.sheet import sheet_pdf

        _named(out, ".pdf")
        found = load_form(definition)
        with _about(definition):
            contents = {out: sheet_pdf(found)}
        beside = out.with_suffix(".yaml")
        if beside.resolve() == definition.resolve():
            beside = definition
        else:
            _is_no_other(beside, found.id)
            contents[beside] = dump_form(found).encode()
        write_together(contents)
    if as_json:
        print_json(
            {
                "schema": 1,
                "form": found.id,
                "version": found.version,
                "code": list(form_code(found)),
                "definition": str(beside),
                "sheet": {"path": str(out), "size_bytes": len(contents[out]), "sha256": sha256_bytes(contents[out])},
            }
        )
        return
    rows = [(str(out), f"{len(contents[out]):,}", "the sheet: print it in its true size, without scaling")]
    rows.append((str(beside), f"{beside.stat().st_size:,}", "the definition that reads it: keep it"))
    print_table(("file", "bytes", ""), rows)


@form.command()
@click.argument("definition", metavar="FORM", type=PathArgument)
@click.option("-o", "--out", required=True, type=PathArgument, help="The picture, a .png file.")
@click.option("--dpi", type=click.FloatRange(20, 600), default=100, help="Dots per inch.")
def preview(definition: Path, out: Path, dpi: float) -> None:
    """Write a picture of FORM's sheet."""
    with quiet_stdout():
        from hwr_export.files import write_atomic
        from hwr_export.scanner.form.definition import load_form
        from hwr_export.scanner.form.sheet import preview_png

        _named(out, ".png")
        found = load_form(definition)
        with _about(definition):
            picture = preview_png(found, dpi)
        write_atomic(out, picture)
    print_table(("file", "bytes"), [(str(out), f"{len(picture):,}")])


@form.command()
@click.argument("definition", metavar="FORM", type=PathArgument)
@json_option
def check(definition: Path, as_json: bool) -> None:
    """Check FORM, all that is printed included, and list its fields."""
    with quiet_stdout():
        from hwr_export.scanner.form.definition import load_form
        from hwr_export.scanner.form.layout import lay_out
        from hwr_export.scanner.form.printed import compose

        found = load_form(definition)
        layout = lay_out(found)
        with _about(definition):
            compose(found, layout)
    fields = [_described(place) for place in layout.places]
    if as_json:
        marks = [mark.id for mark in layout.marks]
        page = [layout.width, layout.height]
        print_json(
            {"schema": 1, "form": found.id, "version": found.version, "page": page, "marks": marks, "fields": fields}
        )
        return
    columns = ("field", "kind", "boxes", "characters", "x, y mm", "width x height mm", "")
    rows = [
        (
            *(f["name"], f["kind"], f["boxes"] or "line", _short(f["characters"])),
            *("{:g}, {:g}".format(*f["area"][:2]), "{:g} x {:g}".format(*f["area"][2:])),
            "required" if f["required"] else "",
        )
        for f in fields
    ]
    print_table(columns, rows, title=f"{found.id}, version {found.version}: {len(fields)} fields")


@form.command()
def schema() -> None:
    """Print the JSON Schema of form definitions."""
    from hwr_export.scanner.form.definition import form_schema

    print_json(form_schema())


@form.command("import")
@click.argument("template", type=PathArgument)
@click.option("-o", "--out", required=True, type=PathArgument, help="The definition, a .yaml file.")
@click.option("--page-width", type=click.FloatRange(50, 1000), default=210, help="Of the paper, mm.")
@json_option
def import_(template: Path, out: Path, page_width: float, as_json: bool) -> None:
    """Make a definition of an OMRChecker TEMPLATE.json, as far as it maps, and list what did not."""
    with quiet_stdout():
        from hwr_export.files import write_atomic
        from hwr_export.scanner.form.definition import dump_form
        from hwr_export.scanner.form.omrchecker import import_template

        _named(out, ".yaml")
        found = import_template(template, out.stem, page_width)
        write_atomic(out, dump_form(found.form).encode())
    if as_json:
        left = [{"where": each.where, "what": each.what} for each in found.unmapped]
        print_json({"schema": 1, "definition": str(out), "fields": len(found.form.fields), "unmapped": left})
        return
    print_table(("file", "fields"), [(str(out), len(found.form.fields))])
    if found.unmapped:
        print_table(("not as it was", "what became of it"), [(each.where, each.what) for each in found.unmapped])


@form.command()
@click.argument("results", type=PathArgument)
@click.option("--truth", required=True, type=PathArgument, help='JSON: {"page.png": {"field": "value"}}.')
@click.option("--release", "releases", required=True, multiple=True, type=PathArgument, help="As for read-form.")
@click.option("--bound", default=0.001, type=click.FloatRange(0, 1, True, True), help="Share of wrong accepted fields.")
@click.option("--confidence", default=0.95, type=click.FloatRange(0.5, 1, True, True), help="That the bound holds.")
@json_option
def calibrate(
    results: Path, truth: Path, releases: tuple[Path, ...], bound: float, confidence: float, as_json: bool
) -> None:
    """Choose from which probability on fields are accepted, on RESULTS whose truth is known; the release keeps it."""
    with quiet_stdout():
        from hwr_export.release import Release
        from hwr_export.scanner.form.calibrate import calibrate as run
        from hwr_export.scanner.form.calibrate import load_results, load_truth

        found, pages = load_results(results)
        opened = [Release.open(path) for path in releases]
        chosen, without = run(found, pages, load_truth(truth), opened, bound, confidence)
    if as_json:
        print_json({"schema": 1, "thresholds": [t.model_dump(mode="json") for t in chosen], "without": without})
        return
    columns = ("fields", "accepted from", "pages", "of them", "accepted", "wrong", "at most wrong")
    rows = [
        (
            t.family,
            f"{t.least:.6f}",
            t.pages,
            t.fields,
            f"{t.accepted} ({t.accepted / t.fields:.1%})",
            f"{t.wrong} on {t.wrong_pages} pages",
            f"{t.upper_bound:.3%}",
        )
        for t in chosen
    ]
    print_table(columns, rows, title=f"At most {bound:.2%} of the accepted are wrong, with {confidence:.0%} confidence")
    for line in without:
        click.echo(f"Left to a person: {line}")


@contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except FormError as err:
        raise FormError(f"{path}: {err}") from err


def _named(out: Path, suffix: str) -> None:
    if out.suffix.lower() != suffix:
        raise UsageError(f"{out} does not end with {suffix}, which is what is written")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is no folder; make it first")


def _is_no_other(path: Path, form_id: str) -> None:
    """Refuse to write a definition over anything but an earlier one of the same form."""
    from hwr_export.scanner.form.definition import load_form

    if not path.exists():
        return
    try:
        there = load_form(path).id
    except FormError:
        there = ""
    if there != form_id:
        raise UsageError(
            f"{path} is there already and is no definition of the form {form_id!r}; give -o another name, "
            "the definition is written beside the sheet"
        )


def _described(place: Any) -> dict[str, Any]:
    field, area = place.field, place.area
    written = field.kind != "checkbox"
    return {
        "name": field.name,
        "kind": field.kind,
        "label": field.label,
        "boxes": (field.boxes if written else 1),
        "characters": field.alphabet if written else "",
        "required": field.required,
        "area": [round(v, 3) for v in (area.x, area.y, area.width, area.height)],
    }


def _short(characters: str) -> str:
    """Return characters with runs as A-Z."""
    runs: list[str] = []
    for c in characters:
        if runs and ord(c) == ord(runs[-1][-1]) + 1:
            runs[-1] += c
        else:
            runs.append(c)
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else run for run in runs)
