"""A release -> one HTML file that shows its evidence: verdict first, then what it rests on. Torch-free.

Read from the release alone; what has no evidence is said to have none, with the command that makes it.
"""

from pathlib import Path
from typing import Any

from hwr_export.card import write_card
from hwr_export.errors import UsageError
from hwr_export.files import write_atomic
from hwr_export.release import BENCH, BENCH_SAMPLES, CHECKPOINT, PARITY, PROFILE, QUANTIZATION, REPORT, Release
from hwr_export.report.collect import collect
from hwr_export.report.facts import Facts, Missing
from hwr_export.report.page import render

SOURCES = (PARITY, BENCH, BENCH_SAMPLES, PROFILE, QUANTIZATION, CHECKPOINT)


def write_report(release: Release, out: Path | None = None) -> dict[str, Any]:
    """Write the page into the release, or to `out`, and return what was written and what it lacks.

    Raises:
        UsageError: `out` lies in the release, whose manifest would not know it.
        ReleaseError: evidence is not what the manifest vouches for, or no such document.
    """
    if out is None:
        release.require_writable()
    elif out.resolve().is_relative_to(release.path.resolve()):
        raise UsageError(
            f"{out} is inside the release, and its manifest would not know it; leave -o out, or write beside"
        )
    facts = collect(release)
    page = render(facts)
    if out is None:
        made_from = [f.sha256 for f in release.manifest.files if f.role == "onnx" or f.path in SOURCES]
        with release.change() as change:
            change.write(REPORT, page, "report", made_from)
            write_card(change)
    else:
        write_atomic(out, page)
    return {
        "schema": 1,
        "release": {"name": facts.name, "manifest_sha256": facts.manifest_sha256},
        "path": str(out or release.path / REPORT),
        "size_bytes": len(page),
        "verdict": facts.verdict,
        "missing": [vars(m) for m in missing(facts)],
    }


def missing(facts: Facts) -> list[Missing]:
    """Return what the page could not tell, each once."""
    found = (facts.parity, facts.answers_missing, facts.bench, facts.profile, facts.quantised)
    return list(dict.fromkeys(m for m in found if isinstance(m, Missing)))
