"""A reader that does what a page's first pixel says, and pages for it."""

import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hwr_export.datasets import Dataset
from hwr_export.errors import RunnerError
from hwr_export.scanner.form.definition import Form, load_form, parse_form
from hwr_export.scanner.form.layout import lay_out
from hwr_export.scanner.form.results import Alternative, FieldResult, PageResult, Written
from hwr_export.scanner.form.sheet import preview_png
from hwr_export.scanner.page import Grey
from tests.scanner.form.hostile import EXAMPLE

DIES, HANGS, FAILS, DIES_ONCE, REFUSED, NO_BACKEND, SLOW, LIMIT = range(1, 9)
PLAIN = 100  # from here on, a page is read

FORM = """
schema: 1
id: fake
fields:
  - {kind: digits, name: level, x: 30, y: 40, boxes: 3}
  - {kind: digits, name: doubt, x: 30, y: 60, boxes: 3}
"""


def fake_form(version: int = 1) -> Form:
    return parse_form(f"{FORM}\nversion: {version}".encode(), "fake.yaml")


def page(kind: int) -> Image.Image:
    """A page that has a reader do `kind`; every one from PLAIN on says a number of its own."""
    levels = np.full((40, 30), 255, dtype=np.uint8)
    levels[0, 0] = kind
    return Image.fromarray(levels)


def save(path: Path, *kinds: int) -> Path:
    """Store pages in a file: PNG, or a TIFF of several."""
    images = [page(kind) for kind in kinds]
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(images) == 1:
        images[0].save(path)
    else:
        images[0].save(path, save_all=True, append_images=images[1:])
    return path


@dataclass(frozen=True)
class FakeOpener:
    """Opens a reader that keeps what it has to remember in a folder."""

    folder: Path
    error: str = ""
    dies: bool = False

    @contextmanager
    def __call__(self) -> Iterator["FakeReader"]:
        if self.error:
            raise RunnerError(self.error)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        yield FakeReader(self.folder)


@dataclass
class FakeReader:
    """Says the first pixel's level, and that it is certain of it."""

    folder: Path

    def read(self, page: Grey) -> PageResult:
        kind = int(page[0, 0])
        (self.folder / f"read-{time.monotonic_ns()}-{os.getpid()}-{kind}").touch()
        if kind == DIES or (kind == DIES_ONCE and self._first("died")):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == LIMIT:  # as the system does where decoding takes too much of it
            os.kill(os.getpid(), signal.SIGPROF)
        if kind == HANGS:
            time.sleep(600)
        if kind == SLOW:
            time.sleep(0.2)
        if kind == FAILS:
            raise ZeroDivisionError("by nothing")
        if kind == NO_BACKEND:
            raise RunnerError("the backend has gone")
        if kind == REFUSED:
            return PageResult("refused", "blank-page: nothing is on it", None, 1.0)
        return PageResult("read", "", 0.25, 1.0, (field("level", str(kind)), field("doubt", str(kind), False)))

    def _first(self, what: str) -> bool:
        path = self.folder / what
        first = not path.exists()
        path.touch()
        return first


def field(name: str, value: str, accepted: bool = True) -> FieldResult:
    reasons = () if accepted else ("doubtful",)
    box = (3, 4, 20, 10)
    return FieldResult(
        name, value, 0.875, accepted, reasons, box, (Alternative("7", 0.125),), (Written(value[0], 0.875, box),)
    )


def filled_form(handwriting: Dataset, *names: str, dpi: float = 200) -> tuple[Image.Image, dict[str, str]]:
    """Return the printed example with digits in some of its fields, and what they are; the rest is empty."""
    form = load_form(EXAMPLE)
    sheet = np.array(Image.open(io.BytesIO(preview_png(form, dpi))).convert("L"))
    rng, scale, told = np.random.default_rng(2), dpi / 25.4, {}
    for place in lay_out(form).places:
        if place.field.name not in names:
            continue
        wanted = rng.integers(0, len(handwriting.images), len(place.boxes))
        for box, which in zip(place.boxes, wanted, strict=True):
            width, height = round(box.width * scale), round(box.height * scale)
            size = round(min(width, height) * 28 / 22)  # MNIST's digits take 20 of 28
            x, y = round((box.x * scale) + (width - size) / 2), round((box.y * scale) + (height - size) / 2)
            ink = 255 - np.asarray(Image.fromarray(handwriting.images[which]).resize((size, size)))
            part = sheet[y : y + size, x : x + size]
            np.minimum(part, ink, out=part)
        told[place.field.name] = "".join(str(handwriting.labels[which]) for which in wanted)
    return Image.fromarray(sheet), told


def times_read(folder: Path) -> list[int]:
    """Return what was read, as often as it was."""
    return sorted(int(path.name.rsplit("-", 1)[1]) for path in folder.glob("read-*"))
