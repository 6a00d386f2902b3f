"""How long reading a page of 200 characters takes and how much memory, and Tesseract on the same boxes, side by side.

    python scripts/bench_forms.py time       -> docs/figures/form-time.json
    python scripts/bench_forms.py tesseract  -> docs/figures/form-tesseract.json (needs the package tesseract-ocr)

Pages are those of `make_pages.py`, of the test part. One thread each.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.console import progress_bar, stderr_console  # noqa: E402
from hwr_export.errors import HwrError, UsageError  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402
from hwr_export.labels import DIGITS  # noqa: E402
from hwr_export.machine import machine_facts  # noqa: E402
from hwr_export.release import FP32, Release  # noqa: E402
from hwr_export.runners import reader_runner  # noqa: E402
from hwr_export.scanner.form.acceptance import FAMILIES  # noqa: E402
from hwr_export.scanner.form.cells import find_cells  # noqa: E402
from hwr_export.scanner.form.decode import first_box, text_of  # noqa: E402
from hwr_export.scanner.form.definition import Form, load_form  # noqa: E402
from hwr_export.scanner.form.fields import CheckboxField  # noqa: E402
from hwr_export.scanner.form.layout import Layout  # noqa: E402
from hwr_export.scanner.form.registration import register  # noqa: E402
from hwr_export.spec import PROBABILITIES  # noqa: E402
from hwr_export.statistics import wilson_interval  # noqa: E402
from scripts.pages.hand import Grey, load_hands  # noqa: E402
from scripts.pages.page import Maker, Page, needs_letters  # noqa: E402
from scripts.pages.timed import WARM_UP  # noqa: E402

EXAMPLES, FIGURES = ROOT / "docs" / "examples", ROOT / "docs" / "figures"
RELEASES = (ROOT / "exported" / "digits", ROOT / "exported" / "chars62")
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS"), "1")
DPI = 300
MOST_MS, MOST_MIB, CHARACTERS = 200.0, 200.0, 200
# Kinds of files that scanners write, grey, and how Pillow saves them.
SAVED: dict[str, dict[str, Any]] = {"jpg": {"quality": 90}, "png": {}}
# What Tesseract reads best, of what was tried on validation handwriting: a single character as it is, a line twice as
# large; segmentation modes 10 (a character) and 13 (a raw line); white around.
BOX, LINE = ("10", 1, 10), ("13", 2, 20)


@dataclass(frozen=True)
class Row:
    """A field of digits: what is written, and the images of its boxes that are not empty, uint8 (28, 28)."""

    text: str
    images: list[Grey]


def some_pages(form: Form, count: int, seed: int, dpi: int | None, least: int, root: Path | None) -> Iterator[Page]:
    """Yield pages with at least so many characters, and of one resolution where one is said."""
    maker = Maker(form, load_hands("test", needs_letters(form), root), seed)
    made = number = 0
    while made < count:
        number += 1
        page = maker.make(number)
        if dpi in (None, page.dpi) and sum(map(len, page.truth.values())) >= least:
            made += 1
            yield page


def rows_of(form: Form, page: Page, layout: Layout) -> list[Row]:
    """Return a page's fields of digits, cut out as the form reader does."""
    found = find_cells(page.grey, register(page.grey, layout), layout)
    rows = []
    for field, cells in zip(form.fields, found, strict=True):
        if isinstance(field, CheckboxField) or FAMILIES[field.kind] != "digits" or not page.truth.get(field.name):
            continue
        text = text_of(field, page.truth[field.name])
        first = first_box(field, text, len(cells.cells))
        images = [cell.image for cell in cells.cells[first : first + len(text)]]
        there = [image for image in images if image is not None]
        # A box that was taken for empty is another matter: both readers would be asked about a character less.
        if len(there) == len(text):
            rows.append(Row(text, there))
    return rows


def tesseract(images: Sequence[Grey], mode: str, folder: Path) -> tuple[list[str], float]:
    """Return what it reads in each image, with the digits as its whitelist, and the seconds of processor time."""
    names = [folder / f"{i:06d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(name), image)
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, names)) + "\n")
    words = [_tesseract(), str(listed), "stdout", "--psm", mode, "--dpi", "300", "-l", "eng"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*words, "-c", f"tessedit_char_whitelist={DIGITS}"],
        capture_output=True,
        text=True,
        env=os.environ | ALONE,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for name in names:
        name.unlink()
    read = [re.sub(r"\s", "", each) for each in done.stdout.split("\f")]
    if len(read) != len(images):
        raise UsageError(f"tesseract answers for {len(read)} of {len(images)} images")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return read, seconds


def on_paper(image: Grey, enlarged: int, margin: int) -> Grey:
    """Return characters as Tesseract wants them, black on white."""
    large = cv2.resize(image, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(large, *(margin,) * 4, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.bitwise_not(framed), dtype=np.uint8)


def accuracy(rows: Sequence[Row], read: Sequence[str], seconds: float, pages: int) -> dict[str, Any]:
    """Return the shares of characters and of whole fields that are right, and the time."""
    characters = sum(len(row.text) for row in rows)
    wrong = sum(min(len(row.text), edits(row.text, text)) for row, text in zip(rows, read, strict=True))
    whole = sum(row.text == text for row, text in zip(rows, read, strict=True))
    return {
        "characters_right_percent": round(100 * (1 - wrong / characters), 3),
        "fields_right_percent": round(100 * whole / len(rows), 3),
        "fields_ci95_percent": [round(100 * b, 3) for b in wilson_interval(whole, len(rows))],
        "ms_a_character": round(1e3 * seconds / characters, 4),
        "ms_a_page": round(1e3 * seconds / pages, 2),
    }


def edits(a: str, b: str) -> int:
    """Return how many characters must be changed, added or taken out to turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def compare(form: Form, pages: int, seed: int, root: Path | None) -> dict[str, Any]:
    """Return the document about Tesseract and the digits' release, on the same boxes of the same pages."""
    rows: list[Row] = []
    maker = Maker(form, load_hands("test", needs_letters(form), root), seed)
    with progress_bar(stderr_console()) as bar:
        for number in bar.track(range(1, pages + 1), description="pages"):
            rows += rows_of(form, maker.make(number), maker.layout)
    images = [image for row in rows for image in row.images]
    ends = np.cumsum([0, *(len(row.images) for row in rows)])
    found: dict[str, Any] = {}

    def joined(texts: Sequence[str]) -> list[str]:
        return ["".join(texts[a:b]) for a, b in pairwise(ends)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        singles = [on_paper(image, *BOX[1:]) for image in images]
        _, start_s = tesseract(singles[:1], BOX[0], folder)
        lines = [on_paper(np.hstack(row.images), *LINE[1:]) for row in rows]
        for way, mode, given in (
            ("tesseract, a box at a time", BOX[0], singles),
            ("tesseract, the boxes of a field as a line", LINE[0], lines),
        ):
            texts, seconds = tesseract(given, mode, folder)
            read = joined(texts) if given is singles else texts
            found[way] = accuracy(rows, read, max(0.0, seconds - start_s), pages)
    release = Release.open(RELEASES[0])
    with reader_runner(release.read(release.onnx(FP32)), release.spec, 1) as runner:
        runner.infer_all(np.stack(images[:100]))
        began_s = time.process_time()
        # As the form reader asks: all the characters of a page at once.
        edges = np.linspace(0, len(images), pages + 1).astype(int)
        likeliest = np.concatenate(
            [runner.infer_all(np.stack(images[a:b]))[PROBABILITIES] for a, b in pairwise(edges)]
        ).argmax(axis=1)
        seconds = time.process_time() - began_s
    labels = release.spec.labels
    found["hwr-export, exported/digits fp32"] = accuracy(
        rows, joined([labels[i] for i in likeliest.tolist()]), seconds, pages
    )
    return {
        "schema": 1,
        "made_by": f"python scripts/bench_forms.py tesseract --pages {pages} --seed {seed}",
        "machine": machine_facts()["cpu"],
        "tesseract": _tesseract_version(),
        "whitelist": DIGITS,
        "pages": pages,
        "fields": len(rows),
        "characters": len(images),
        "tesseract_start_ms": round(1e3 * start_s, 1),
        "readers": found,
    }


def _tesseract() -> str:
    found = shutil.which("tesseract")
    if found is None:
        raise UsageError("there is no tesseract on the PATH; install the package tesseract-ocr")
    return found


def _tesseract_version() -> str:
    done = subprocess.run([_tesseract(), "--version"], capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0].split()[-1]


@click.group()
def main() -> None:
    """Measure how forms are read."""


@main.command("time")
@click.option("--pages", type=click.IntRange(WARM_UP, 999), default=40, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=3000, show_default=True, help="Of all that is drawn.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@click.option("-o", "--out", type=click.Path(path_type=Path, exists=True, file_okay=False), default=FIGURES)
def time_command(pages: int, seed: int, data_root: Path | None, out: Path) -> None:
    """Time pages of 200 characters at 300 dpi in processes of their own, and write form-time.json."""
    form = EXAMPLES / "dense.yaml"
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {suffix: Path(name) / suffix for suffix in SAVED}
        for folder in folders.values():
            folder.mkdir()
        characters = []
        for page in some_pages(load_form(form), pages, seed, DPI, CHARACTERS, data_root):
            characters.append(sum(map(len, page.truth.values())))
            for suffix, options in SAVED.items():
                Image.fromarray(page.grey).save((folders[suffix] / page.name).with_suffix(f".{suffix}"), **options)
        for suffix, folder in folders.items():
            words = [sys.executable, "-m", "scripts.pages.timed", str(folder), str(form), *map(str, RELEASES)]
            done = subprocess.run(words, env=os.environ | ALONE, cwd=ROOT, check=True, stdout=subprocess.PIPE)
            found[suffix] = json.loads(done.stdout)
    figures = {
        "schema": 1,
        "made_by": f"python scripts/bench_forms.py time --pages {pages} --seed {seed}",
        "machine": machine_facts()["cpu"],
        "form": "docs/examples/dense.yaml",
        "dpi": DPI,
        "characters_a_page": [min(characters), max(characters)],
        "threads": 1,
        "files": found,
        "asked": {"ms": MOST_MS, "peak_rss_mib": MOST_MIB},
    }
    write_atomic(out / "form-time.json", json_bytes(figures))
    click.echo(json_bytes(figures).decode(), nl=False)


@main.command("tesseract")
@click.option("--pages", type=click.IntRange(1, 999), default=30, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=4000, show_default=True, help="Of all that is drawn.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root; else HWR_DATA, else the user cache.")
@click.option("-o", "--out", type=click.Path(path_type=Path, exists=True, file_okay=False), default=FIGURES)
def tesseract_command(pages: int, seed: int, data_root: Path | None, out: Path) -> None:
    """Read the digits of the same boxes with both, and write form-tesseract.json."""
    try:
        _tesseract()
        figures = compare(load_form(EXAMPLES / "proof.yaml"), pages, seed, data_root)
    except HwrError as err:
        click.echo(f"Error: {err}", err=True)
        sys.exit(err.exit_code)
    write_atomic(out / "form-tesseract.json", json_bytes(figures))
    click.echo(json_bytes(figures).decode(), nl=False)


if __name__ == "__main__":
    main()
