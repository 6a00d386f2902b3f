"""Two bench documents of one machine -> FASTER, SLOWER, SAME or AMBIGUOUS for everything that both measured.

What is compared is an undisturbed call, in units of the yardstick's undisturbed time: neither what else the machine did
nor a slower clock changes anything.
"""

import json
from pathlib import Path
from typing import Any

from hwr_export.errors import UsageError
from hwr_export.latency import Interval, Ratio, quotient

TOLERANCE = 0.05
SCHEMA = 3
# What a machine's neighbours do lasts for seconds: a run that is shorter may have been disturbed all along, by so much.
SPAN_S, DISTURBED = 2.0, 1.5
KEY = ("backend", "precision", "batch", "threads")


def load_bench(path: Path) -> dict[str, Any]:
    """Read a `bench.json` (or a release that holds one).

    Raises:
        UsageError: there is none, or it was written by a version that kept no rounds.
    """
    file = path / "bench.json" if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
        if document["schema"] != SCHEMA or not all(len(c["undisturbed_us"]) == 3 for c in document["cells"]):
            raise UsageError(
                f"{file} does not say what an undisturbed call takes: it is of schema {document['schema']}, expected "
                f"{SCHEMA}; measure again with `hwr-export bench`"
            )
    except OSError as err:
        raise UsageError(f"{file} cannot be read: {err.strerror}") from err
    except (ValueError, KeyError, TypeError) as err:
        raise UsageError(f"{file} is no report of `hwr-export bench`: {err}") from err
    return dict(document)


def compare(new: dict[str, Any], old: dict[str, Any], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return an answer for every backend, precision, batch and thread count that both measured.

    Args:
        tolerance: a fraction; a ratio within it is no difference.

    Raises:
        UsageError: they are of different machines, or have nothing in common.
    """
    machines = [(d["machine"]["cpu"], d["machine"]["cores"]) for d in (new, old)]
    if machines[0] != machines[1]:
        raise UsageError(
            "the two were measured on different machines: " + " and ".join(f"{cpu}, {n} cores" for cpu, n in machines)
        )
    cells = {tuple(c[k] for k in KEY): c for c in new["cells"]}
    others = {tuple(c[k] for k in KEY): c for c in old["cells"]}
    common = [key for key in cells if key in others]
    if not common:
        raise UsageError("the two measured nothing in common; choose the same --backend, --batch and --threads")
    found = []
    for key in common:
        r = quotient(_in_yardsticks(cells[key]), _in_yardsticks(others[key]))
        if min(_span_s(d, cells[key]) for d in (new, old)) < SPAN_S:
            r = Ratio(r.value, r.low / DISTURBED, r.high * DISTURBED)
        numbers = {"ratio": round(r.value, 4), "ratio_ci": [round(r.low, 4), round(r.high, 4)]}
        found.append(dict(zip(KEY, key, strict=True)) | {"answer": r.answer(tolerance)} | numbers)
    return {
        "tolerance": tolerance,
        "regression": any(c["answer"] == "SLOWER" for c in found),
        "not_in_both": [list(key) for key in cells.keys() ^ others.keys()],
        "noisy": [noise for d in (new, old) for w in d["watches"] for noise in w["noisy"]],
        "cells": found,
    }


def _in_yardsticks(cell: dict[str, Any]) -> Ratio:
    return quotient(Interval(*cell["undisturbed_us"]), Interval(*cell["yardstick_us"]))


def _span_s(document: dict[str, Any], cell: dict[str, Any]) -> float:
    """Return the seconds over which a cell's rounds lie: those of all cells that were measured in turns with it."""
    beside = [c for c in document["cells"] if (c["batch"], c["threads"]) == (cell["batch"], cell["threads"])]
    return float(sum(c["batch"] * c["n"] / c["images_per_s"] for c in beside))
