"""A folder of results, the truth of its pages and the releases that read them -> thresholds, into those releases.

Nothing is read again: the results say how probable every value was. Pages that were refused count for nothing here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from hwr_export.errors import UsageError
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.release import ACCEPTANCE, FP32, Release
from hwr_export.scanner.form.acceptance import (
    BOUND,
    CONFIDENCE,
    FAMILIES,
    Acceptance,
    Family,
    Judged,
    Threshold,
    choose,
    few_pages,
    load_acceptance,
    reader_of,
)
from hwr_export.scanner.form.definition import Form, load_form

SOFT = {"doubtful", "not-calibrated"}  # reasons that come from the thresholds themselves
Truth = Mapping[str, Mapping[str, str]]


def calibrate(
    form: Form,
    pages: Sequence[Mapping[str, Any]],
    truth: Truth,
    releases: Sequence[Release],
    bound: float = BOUND,
    confidence: float = CONFIDENCE,
) -> tuple[list[Threshold], list[str]]:
    """Choose a threshold for every family of fields on the form, kept in the release that reads those fields.

    A family for which the pages do not show the bound gets none, and all of its fields go to a person: the second list
    says why, a sentence each.

    Args:
        pages: of a folder of results, as `results.jsonl` has them.
        truth: of each page's file name, the value of every field.

    Raises:
        UsageError: a page without truth, or pages that show the bound for no family.
    """
    told = truth_of(pages, truth)
    evidence = sha256_bytes(json_bytes([list(pages), {k: dict(v) for k, v in truth.items()}]))
    chosen: dict[int, list[Threshold]] = {}
    without: list[str] = []
    for (number, family), judged in judged_families(form, pages, told, [r.spec.labels for r in releases]).items():
        found = choose(family, judged, bound, confidence)
        if found is None:
            without.append(few_pages(family, judged, bound, confidence))
        else:
            chosen.setdefault(number, []).append(found.model_copy(update={"pages_sha256": evidence}))
    if not chosen:
        nothing = "the form has no field that these releases read; give releases that know its characters"
        raise UsageError("; ".join(without) or nothing)
    for number in chosen:
        releases[number].require_writable()
    for number, thresholds in chosen.items():
        _keep(releases[number], thresholds)
    return [threshold for number in sorted(chosen) for threshold in chosen[number]], without


def judged_families(
    form: Form, pages: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, str]], label_sets: Sequence[str]
) -> dict[tuple[int, Family], Judged]:
    """Return the fields that a threshold decides, by the number of the release that reads them and their family."""
    of_field = {
        field.name: (number, FAMILIES[field.kind])
        for field in form.fields
        if (number := reader_of(field, label_sets)) is not None
    }
    found: dict[tuple[int, Family], list[tuple[float, bool, int]]] = {}
    for page_number, (page, values) in enumerate(zip(pages, told, strict=True)):
        for field in page["fields"]:
            name = field["name"]
            if name in of_field and name in values and set(field["reasons"]) <= SOFT:
                sample = (field["confidence"], field["value"] != values[name], page_number)
                found.setdefault(of_field[name], []).append(sample)
    return {
        key: Judged(
            np.array([s[0] for s in samples], dtype=np.float64),
            np.array([s[1] for s in samples], dtype=np.bool_),
            np.array([s[2] for s in samples], dtype=np.int64),
        )
        for key, samples in found.items()
    }


def _keep(release: Release, thresholds: Sequence[Threshold]) -> None:
    """Put thresholds in the place of a release's for the same families."""
    before = load_acceptance(release)
    new = {threshold.family for threshold in thresholds}
    kept = [t for t in (before.thresholds if before else ()) if t.family not in new]
    acceptance = Acceptance(thresholds=(*kept, *thresholds))
    with release.change() as change:
        document = json_bytes(acceptance.model_dump(mode="json", by_alias=True))
        change.write(ACCEPTANCE, document, "acceptance", [release.onnx(FP32).sha256])


def load_results(folder: Path) -> tuple[Form, list[dict[str, Any]]]:
    """Return the form of a folder of results, and its pages that were read; of a page read twice, the later.

    Raises:
        UsageError: it is no such folder.
        FormError: its form is damaged.
    """
    pages: dict[str, dict[str, Any]] = {}
    try:
        with (folder / "results.jsonl").open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # what a kill cut short is not there
                    page = json.loads(line)
                    pages[page["path"]] = page
    except OSError as err:
        raise UsageError(f"{folder} is no folder of results, as `read-form -o` writes it: {err.strerror}") from err
    except (ValueError, TypeError, KeyError) as err:
        raise UsageError(f"{folder / 'results.jsonl'} is damaged: {err}; read the pages again") from err
    return load_form(folder / "form.yaml"), [page for page in pages.values() if page["status"] == "read"]


def truth_of(pages: Sequence[Mapping[str, Any]], truth: Truth) -> list[Mapping[str, str]]:
    """Return each page's truth, found by the name of its file.

    Raises:
        UsageError: a page has none.
    """
    missing = [page["path"] for page in pages if PurePath(page["path"]).name not in truth]
    if missing:
        raise UsageError(
            f"the truth has no page {PurePath(missing[0]).name!r} ({len(missing)} of {len(pages)} pages are missing); "
            'it maps file names to the values of fields: {"page.png": {"field": "text"}}'
        )
    return [truth[PurePath(page["path"]).name] for page in pages]


def load_truth(path: Path) -> dict[str, dict[str, str]]:
    """Read a truth file.

    Raises:
        UsageError: missing, or not as `scripts/make_pages.py` writes it.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{path} is not JSON: {err}") from err
    right = isinstance(found, dict) and all(
        isinstance(values, dict) and all(isinstance(text, str) for text in values.values()) for values in found.values()
    )
    if not right:
        raise UsageError(f'{path} is no truth of pages; expected {{"page.png": {{"field": "text"}}}}')
    return dict(found)
