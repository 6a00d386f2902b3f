"""A release's file on a backend in a process of its own -> what starting costs: imports, load, first answer, memory.

`python -m hwr_export.cold RELEASE BACKEND PRECISION` is that process; it imports nothing before it has looked at the
clock, and prints one line of JSON.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

KEYS = ("import_s", "load_s", "first_answer_s", "cpu_s", "peak_rss_mib")


def start_up(release: Path, backend: str, precision: str, threads: int, starts: int) -> dict[str, Any]:
    """Return the median of what `starts` fresh processes say.

    Raises:
        RunnerError: one of them could not answer.
    """
    from hwr_export.errors import RunnerError

    found = []
    for _ in range(starts):
        command = [sys.executable, "-m", "hwr_export.cold", str(release), backend, precision, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RunnerError(f"{backend} with the {precision} file does not start in a process of its own: {last}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {"n": starts} | {key: round(statistics.median(one[key] for one in found), 4) for key in KEYS}


def main(release: str, backend: str, precision: str, threads: str) -> dict[str, float]:
    """Load one file and answer one image."""
    began = perf_counter()
    from hwr_export.goldens import Goldens
    from hwr_export.machine import peak_rss_mib
    from hwr_export.measurement import answer
    from hwr_export.release import GOLDENS, Release
    from hwr_export.runners.release import open_runner

    opened = Release.open(Path(release))
    runner = open_runner(opened, backend, precision, int(threads))
    imported = perf_counter()
    entry = opened.entry(GOLDENS)
    assert entry is not None
    image = Goldens.from_bytes(opened.read(entry), GOLDENS).images[:1]
    ready = perf_counter()
    with runner:
        loaded = perf_counter()
        answer(runner, image)
        ended = perf_counter()
    values = (imported - began, loaded - ready, ended - loaded, process_time(), peak_rss_mib())
    return dict(zip(KEYS, values, strict=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # noqa: T201  the parent process reads it
