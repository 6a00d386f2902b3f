"""A folder of pages -> how long each takes from its file's bytes to JSON, and the memory of the process that reads.

Run by `scripts/bench_forms.py` in a process of its own that imports nothing else: `python -m scripts.pages.timed FOLDER
FORM RELEASE...`.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hwr_export.machine import peak_rss_mib
from hwr_export.release import Release
from hwr_export.scanner.form.definition import load_form
from hwr_export.scanner.form.pages import load_pages
from hwr_export.scanner.form.reader import open_form_reader
from hwr_export.scanner.form.results import document

WARM_UP = 3  # pages


def time_pages(folder: Path, form: Path, releases: Sequence[Path]) -> dict[str, Any]:
    """Return the time of every step of a page, ms, one thread."""
    cv2.setNumThreads(1)
    pages = sorted(folder.iterdir())
    began_s = time.process_time()
    steps: list[dict[str, float]] = []
    read = 0
    with open_form_reader(load_form(form), [Release.open(path) for path in releases], threads=1) as reader:
        opened_s = time.process_time()
        for path in (*pages[:WARM_UP], *pages):
            began, began_cpu = time.perf_counter(), time.process_time()
            (page,) = load_pages(path)
            decoded = time.perf_counter()
            result = reader.read(page.grey)
            json.dumps(document(reader.form.id, "", [result.document(path.name)]))
            ended, ended_cpu = time.perf_counter(), time.process_time()
            whole = {"ms": ended - began, "decoding_ms": decoded - began, "cpu_ms": ended_cpu - began_cpu}
            steps.append({word: 1e3 * seconds for word, seconds in whole.items()})
            read += result.status == "read"
            del page  # as after every page of `read-form`: the next one takes its place
    steps = steps[WARM_UP:]
    return {
        "pages": len(pages),
        "read": read - WARM_UP,
        **{word: _summary([step[word] for step in steps]) for word in ("ms", "decoding_ms", "cpu_ms")},
        "imports_cpu_ms": round(1e3 * began_s, 1),
        "open_cpu_ms": round(1e3 * (opened_s - began_s), 1),
        "peak_rss_mib": round(peak_rss_mib(), 1),
    }


def _summary(values: list[float]) -> dict[str, float]:
    found = {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 95)}
    return found | {"max": round(max(values), 1)}


if __name__ == "__main__":
    print(json.dumps(time_pages(*map(Path, sys.argv[1:3]), [Path(each) for each in sys.argv[3:]])))
