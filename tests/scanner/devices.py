"""What tests and the endurance run share: pages of real digits, virtual scanners, the service as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hwr_export.datasets import load_mnist
from tests.conftest import ROOT

DPI = 300
MM = DPI / 25.4
A4 = (round(297 * MM), round(210 * MM))
SMALL = (round(75 * MM), round(90 * MM))  # as much of the page as has boxes on it
GRID = """
[page]
kind = "grid"
dpi = 300
[[page.rows]]
name = "number"
x = 20.0
y = 40.0
width = 10.0
height = 12.0
pitch = 11.0
count = 6
[[page.rows]]
name = "nothing"
x = 20.0
y = 60.0
width = 10.0
height = 12.0
count = 3
"""


def training_digits(each: int = 40) -> list[list[np.ndarray]]:
    """Return training images by digit."""
    train = load_mnist("train")
    return [[train.images[i] for i in np.flatnonzero(train.labels == digit)[:each]] for digit in range(10)]


def page_of(digits: list[np.ndarray], shape: tuple[int, int] = A4) -> np.ndarray:
    """Return a page with printed boxes and a handwritten digit in each of the first row's."""
    page = np.full(shape, 250, np.uint8)
    for top, count, pitch in ((40.0, 6, 11.0), (60.0, 3, 10.0)):
        for i in range(count):
            x, y = round((20 + i * pitch) * MM), round(top * MM)
            width, height = round(10 * MM), round(12 * MM)
            page[y : y + height, x : x + width] = 120
            page[y + 3 : y + height - 3, x + 3 : x + width - 3] = 250
    for i, digit in enumerate(digits):
        x, y = round((20 + i * 11) * MM) + 17, round(40 * MM) + 28
        ink = np.asarray(Image.fromarray(digit).resize((84, 84), Image.Resampling.BICUBIC), np.int32)
        page[y : y + 84, x : x + 84] = np.clip(250 - ink * 220 // 255, 0, 250)
    return page


def write_pgm(path: Path, page: np.ndarray) -> Path:
    path.write_bytes(b"P5\n%d %d\n255\n" % (page.shape[1], page.shape[0]) + page.tobytes())
    return path


def virtual_scanners(folder: Path) -> Path:
    """Write a configuration of SANE with its two virtual scanners alone."""
    folder.mkdir()
    (folder / "dll.conf").write_text("test\npnm\n")
    scanner_says(folder, "Default")
    return folder


def scanner_says(folder: Path, status: str) -> None:
    """Put the virtual scanner `test:0` into a state, as a person does who jams it or clears the jam."""
    part = folder / "test.conf.part"
    part.write_text(f'number_of_devices 1\nmode Gray\nresolution 50\nread-status-code "{status}"\n')
    part.replace(folder / "test.conf")


def write_config(config: Path, text: str) -> None:
    """Write a configuration: what is given, with releases, spool and results beside the file."""
    head = 'root = "root"\nhealth = "health.json"\n'
    tail = '[spool]\ndirectory = "spool"\n[[sinks]]\nkind = "jsonl"\nname = "folder"\ndirectory = "results"\n'
    config.write_text(f"{head}{text}\n{tail}")


def results(folder: Path) -> list[dict]:
    """Return every result that was delivered whole; the last line may be being written."""
    files = sorted((folder / "results").glob("*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_text().splitlines(keepends=True) if line.endswith("\n")]


def until(found: Callable[[], object], timeout_s: float = 20.0) -> object:
    """Wait for something to be true and return it."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise TimeoutError("what was waited for did not come")


class Service:
    """`hwr-scan run` in a process of its own."""

    def __init__(self, config: Path, **popen: object) -> None:
        self.log = config.with_suffix(".log")
        self.health = config.parent / "health.json"
        # One log for all that follow one another: those before have told that they started.
        self._before = len(self.events("started")) if self.log.exists() else 0
        code = "from hwr_export.scan_cli import main; main(prog_name='hwr-scan')"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "run", "--config", str(config)],
                cwd=ROOT,
                **{"stdin": subprocess.DEVNULL, "stderr": log, "env": os.environ | {"OMP_NUM_THREADS": "1"}} | popen,
            )

    def events(self, name: str) -> list[dict]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def state(self) -> dict:
        return json.loads(self.health.read_text()) if self.health.exists() else {"state": "", "sources": {}}

    def source(self, name: str) -> str:
        """Return a source's state, "" until the service has written one, which is after it says that it started."""
        return str(self.state()["sources"].get(name, {}).get("state", ""))

    def rss_mb(self) -> float:
        """Return how much memory the process has now."""
        (line,) = [x for x in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmRSS" in x]
        return int(line.split()[1]) / 1024

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Ask it to end in order, once it has begun: before, a signal ends any process at once."""
        deadline = time.monotonic() + 60
        while len(self.events("started")) == self._before and self.process.poll() is None:
            assert time.monotonic() < deadline, "the service did not start"
            time.sleep(0.02)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
