"""Results and answers -> the final values, page by page, and who decided each; what was read stays beside it.

Decided by: `model` (accepted), `person` (settled), `open` (referred, not settled), `refused` (a page without fields).
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from hwr_export.errors import UsageError
from hwr_export.files import atomic_file
from hwr_export.scanner.review.ledger import Ledger
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder, ReadField, ReadPage

COLUMNS = (
    "page", "field", "value", "decided_by", "people", "valid", "unreadable",
    "original_value", "original_confidence", "original_reasons",
)  # fmt: skip


def export(folder: Folder, ledger: Ledger, out: Path) -> dict[str, int]:
    """Write the final values to a CSV or JSON file; return how many fields were decided by whom.

    Raises:
        UsageError: the file's name ends otherwise.
    """
    kinds = {".csv": _csv, ".json": _json}
    if out.suffix.lower() not in kinds:
        raise UsageError(f"{out} ends with {out.suffix or 'nothing'}; values are written to FILE.csv or FILE.json")
    counts: Counter[str] = Counter()
    with closing(Referred(folder)) as referred, atomic_file(out) as file:
        for part in kinds[out.suffix.lower()](folder.form.id, referred, ledger, counts):
            file.write(part.encode())
    return dict(counts)


def final(page: ReadPage, field: ReadField, ledger: Ledger) -> dict[str, Any]:
    """Return one field's final value."""
    key = page.key(field.name)
    decision = ledger.decision(key)
    found: dict[str, Any] = {"name": field.name, "value": "", "decided_by": "open", "people": ledger.people(key)}
    if decision is not None:
        found |= {"value": decision.value, "decided_by": "person"}
        found |= {"valid": decision.valid, "unreadable": decision.unreadable}
    elif field.accepted:
        found |= {"value": field.value, "decided_by": "model", "valid": True, "unreadable": ""}
    original = {"value": field.value, "confidence": field.confidence, "reasons": list(field.reasons)}
    return found | {"original": original}


def _csv(_: str, referred: Referred, ledger: Ledger, counts: Counter[str]) -> Iterator[str]:
    yield _row(COLUMNS)
    for page in referred.all_pages():
        if page.status == "refused":
            counts["refused"] += 1
            yield _row((page.path, "", "", "refused", "", "", "", "", "", page.reason))
        for field in page.fields:
            found = final(page, field, ledger)
            counts[found["decided_by"]] += 1
            valid, original = found.get("valid"), found["original"]
            yield _row(
                (
                    *(page.path, field.name, found["value"], found["decided_by"], " ".join(found["people"])),
                    *("" if valid is None else "yes" if valid else "no", found.get("unreadable", "")),
                    *(original["value"], original["confidence"], " ".join(original["reasons"])),
                )
            )


def _json(form: str, referred: Referred, ledger: Ledger, counts: Counter[str]) -> Iterator[str]:
    """Yield one document: {"schema", "form", "pages": [{"path", "status", "reason", "fields"}], "decided_by"}."""
    yield '{"schema": 1, "form": ' + json.dumps(form) + ', "pages": ['
    for number, page in enumerate(referred.all_pages()):
        fields = [final(page, field, ledger) for field in page.fields]
        counts.update(field["decided_by"] for field in fields)
        counts["refused"] += page.status == "refused"
        document = {"path": page.path, "status": page.status, "reason": page.reason, "fields": fields}
        yield ("," if number else "") + "\n" + json.dumps(document, ensure_ascii=False)
    yield '\n], "decided_by": ' + json.dumps(dict(counts)) + "}\n"


def _row(cells: tuple[Any, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_harmless(str(cell)) for cell in cells])
    return line.getvalue()


def _harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
