"""Records of pages that were made and read -> what the proof says: how many fields were accepted, how many wrongly.

A field counts once a page. Fields of refused pages are referred, those that were struck out are counted apart, and so
are those in which nothing is written. Bounds take pages for samples, since fields of one page share hand and scan.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.acceptance import FAMILIES, error_bound
from hwr_export.scanner.form.decode import text_of
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import CheckboxField, FormField
from hwr_export.statistics import clustered_interval
from scripts.pages.virtual_scan import ALWAYS, SOMETIMES

MOST_PX = 1.0  # that a page that is read may be off, at 300 dpi
LAST_PX = 1.5  # of the histogram
SHOWN = 60  # mistakes that the document lists
DECILES = 10


@dataclass(frozen=True)
class Fields:
    """All fields of all pages, each array (N,)."""

    page: npt.NDArray[np.int64]  # index of the record
    family: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    written: npt.NDArray[np.bool_]  # something stands in it
    accepted: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]  # what was read is not what stands there, accepted or not; refused pages' are

    def of(self, mask: npt.NDArray[np.bool_]) -> "Fields":
        """Return some of them."""
        return Fields(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


def judge(form: Form, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the document about all pages."""
    fields, mistakes = fields_of(form, records), _mistakes(form, records)
    strengths = np.array([record["scan"]["strength"] for record in records])
    edges = np.quantile(strengths, np.linspace(0, 1, DECILES + 1))
    decile = np.clip(np.searchsorted(edges, strengths, side="right") - 1, 0, DECILES - 1)
    names = [name for name in ("digits", "letters", "checkbox") if (fields.family == name).any()]
    written = {name: fields.of((fields.family == name) & (fields.written | (name == "checkbox"))) for name in names}
    return {
        "pages": len(records),
        "registration": _registration(records),
        "refused": _refused(records),
        "families": {
            name: counts(own, len(records))
            | {"kinds": {kind: counts(own.of(own.kind == kind), len(records)) for kind in np.unique(own.kind).tolist()}}
            for name, own in written.items()
        },
        "empty": counts(fields.of(~fields.written & (fields.family != "checkbox")), len(records)),
        "struck_out": _struck(records),
        "referred_for": _reasons(form, records),
        "by_strength": [
            {
                "from": round(float(edges[i]), 4),
                "to": round(float(edges[i + 1]), 4),
                "pages": int((decile == i).sum()),
                "refused": sum(r["status"] == "refused" for r, d in zip(records, decile, strict=True) if d == i),
                **{
                    name: counts(own.of(decile[own.page] == i), int((decile == i).sum()))
                    for name, own in written.items()
                },
            }
            for i in range(DECILES)
        ],
        "by_distortion": _effects(records, written),
        "by_condition": _conditions(records, written),
        "ms": _times(records),
        "at_other_thresholds": {
            name: _curve(form, records, name, len(written[name].page)) for name in names if name != "checkbox"
        },
        "drawings": _drawings(records, mistakes),
        "mistakes": mistakes[:SHOWN],
    }


def fields_of(form: Form, records: Sequence[dict[str, Any]]) -> Fields:
    """Return every field whose truth is known."""
    rows = []
    for i, record in enumerate(records):
        read = {field["name"]: field for field in record["fields"]}
        for field in form.fields:
            if field.name not in record["truth"]:
                continue
            true, found = record["truth"][field.name], read.get(field.name)
            accepted = found is not None and found["accepted"]
            wrong = found is None or found["value"] != true
            rows.append((i, FAMILIES[field.kind], field.kind, bool(true), accepted, wrong))
    page, family, kind, written, accepted_, wrong_ = zip(*rows, strict=True)
    return Fields(
        np.array(page),
        np.array(family),
        np.array(kind),
        np.array(written),
        np.array(accepted_),
        np.array(wrong_),
    )


def counts(fields: Fields, pages: int) -> dict[str, Any]:
    """Return how many fields were accepted and how many of them wrongly, with intervals."""
    n, accepted = len(fields.page), int(fields.accepted.sum())
    bad = fields.accepted & fields.wrong
    interval = clustered_interval(fields.accepted, fields.page) if n else (0.0, 1.0)
    return {
        "fields": n,
        "accepted": accepted,
        "accepted_share": round(accepted / n, 6) if n else None,
        "accepted_ci95": [round(bound, 6) for bound in interval],
        "wrong": int(bad.sum()),
        "wrong_pages": len(np.unique(fields.page[bad])),
        "wrong_share": round(float(bad.sum()) / accepted, 8) if accepted else None,
        "wrong_upper95": round(error_bound(accepted, fields.page[bad], max(1, pages), 0.95), 8),
        "wrong_if_all_were_accepted": int(fields.wrong.sum()),
    }


def _registration(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    read = [record for record in records if record["status"] == "read"]
    off = np.array([r["error_px"] for r in read if r["error_px"] is not None], dtype=np.float64)
    residual = [r["registration_px"] for r in read if r["registration_px"] is not None]
    return {
        "pages": len(read),
        "worst_px": round(float(off.max()), 4) if len(off) else None,
        **{f"p{q}_px": round(float(np.percentile(off, q)), 4) if len(off) else None for q in (50, 99)},
        "pages_over_1_px": int((off > MOST_PX).sum()),
        "worst_page": max(read, key=lambda r: r["error_px"] or 0.0)["path"] if read else None,
        "read_but_refused_when_asked_again": len(read) - len(off),
        "worst_residual_px": round(max(residual), 4) if residual else None,
        "histogram_px": np.histogram(off, bins=np.linspace(0, LAST_PX, 31))[0].tolist(),
    }


def _refused(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    refused = [record for record in records if record["status"] == "refused"]
    lost = [record for record in records if "lost-mark" in record["scan"]["distortions"]]
    return {
        "pages": len(refused),
        "reasons": dict(Counter(record["reason"].split(":")[0] for record in refused).most_common()),
        "pages_with_a_mark_lost": len(lost),
        "refused_with_a_mark_lost": sum(record["status"] == "refused" for record in lost),
    }


def _struck(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return what became of fields that are struck out: they must be left to a person."""
    found = [field for record in records for field in record["fields"] if field["name"] in record["scan"]["struck"]]
    return {
        "fields": sum(len(record["scan"]["struck"]) for record in records),
        "on_pages_that_were_read": len(found),
        "accepted": sum(field["accepted"] for field in found),
        "seen_as_struck_out": sum("struck-out" in field["reasons"] for field in found),
    }


def _reasons(form: Form, records: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    families = {field.name: FAMILIES[field.kind] for field in form.fields}
    found: dict[str, Counter[str]] = {}
    for record in records:
        for field in record["fields"]:
            if field["name"] in record["truth"]:
                found.setdefault(families[field["name"]], Counter()).update(field["reasons"])
    return {family: dict(reasons.most_common()) for family, reasons in found.items()}


def _effects(records: Sequence[dict[str, Any]], written: dict[str, Fields]) -> dict[str, dict[str, Any]]:
    """Return for each distortion how many more fields it refers, all others being the same, by least squares."""
    kinds = (*ALWAYS, *SOMETIMES)
    drawn = [record["scan"]["distortions"] for record in records]
    strength = np.array([[each.get(kind, {"strength": 0.0})["strength"] for kind in kinds] for each in drawn])
    found: dict[str, dict[str, Any]] = {
        kind: {"pages": int((strength[:, k] > 0).sum())} for k, kind in enumerate(kinds)
    }
    for name, fields in written.items():
        total = np.bincount(fields.page, minlength=len(records))
        referred = np.bincount(fields.page, ~fields.accepted, minlength=len(records))
        some = total > 0
        effect, error = _least_squares(strength[some], referred[some] / total[some])
        for k, kind in enumerate(kinds):
            found[kind][name] = {
                "more_referred_pt": round(100 * effect[k], 3),
                "standard_error_pt": round(100 * error[k], 3),
                # Of the harsher half of those pages on which it happens, and of all others.
                **_halves(fields, strength[:, k]),
            }
    return found


def _halves(fields: Fields, strength: npt.NDArray[np.float64]) -> dict[str, Any]:
    happened = strength[strength > 0]
    harsh = strength > (np.median(happened) if len(happened) else 0.0)
    found = {}
    for word, mask in (("harsh", harsh), ("gentle", ~harsh)):
        own = fields.of(mask[fields.page])
        wrong = own.accepted & own.wrong
        found[word] = {"fields": len(own.page), "accepted": int(own.accepted.sum()), "wrong": int(wrong.sum())}
    return found


def _least_squares(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return slopes and their standard errors, robust to uneven scatter (White 1980); 0 for what never varies."""
    varies = x.std(axis=0) > 0
    design = np.column_stack([np.ones(len(x)), x[:, varies]])
    inverse = np.linalg.pinv(design.T @ design)
    slope = inverse @ design.T @ y
    residual = y - design @ slope
    spread = inverse @ (design.T * residual**2) @ design @ inverse
    effects, errors = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    effects[varies], errors[varies] = slope[1:], np.sqrt(np.maximum(np.diag(spread)[1:], 0))
    return effects, errors


def _conditions(records: Sequence[dict[str, Any]], written: dict[str, Fields]) -> dict[str, dict[str, Any]]:
    """Return the counts by what is no matter of more or less."""
    ways: dict[str, Callable[[dict[str, Any]], str]] = {
        "dpi": lambda scan: str(scan["dpi"]),
        "pen": lambda scan: str(scan["pen"]["width"]),
        "around": lambda scan: "dark" if scan["distortions"].get("page", {"around": 255})["around"] < 128 else "light",
        "stain": lambda scan: "stained" if "stain" in scan["distortions"] else "clean",
    }
    found: dict[str, dict[str, Any]] = {}
    for word, way in ways.items():
        of_page = np.array([way(record["scan"]) for record in records])
        found[word] = {
            value: {"pages": int((of_page == value).sum())}
            | {
                name: counts(own.of(of_page[own.page] == value), int((of_page == value).sum()))
                for name, own in written.items()
            }
            for value in np.unique(of_page).tolist()
        }
    return found


def _times(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for dpi in sorted({record["scan"]["dpi"] for record in records}):
        ms = [r["ms"] for r in records if r["status"] == "read" and r["scan"]["dpi"] == dpi]
        if ms:
            found[str(dpi)] = {"pages": len(ms), **{f"p{q}": round(float(np.percentile(ms, q)), 1) for q in (50, 95)}}
    return found


def _curve(form: Form, records: Sequence[dict[str, Any]], family: str, fields: int) -> list[dict[str, Any]]:
    """Return how many would be wrong if the surest were accepted, by share of the written fields of a family.

    For the reader's interest: no threshold is chosen by it.
    """
    mine = {field.name for field in form.fields if FAMILIES[field.kind] == family}
    read = [
        (field["confidence"], field["value"] != record["truth"][field["name"]])
        for record in records
        for field in record["fields"]
        if field["name"] in mine
        and record["truth"].get(field["name"])
        and not set(field["reasons"]) - {"doubtful", "not-calibrated"}
    ]
    surest = sorted(read, key=lambda each: -each[0])
    wrong = np.cumsum([bad for _, bad in surest])
    shares = [(share, round(share * fields / 100)) for share in range(2, 101, 2)]
    return [
        {"accepted_percent": share, "least": surest[count - 1][0], "wrong": int(wrong[count - 1])}
        for share, count in shares
        if 0 < count <= len(surest)
    ]


def _drawings(records: Sequence[dict[str, Any]], mistakes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many different drawings of characters stand on the pages, and which were accepted as another."""
    drawn = {
        (record["scan"]["sources"][source], number)
        for record in records
        for each in record["scan"]["glyphs"].values()
        for source, number in zip(each[::2], each[1::2], strict=True)
    }
    mistaken = Counter(tuple(each) for mistake in mistakes for each in mistake["drawings"])
    return {
        "different": len(drawn),
        "mistaken": [
            {"source": source, "number": number, "is": true, "read": read, "times": times}
            for (source, number, true, read), times in mistaken.most_common()
        ],
    }


def _mistakes(form: Form, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the fields that were accepted and are wrong, with the drawings that were taken for another character."""
    fields = {field.name: field for field in form.fields}
    return [
        {
            "page": record["path"],
            "field": field["name"],
            "family": FAMILIES[fields[field["name"]].kind],
            "truth": record["truth"][field["name"]],
            "read": field["value"],
            "confidence": field["confidence"],
            "strength": record["scan"]["strength"],
            "drawings": _mistaken(fields[field["name"]], record, field["value"]),
        }
        for record in records
        for field in record["fields"]
        if field["accepted"] and field["value"] != record["truth"].get(field["name"], field["value"])
    ]


def _mistaken(field: FormField, record: dict[str, Any], read: str) -> list[list[Any]]:
    """Return source, number, truth and reading of the characters read wrongly; none where there are more or fewer."""
    if isinstance(field, CheckboxField):
        return []
    true, found = (text_of(field, value) for value in (record["truth"][field.name], read))
    drawn = record["scan"]["glyphs"].get(field.name, [])
    if not len(true) == len(found) == len(drawn) // 2:
        return []
    sources = record["scan"]["sources"]
    each = zip(drawn[::2], drawn[1::2], true, found, strict=True)
    return [[sources[source], number, a, b] for source, number, a, b in each if a != b]
