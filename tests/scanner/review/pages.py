"""Filled forms as a scanner delivers them, and what a reader would have written of them: a folder of results.

Digits are real handwriting; which fields are referred, and what was misread in them, is the test's to say.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hwr_export.files import sha256_bytes
from hwr_export.scanner.form.definition import Form, dump_form, parse_form
from hwr_export.scanner.form.fields import CheckboxField
from hwr_export.scanner.form.journal import journal_line
from hwr_export.scanner.form.layout import Layout, Place, Rect, lay_out
from hwr_export.scanner.form.results import Alternative, FieldResult, PageResult, Written
from hwr_export.scanner.form.sheet import preview_png
from hwr_export.scanner.form.units import Unit, page_name
from hwr_export.scanner.review.judge import judge

FORM = b"""
schema: 1
id: order
title: Payment order
fields:
  - {kind: digits, name: customer, label: Customer number, x: 25, y: 45, boxes: 6, required: true}
  - {kind: id, name: reference, label: Reference, check: mod11-10, x: 95, y: 45, boxes: 11}
  - {kind: date, name: due, label: To be paid on, first: 2020-01-01, last: 2049-12-31, x: 25, y: 62, boxes: 8, groups: [2, 2, 4]}
  - {kind: phone, name: phone, label: Telephone, x: 95, y: 62, boxes: 12}
  - {kind: amount, name: goods, label: Goods, currency: EUR, x: 25, y: 79, boxes: 8, groups: [6, 2]}
  - {kind: amount, name: postage, label: Postage, currency: EUR, x: 25, y: 96, boxes: 8, groups: [6, 2]}
  - {kind: amount, name: total, label: Total, currency: EUR, x: 25, y: 113, boxes: 8, groups: [6, 2], required: true}
  - {kind: digits, name: note, label: Note, x: 95, y: 79, line: 70}
  - {kind: letters, name: code, label: Code, x: 95, y: 96, boxes: 4}
  - {kind: checkbox, name: express, label: Express delivery, x: 95, y: 113}
rules:
  - {kind: sum, total: total, parts: [goods, postage]}
  - {kind: range, field: total, most: 5000}
"""  # noqa: E501
WRITTEN = {
    "customer": "204817",
    "reference": "86095742719",
    "due": "24122026",
    "phone": "0301234567",
    "goods": "   12050",
    "postage": "     495",
    "total": "   12545",
    "note": "70215",
    "code": "",
    "express": "yes",
}


@dataclass(frozen=True)
class Misread:
    """A referred field: box by box what was read, how sure of each, and why it is referred."""

    written: str
    sure: Sequence[float] = ()
    reasons: tuple[str, ...] = ("doubtful",)
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """A page: what is written, what of it is referred, how it lies on the scanner."""

    written: Mapping[str, str] = field(default_factory=lambda: WRITTEN)
    referred: Mapping[str, Misread] = field(default_factory=dict)
    degrees: float = 0.0
    dpi: float = 200.0


def form() -> Form:
    return parse_form(FORM, "order.yaml")


def make_results(folder: Path, pages: Mapping[str, Filled], digits: Sequence[np.ndarray], seed: int = 0) -> Path:
    """Write `folder/RESULTS` and the images of its pages, named by their paths in the results."""
    out, rng = folder / "results", np.random.default_rng(seed)
    out.mkdir(parents=True)
    text = dump_form(form())
    (out / "form.yaml").write_text(text)
    told = {"id": "order", "version": 1, "sha256": sha256_bytes(text.encode())}
    (out / "run.json").write_text(json.dumps({"schema": 1, "form": told, "releases": []}))
    layout = lay_out(form())
    lines = []
    for name, filled in pages.items():
        path = folder / name
        image, homography = draw(layout, filled, digits, rng)
        Image.fromarray(image).save(path)
        result = read(layout, filled, homography)
        lines.append(line(result, path))
    (out / "results.jsonl").write_bytes(b"".join(lines))
    return out


def line(result: PageResult, path: Path, number: int = 1, of: int = 1) -> bytes:
    """Return a page's line as `read-form` writes it."""
    now = path.stat()
    unit = Unit(0, str(path), now.st_size, now.st_mtime_ns)
    document = result.document(page_name(path, number, of), characters=True)
    return journal_line(document, unit, number, of) + b"\n"


def draw(
    layout: Layout, filled: Filled, digits: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the page, uint8, and its homography, mm -> pixels."""
    scale = filled.dpi / 25.4
    size = (round(layout.width * scale), round(layout.height * scale))
    upright = np.array([[scale, 0, 0], [0, scale, 0], [0, 0, 1.0]])
    printed = Image.open(io.BytesIO(preview_png(form(), filled.dpi))).convert("L").resize(size)
    sheet = np.minimum(np.asarray(printed), 250).astype(np.uint8)
    for place in layout.places:
        for character, box in glyphs(place, filled.written[place.field.name]):
            write(sheet, character, box, scale, digits, rng)
    turn = np.vstack([cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), filled.degrees, 1), [0, 0, 1]])
    page = cv2.warpAffine(sheet, turn[:2], size, flags=cv2.INTER_CUBIC, borderValue=250)
    noisy = page.astype(np.float32) + rng.normal(0, 3, page.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), turn @ upright


def glyphs(place: Place, written: str) -> list[tuple[str, Rect]]:
    """Return what is written where; of a line, one after another."""
    if isinstance(place.field, CheckboxField):
        return [("x", place.area)] if written == "yes" else []
    boxes = list(place.boxes)
    if place.field.boxes is None:
        boxes = [Rect(place.area.x + 2 + 6 * i, place.area.y, 5, place.area.height) for i in range(len(written))]
    return [(c, box) for c, box in zip(written, boxes, strict=False) if c != " "]


def write(
    sheet: np.ndarray, character: str, box: Rect, scale: float, digits: Sequence[np.ndarray], rng: np.random.Generator
) -> None:
    inner = box.grown(-0.5)
    x, y, w, h = (round(v * scale) for v in (inner.x, inner.y, inner.width, inner.height))
    if character.isdigit():
        of_class = digits[int(character)]
        glyph = of_class[rng.integers(len(of_class))]
        side = min(w, h)
        glyph = np.asarray(Image.fromarray(glyph[3:25, 3:25]).resize((side, side), Image.Resampling.BICUBIC))
        x, y, w, h = x + (w - side) // 2, y + (h - side) // 2, side, side
    else:
        glyph = np.zeros((h, w), dtype=np.uint8)
        cv2.line(glyph, (2, 2), (w - 3, h - 3), 255, 2)
        cv2.line(glyph, (2, h - 3), (w - 3, 2), 255, 2)
    part = sheet[y : y + h, x : x + w].astype(np.float32)
    sheet[y : y + h, x : x + w] = (part * (1 - glyph / 255.0 * 0.85)).astype(np.uint8)


def read(layout: Layout, filled: Filled, homography: np.ndarray) -> PageResult:
    """Return what a reader says of a page: the truth, but for what is referred."""
    return PageResult("read", "", 0.4, 80.0, tuple(_field(place, filled, homography) for place in layout.places))


def _field(place: Place, filled: Filled, homography: np.ndarray) -> FieldResult:
    truth = filled.written[place.field.name]
    misread = filled.referred.get(place.field.name)
    text = truth if misread is None else misread.written
    value = judge(place.field, text)
    boxes = list(place.boxes)
    if not isinstance(place.field, CheckboxField) and place.field.boxes is None:
        boxes = [box for _, box in glyphs(place, truth)]
    sure = list(misread.sure) if misread else []
    written: tuple[Written, ...] = ()
    if not isinstance(place.field, CheckboxField):
        labels = text.ljust(len(boxes))
        sure += [0.999] * (len(boxes) - len(sure))
        written = tuple(
            Written(None if c == " " else c, s, _box(homography, b))
            for c, s, b in zip(labels, sure, boxes, strict=True)
        )
    result = FieldResult(place.field.name, value.value, 0.999, True, (), _box(homography, place.area), written=written)
    if misread is None:
        return result
    others = tuple(Alternative(judge(place.field, a).value, 0.1) for a in misread.alternatives)
    found = "" if "no-valid-reading" in misread.reasons else value.value
    return replace(result, value=found, accepted=False, confidence=0.62, reasons=misread.reasons, alternatives=others)


def _box(homography: np.ndarray, rect: Rect) -> tuple[int, int, int, int]:
    points = cv2.perspectiveTransform(rect.corners[None], homography)[0]
    (left, top), (right, bottom) = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    return int(left), int(top), int(right - left), int(bottom - top)
