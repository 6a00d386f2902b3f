"""What was measured of reading forms -> the tables of `docs/forms-reading.md`, in Markdown."""

import json
from pathlib import Path
from typing import Any

FORMS = ("forms.json", "form-boxes.json", "form-time.json", "form-tesseract.json")


def forms(figures: Path) -> str:
    """Return the tables of what reading forms was seen to do: fields, boxes, time, and Tesseract."""
    tables = (forms_proof, forms_boxes, forms_time, forms_tesseract)
    return "\n".join(
        each(json.loads((figures / name).read_text()), name) for name, each in zip(FORMS, tables, strict=True)
    )


def forms_proof(found: dict[str, Any], name: str) -> str:
    rows = []
    for family, own in found["families"].items():
        kinds = own["kinds"].items() if own["accepted"] and len(own["kinds"]) > 1 else ()
        for kind, counts in ((f"**{family}**", own), *kinds):
            rows.append(
                (
                    kind,
                    f"{counts['fields']:,}",
                    f"{counts['accepted']:,} ({100 * counts['accepted_share']:.1f} %)",
                    f"{counts['wrong']:,}",
                    f"{100 * counts['wrong_upper95']:.3f} %" if counts["accepted"] else "-",
                    f"{counts['wrong_if_all_were_accepted']:,}",
                )
            )
    columns = ("fields with something in them", "fields", "accepted", "of them wrong", "at most (95 %)", "wrong of all")
    releases = "".join(f" --release exported/{release['name']}" for release in found["releases"])
    where, refused, struck = found["registration"], found["refused"], found["struck_out"]
    return (
        f"[{name}](figures/{name}), `python scripts/prove_forms.py read RESULTS --pages {found['pages']} "
        f"--seed {found['seed']}{releases}` and `judge RESULTS`: "
        f"{where['pages']:,} of {found['pages']:,} pages were read. "
        f"The worst corner of any box lies {where['worst_px']:.2f} px at 300 dpi from where it truly is, that of the "
        f"median page {where['p50_px']:.2f} px; {refused['pages_with_a_mark_lost']} pages had lost a mark, "
        f"{refused['refused_with_a_mark_lost']} of those were refused. Of {struck['fields']} fields that were struck "
        f"out {struck['accepted']} were accepted.\n\n{table(columns, rows)}\n"
        "![Referred and wrong fields by distortion, error over coverage, registration](figures/forms.png)\n"
    )


def forms_boxes(found: dict[str, Any], name: str) -> str:
    rows = []
    for family in ("digits", "letters"):
        own = found[family]
        low, high = own["one_sided_bounds95_pt"]
        right = [f"{own['accuracy_percent'][way]:.2f} %" for way in ("glyph", "bare", "printed")]
        rows.append(
            (family, f"{own['characters']:,}", *right, f"{own['boxes_cost_pt']:+.2f} ({low:+.2f} to {high:+.2f})")
        )
    columns = (
        "characters",
        "",
        "as in the dataset",
        "scanned, no boxes",
        "scanned in boxes",
        "boxes cost, points (95 %)",
    )
    return f"{source(found, name)}:\n\n{table(columns, rows)}"


def forms_time(found: dict[str, Any], name: str) -> str:
    rows = []
    for kind, own in found["files"].items():
        times = [f"{own[word]['p50']:.0f} / {own[word]['p95']:.0f}" for word in ("ms", "decoding_ms")]
        rows.append((kind, *times, f"{own['peak_rss_mib']:.0f}"))
    columns = ("A4, 300 dpi, grey, 200 characters", "bytes to JSON, ms (p50 / p95)", "decoding alone", "memory, MiB")
    return f"{source(found, name)}, one thread of an {found['machine']}:\n\n{table(columns, rows)}"


def forms_tesseract(found: dict[str, Any], name: str) -> str:
    rows = []
    for reader, own in found["readers"].items():
        right = [f"{own[f'{what}_right_percent']:.1f} %" for what in ("characters", "fields")]
        rows.append((reader, *right, f"{own['ms_a_character']:.2f}"))
    columns = (
        f"the same {found['characters']:,} boxes of digits",
        "characters right",
        "fields right",
        "CPU ms a character",
    )
    return (
        f"{source(found, name)}, Tesseract {found['tesseract']} with the digits as its whitelist, its start subtracted:"
        f"\n\n{table(columns, rows)}"
    )


def source(found: dict[str, Any], name: str) -> str:
    return f"[{name}](figures/{name}), `{found['made_by']}`"


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
