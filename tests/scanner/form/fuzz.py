"""Files made to break reading, in thousands: python -m tests.scanner.form.fuzz [N] -> docs/figures/forms-fuzz.json.

Two thirds are page files, read as `read-form` reads them, by processes of the pool; a third are form definitions. Each
must give a page or a sentence, in bounded time and memory; a fault of ours, a traceback, counts as a failure.
"""

import json
import multiprocessing as mp
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hwr_export.errors import HwrError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.scanner.form.definition import load_form, parse_form
from hwr_export.scanner.form.pool import local_engine
from hwr_export.scanner.form.units import FormReaderOpener, ReaderOpener, unit_of
from tests.scanner.form.hostile import EXAMPLE, ROOT, hostile_page
from tests.scanner.form.hostile_forms import hostile_form

READER = FormReaderOpener(load_form(EXAMPLE), (ROOT / "exported" / "digits",))
FIGURES = ROOT / "docs" / "figures" / "forms-fuzz.json"
LIMIT_S = 10.0
LIMIT_MB = 2200  # what a process may take at all, and its code
JOBS = 2
FILES_AT_ONCE = 200


@dataclass
class Found:
    """What came of the inputs, by how they were made."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""
    peak_rss_mb: int = 0

    def add(self, what: str, name: str, outcome: str, seconds: float, failed: bool) -> None:
        self.outcomes.setdefault(what, Counter())[outcome.partition(":")[0]] += 1
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, f"{what}, {name}"
        if failed or seconds > LIMIT_S * 1.2:
            self.failures.append(f"{what}, {name}: {outcome} after {seconds:.1f} s")


def fuzz(count: int, opener: ReaderOpener, seed: int = 0, jobs: int = JOBS) -> Found:
    """Read `count` inputs."""
    found = Found()
    forms = count // 3
    with _peak() as peak:
        _pages(opener, count - forms, seed, jobs, found)
        _forms(forms, seed, found)
    found.peak_rss_mb = max(peak.values(), default=0)
    if found.peak_rss_mb > LIMIT_MB:
        found.failures.append(f"a process took {found.peak_rss_mb} MB")
    return found


# -- pages -----------------------------------------------------------------------------------------------------------


def _pages(opener: ReaderOpener, count: int, seed: int, jobs: int, found: Found) -> None:
    with tempfile.TemporaryDirectory() as name, local_engine(opener, jobs, page_s=LIMIT_S) as pool:
        for start in range(0, count, FILES_AT_ONCE):
            made = {}
            for number in range(start, min(count, start + FILES_AT_ONCE)):
                hostile = hostile_page(number, seed)
                path = Path(name) / hostile.name
                path.write_bytes(hostile.data)
                made[number] = (hostile.what, path)
            read: dict[int, list[dict[str, Any]]] = {number: [] for number in made}
            for pages in pool.read(unit_of(number, path) for number, (_, path) in made.items()):
                for page in pages:
                    read[page.file].append(json.loads(page.line))
            for number, (what, path) in made.items():
                found.add(what, path.name, *_judged(read[number]))
            for _, path in made.values():
                path.unlink()


def _judged(pages: list[dict[str, Any]]) -> tuple[str, float, bool]:
    """Return what came of a file, the seconds of its slowest page, and whether that is a failure."""
    if not pages:
        return "no answer", 0.0, True
    reasons = [page["reason"] for page in pages if page["reason"]]
    untold = [r for r in reasons if r.startswith("failed") or ": " not in r or "\n" in r or len(r) > 1000]
    outcome = "read" if not reasons else reasons[0] if len(reasons) == len(pages) else "read in part"
    return (untold or [outcome])[0], max(page["ms"] for page in pages) / 1000, bool(untold)


# -- definitions -----------------------------------------------------------------------------------------------------


def _forms(count: int, seed: int, found: Found) -> None:
    """In a process of their own, for the reader of YAML is written in C."""
    number = 0
    while number < count:
        ours, theirs = mp.get_context("forkserver").Pipe()
        process = mp.get_context("forkserver").Process(
            target=_check_forms, args=(number, count, seed, theirs), daemon=True
        )
        process.start()
        theirs.close()
        with suppress(EOFError):
            while number < count and ours.poll(LIMIT_S + 5 * (number == 0)):
                what, name, outcome, seconds, failed = ours.recv()
                found.add(what, name, outcome, seconds, failed)
                number += 1
        process.kill()
        process.join()
        ours.close()
        if number < count:
            hostile = hostile_form(number, seed)
            found.add(hostile.what, hostile.name, f"no answer: code {process.exitcode}", LIMIT_S, True)
            number += 1


def _check_forms(first: int, count: int, seed: int, driver: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
    for number in range(first, count):
        hostile = hostile_form(number, seed)
        begun, failed = time.monotonic(), False
        try:
            parse_form(hostile.data, hostile.name)
            outcome = "valid"
        except HwrError as err:
            outcome, failed = "a sentence", "\n" in str(err) or len(str(err)) > 1000
        except BaseException as err:
            outcome, failed = f"{type(err).__name__}: {str(err)[:200]}", True
        driver.send((hostile.what, hostile.name, outcome, time.monotonic() - begun, failed))


# -- what it takes ---------------------------------------------------------------------------------------------------


@contextmanager
def _peak() -> Iterator[dict[str, int]]:
    """Yield the most memory of each process below this one, in MB, looked at again and again."""
    peak: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in mp.active_children():
                with suppress(OSError):
                    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM:"):
                            peak[f"{process.pid}"] = max(peak.get(f"{process.pid}", 0), int(line.split()[1]) // 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def document(found: Found, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Return what is committed."""
    return {
        "schema": 1,
        "command": f"python -m tests.scanner.form.fuzz {count}",
        "seed": seed,
        "inputs": count,
        "seconds": round(seconds),
        "failures": found.failures,
        "slowest_s": round(found.slowest_s, 1),
        "slowest": found.slowest,
        "peak_rss_mb": found.peak_rss_mb,
        "limits": {"decode_s": LIMIT_S, "rss_mb": LIMIT_MB},
        "outcomes": {what: dict(outcomes.most_common()) for what, outcomes in sorted(found.outcomes.items())},
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    begun = time.monotonic()
    found = fuzz(count, READER)
    result = document(found, count, 0, time.monotonic() - begun)
    sys.stdout.write(json_bytes(result).decode())
    if count >= 10_000:
        write_atomic(FIGURES, json_bytes(result))
    sys.exit(1 if found.failures else 0)


if __name__ == "__main__":
    main()
