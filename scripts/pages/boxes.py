"""What a form's boxes cost: characters cut out of printed pages, and of the same ink, scan and noise without the print.

Pages are laid straight by where they truly lie, so that cutting out and the removal of lines are judged alone. A
character is right where the likeliest of those that may stand in its field is the one that was written.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hwr_export.paired import against_margin, paired_difference
from hwr_export.release import FP32, Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.scanner.form.acceptance import FAMILIES
from hwr_export.scanner.form.cells import FieldCells
from hwr_export.scanner.form.decode import emissions, first_box, text_of
from hwr_export.scanner.form.fields import CheckboxField
from hwr_export.scanner.form.layout import Layout, Place
from hwr_export.scanner.form.registration import Registration
from hwr_export.spec import PROBABILITIES
from scripts.pages.hand import Grey, Hands
from scripts.pages.page import Maker, Page

Finds = Callable[[Grey, Registration, Layout], Sequence[FieldCells]]
WAYS = ("printed", "bare", "glyph")
MARGIN_PT = 0.2  # of accuracy, that boxes may cost
_here: dict[str, Any] = {}  # what `begin_comparing` prepared in this process
_open = ExitStack()


def find_page_cells(page: Grey, registration: Registration, layout: Layout) -> Sequence[FieldCells]:
    """Cut characters out as the form reader does."""
    from hwr_export.scanner.form.cells import find_cells  # type: ignore[attr-defined, unused-ignore]

    return list(find_cells(page, registration, layout))


def begin_comparing(
    arguments: tuple[Any, ...], hands: Hands, releases: Sequence[Path], finds: Finds = find_page_cells
) -> None:
    """Prepare to make pages twice; `arguments` are those of `Maker`, and each field is read by the first release that
    knows its characters."""
    cv2.setNumThreads(1)
    opened = [Release.open(path) for path in releases]
    _open.close()
    _here["runners"] = [_open.enter_context(reader_runner(r.read(r.onnx(FP32)), r.spec, 1)) for r in opened]
    _here["makers"] = Maker(*arguments), Maker(*arguments, printed=False)
    _here["finds"], _here["pools"] = finds, {p.source: p for p in (hands.digits, hands.characters) if p}


def compare_page(number: int) -> dict[str, Any]:
    """Return of each family of fields what was right: 1 or 0 for every character, by each of `WAYS`.

    `glyph` is the image that the character was written with, as it is in its dataset.
    """
    printed, bare = (maker.make(number) for maker in _here["makers"])
    layout = _here["makers"][0].layout
    lies = Registration(np.array(printed.scan["homography"]), 0.0, 4, float(printed.dpi))
    cells = [_here["finds"](page.grey, lies, layout) for page in (printed, bare)]
    found: dict[str, dict[str, list[int]]] = {}
    for i, place in enumerate(layout.places):
        text, boxes = _boxes(place, printed)
        runner = next((r for r in _here["runners"] if text and set(place.field.alphabet) <= set(r.spec.labels)), None)
        if runner is None:
            continue
        own = found.setdefault(FAMILIES[place.field.kind], {way: [] for way in WAYS})
        for way, each in zip(WAYS, cells, strict=False):
            own[way] += _right(runner, place, text, [each[i].cells[box].image for box in boxes])
        own["glyph"] += _right(runner, place, text, _glyphs(printed, place.field.name))
    return {"strength": printed.scan["strength"], "right": found}


def costs(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the accuracy of characters by family and way, and what the print costs, points with 95 % bounds."""
    families = sorted({family for record in records for family in record["right"]})
    found = {}
    for family in families:
        pages = [i for i, record in enumerate(records) if family in record["right"]]
        right = {way: np.concatenate([records[i]["right"][family][way] for i in pages]) > 0 for way in WAYS}
        page = np.concatenate([np.full(len(records[i]["right"][family]["bare"]), i) for i in pages])
        against = paired_difference(right["printed"], right["bare"], page)
        found[family] = {
            "characters": against.n,
            "pages": len(pages),
            "accuracy_percent": {way: round(100 * float(right[way].mean()), 4) for way in WAYS},
            "right_on_bare_paper_alone": against.broken,
            "right_in_boxes_alone": against.fixed,
            "boxes_cost_pt": round(-100 * against.difference, 4),
            "one_sided_bounds95_pt": [round(-100 * against.upper, 4), round(-100 * against.lower, 4)],
            f"at_most_{MARGIN_PT:g}_pt": against_margin(against, MARGIN_PT / 100),
        }
    return found


def _boxes(place: Place, page: Page) -> tuple[str, list[int]]:
    """Return what is written in a row of boxes and in which; nothing of lines, checkboxes and what is struck out."""
    field = place.field
    if isinstance(field, CheckboxField) or field.boxes is None or not page.truth.get(field.name):
        return "", []
    text = text_of(field, page.truth[field.name])
    first = first_box(field, text, field.boxes)
    return text, list(range(first, first + len(text)))


def _glyphs(page: Page, name: str) -> list[Grey]:
    numbers = page.scan["glyphs"][name]
    sources = [_here["pools"][page.scan["sources"][k]] for k in numbers[::2]]
    return [pool.images[number] for pool, number in zip(sources, numbers[1::2], strict=True)]


def _right(runner: Runner, place: Place, text: str, images: Sequence[npt.NDArray[np.uint8] | None]) -> list[int]:
    """Return 1 for every character that is read right; one that is taken for an empty box is not."""
    assert not isinstance(place.field, CheckboxField)
    there = [image for image in images if image is not None]
    if not there:
        return [0] * len(text)
    rows = runner.infer_all(np.stack(there))[PROBABILITIES]
    likeliest = iter(emissions(rows, runner.spec.labels, place.field).argmax(axis=1))
    read = ["" if image is None else place.field.alphabet[next(likeliest)] for image in images]
    return [int(a == b) for a, b in zip(read, text, strict=True)]
