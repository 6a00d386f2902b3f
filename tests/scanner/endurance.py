"""Pages put in against results that came out: over kills at random moments, and over many A4 pages in one process.

`python -m tests.scanner.endurance` makes both runs at full length and writes docs/figures/scan-endurance.json.
"""

import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from hwr_export.files import json_bytes, sha256_bytes, write_atomic
from tests.conftest import ROOT
from tests.device.conftest import fill
from tests.scanner.devices import (
    A4,
    GRID,
    SMALL,
    Service,
    page_of,
    results,
    training_digits,
    until,
    virtual_scanners,
    write_config,
    write_pgm,
)

COMMAND = "python -m tests.scanner.endurance"
FIGURES = ROOT / "docs" / "figures" / "scan-endurance.json"
# SANE's pnm scanner as a feeder: each sheet of a tray goes through it once, whoever asks and whoever was killed.
FEEDER = r"""#!/bin/bash
for word; do case $word in --batch=*) format=${word#--batch=};; esac; done
tray={tray}; number=1
while echo "Press <RETURN> to continue."; read -r; do
    sheet=
    for candidate in "$tray"/*.pgm; do
        if mv "$candidate" "$tray/moving/" 2>/dev/null; then sheet=$tray/moving/$(basename "$candidate"); break; fi
    done
    if [ -z "$sheet" ]; then echo "scanimage: sane_start: Document feeder out of documents"; exit 0; fi
    printf -v page "$format" $number
    {scanimage} -d pnm:0 --filename="$sheet" --resolution=300 --grayify=yes --format=pnm >"$page.part" 2>/dev/null
    mv "$page.part" "$page"
    echo "$page"
    number=$((number + 1))
done
"""


def pages_killed(folder: Path, kills: int, pages: int, seed: int = 7) -> dict[str, Any]:
    """Read pages from a folder and a feeder while the service is killed at random moments; count what came out."""
    chance = random.Random(seed)
    env = _device(folder)
    tray, watched, staging = folder / "tray", folder / "in", folder / "staging"
    for path in (tray / "moving", watched, staging):
        path.mkdir(parents=True)
    feeder = folder / "bin" / "scanimage"
    feeder.parent.mkdir()
    feeder.write_text(FEEDER.replace("{tray}", str(tray)).replace("{scanimage}", str(shutil.which("scanimage"))))
    feeder.chmod(0o755)
    env["PATH"] = f"{feeder.parent}:{env['PATH']}"
    write_config(
        folder / "scan.toml",
        f'{GRID}[[sources]]\nkind = "watch"\nfolder = "in"\n'
        '[[sources]]\nkind = "sane"\ndevice = "pnm:0"\nretry_s = 0.05\n',
    )
    digits, rng = training_digits(), np.random.default_rng(seed)
    sent: Counter[str] = Counter()

    def send(number: int) -> None:
        shown = [digits[rng.integers(10)][rng.integers(40)] for _ in range(6)]
        page = page_of(shown, SMALL)
        made = write_pgm(staging / f"{number:05d}.pgm", page)
        # What scanimage makes of the same pixels has a comment in its header.
        scanned = b"P5\n# SANE data follows\n%d %d\n255\n" % page.shape[::-1] + page.tobytes()
        sent[sha256_bytes(scanned if number % 2 else made.read_bytes())] += 1
        made.rename((tray if number % 2 else watched) / made.name)

    started_s, number, alive_s = time.monotonic(), 0, []
    for kill in range(kills):
        running = Service(folder / "scan.toml", env=env)
        begun_s, life_s = time.monotonic(), chance.uniform(0.2, 4.0)
        upto = pages * (kill + 1) // kills
        while time.monotonic() - begun_s < life_s:
            if number < upto:
                send(number)
                number += 1
            time.sleep(0.01)
        while number < upto:
            send(number)
            number += 1
        running.kill()
        alive_s.append(life_s)
    delivered_in_kills = len(results(folder))
    running = Service(folder / "scan.toml", env=env)
    until(lambda: len(results(folder)) >= pages, 600)
    time.sleep(2)  # for what comes twice
    if running.end() != 0:
        raise RuntimeError(f"the service ended with {running.process.returncode}")
    came = Counter(result["page"]["sha256"] for result in results(folder))
    left = [
        p for name in ("in", "tray", "spool/pages", "spool/arriving", "results") for p in (folder / name).rglob("*")
    ]
    return {
        "kills": kills,
        "pages": sum(sent.values()),
        "delivered_before_the_last_start": delivered_in_kills,
        "lost": sum((sent - came).values()),
        "duplicated": sum((came - sent).values()) - len(set(came) - set(sent)),
        "half_written": len(set(came) - set(sent)) + sum(p.suffix == ".part" for p in left),
        "with_error": sum(result["error"] is not None for result in results(folder)),
        "by_source": dict(sorted(Counter(result["page"]["source"] for result in results(folder)).items())),
        "life_s": [round(min(alive_s), 2), round(max(alive_s), 2)],
        "wall_s": round(time.monotonic() - started_s),
    }


def pages_in_a_row(folder: Path, pages: int, seed: int = 7) -> dict[str, Any]:
    """Scan A4 pages one after another by SANE's pnm scanner; seconds from asking to the line of JSON, and memory."""
    env = _device(folder)
    (folder / "asked").mkdir()
    page = folder / "page.pgm"
    write_config(
        folder / "scan.toml",
        f'{GRID}[[sources]]\nkind = "sane"\ndevice = "pnm:0"\nmode = "flatbed"\nrequests = "asked"\n'
        f'options = {{ filename = "{page}", resolution = "300", grayify = "yes" }}\n',
    )
    digits, rng = training_digits(), np.random.default_rng(seed)
    running = Service(folder / "scan.toml", env=env)
    until(running.health.exists)
    seconds, memory_mb, right = [], [], 0
    for number in range(pages):
        wanted = rng.integers(10, size=6)
        write_pgm(page, page_of([digits[d][rng.integers(40)] for d in wanted], A4))
        asked_s = time.monotonic()
        (folder / "asked" / f"{number}").touch()
        while len(found := results(folder)) <= number:
            time.sleep(0.005)
        seconds.append(time.monotonic() - asked_s)
        memory_mb.append(running.rss_mb())
        right += found[-1]["fields"][0]["value"] == "".join(map(str, wanted))
    if running.end() != 0:
        raise RuntimeError(f"the service ended with {running.process.returncode}")
    part = max(1, pages // 5)
    return {
        "pages": pages,
        "shape": list(A4),
        "page_s": {"p50": _rounded(seconds, 50), "p95": _rounded(seconds, 95), "max": round(max(seconds), 3)},
        "rss_mb": {
            "max": round(max(memory_mb), 1),
            "second_fifth": round(statistics.median(memory_mb[part : 2 * part]), 1),
            "last_fifth": round(statistics.median(memory_mb[-part:]), 1),
        },
        "numbers_read_right": right,
    }


def _device(folder: Path) -> dict[str, str]:
    """Put a release and virtual scanners into a folder, and return the environment that finds them."""
    fill(folder / "root", "a", "1.0.0").switch_to("a")
    sane = virtual_scanners(folder / "sane.d")
    return os.environ | {"SANE_CONFIG_DIR": str(sane), "OMP_NUM_THREADS": "1"}


def _rounded(values: list[float], percentile: float) -> float:
    return round(float(np.percentile(values, percentile)), 3)


def main() -> None:
    """Make both runs; each takes about ten minutes."""
    with tempfile.TemporaryDirectory() as folder:
        in_a_row = pages_in_a_row(Path(folder) / "row", 1000)
        sys.stderr.write(json.dumps(in_a_row) + "\n")
        killed = pages_killed(Path(folder) / "killed", 200, 2000)
        sys.stderr.write(json.dumps(killed) + "\n")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    document = {"schema": 1, "command": COMMAND, "machine": machine, "in_a_row": in_a_row, "killed": killed}
    write_atomic(FIGURES, json_bytes(document))


if __name__ == "__main__":
    main()
