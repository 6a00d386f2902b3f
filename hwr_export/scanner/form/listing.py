"""Documents of pages, as `read-form --json` has them -> tables for people, a CSV for spreadsheets, and that JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from hwr_export.scanner.form.batch import Counts

Document = dict[str, Any]
Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]
FEW = 3  # pages, of which every field is shown
SHOWN = 40  # pages that are listed; of more, those that were refused
PAGE_COLUMNS = ("path", "status", "reason")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one


def json_text(form: str, release: str, documents: Iterable[Document]) -> Iterator[str]:
    """Yield the whole JSON document bit by bit; a page takes a line."""
    yield f'{{\n  "schema": 1,\n  "form": {json.dumps(form)},\n  "release": {json.dumps(release)},\n  "pages": ['
    between = "\n    "
    for document in documents:
        yield between + json.dumps(document, allow_nan=False)
        between = ",\n    "
    yield "\n  ]\n}\n" if between.startswith(",") else "]\n}\n"


def write_csv(file: IO[bytes], fields: Sequence[str], documents: Iterable[Document]) -> None:
    """Write a row a page: path, status and reason, then of every field its value, and whether it is accepted.

    UTF-8, with bytes of file names that are none as they are. No cell can be taken for a formula.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text)
    columns = [name if name not in PAGE_COLUMNS else f"field {name}" for name in fields]
    writer.writerow([*PAGE_COLUMNS, *(cell for name in columns for cell in (name, f"{name} accepted"))])
    for document in documents:
        found = {field["name"]: field for field in document["fields"]}
        row = [document[column] for column in PAGE_COLUMNS]
        for name in fields:
            field = found.get(name)
            row += ["", ""] if field is None else [field["value"], "yes" if field["accepted"] else "no"]
        writer.writerow([_harmless(cell) for cell in row])
    text.detach()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def tables(pages: int, documents: Callable[[], Iterable[Document]]) -> Iterator[tuple[str, Table]]:
    """Yield titles and tables: every field of few pages, a row a page of some, the refused ones of many."""
    if pages <= FEW:
        for document in documents():
            if document["status"] == "read":
                yield _printable(document["path"]), _fields(document)
    if pages > FEW or any(document["status"] != "read" for document in documents()):
        shown = documents() if pages <= SHOWN else (d for d in documents() if d["status"] != "read")
        rows = [_row(document) for document, _ in zip(shown, range(SHOWN), strict=False)]
        if rows:
            yield "", (("page", "status", "accepted", "referred", "off by, px", ""), rows)


def summary(counts: Counts) -> str:
    """Return what was read, in a sentence."""
    said = f"{_count(counts.pages, 'page')}: {counts.pages - counts.refused:,} read, {counts.refused:,} refused; "
    said += f"{_count(counts.accepted, 'field')} accepted, {counts.referred:,} left to a person"
    return f"{said}; {counts.earlier:,} of the pages were read before." if counts.earlier else f"{said}."


def _fields(document: Document) -> Table:
    rows = [
        (
            *(field["name"], field["value"] or "(empty)", f"{field['confidence']:.4f}"),
            "accepted" if field["accepted"] else "referred",
            ", ".join(field["reasons"]),
            " ".join(a["value"] or "(empty)" for a in field["alternatives"][:2]),
        )
        for field in document["fields"]
    ]
    return ("field", "value", "probability", "", "why", "or"), rows


def _row(document: Document) -> tuple[Any, ...]:
    accepted = sum(field["accepted"] for field in document["fields"])
    off = document["registration_px"]
    return (
        *(_printable(document["path"]), document["status"], accepted, len(document["fields"]) - accepted),
        "-" if off is None else f"{off:.2f}",
        _printable(document["reason"]),
    )


def _printable(text: str) -> str:
    """Return a text that any terminal takes: names of files may be of any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
