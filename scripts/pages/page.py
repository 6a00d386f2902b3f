"""Form, hands and a seed -> page number N: its scan, what stands in its fields, and all that was drawn for it.

A page depends on the seed and its number alone, whoever makes it and in what order.
"""

import math
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import pypdfium2

from hwr_export.errors import FormError
from hwr_export.scanner.form.decode import text_of
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import CheckboxField, FormField
from hwr_export.scanner.form.layout import lay_out
from hwr_export.scanner.form.sheet import sheet_pdf
from scripts.pages import virtual_scan
from scripts.pages.hand import Grey, Hands, PageHand, Pen, Rng, draw_pen
from scripts.pages.ink import Sheet, strike, tick, write_field
from scripts.pages.text import draw_values

FINER = 2  # than the scan, that a sheet is printed and written on
PLAIN_DPI = 300
DIGITS_OF_NAMES = 5


@dataclass(frozen=True)
class Page:
    """One page. `truth` has the fields' values as results have them, `scan` is as in scan.json."""

    name: str
    grey: Grey
    dpi: int
    truth: dict[str, str]
    scan: dict[str, Any]

    def png(self) -> bytes:
        """Return it as a PNG that says its resolution."""
        data = bytes(
            cv2.imencode(".png", self.grey, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY])[1]
        )
        per_metre = round(self.dpi / 0.0254)
        chunk = b"pHYs" + struct.pack(">IIB", per_metre, per_metre, 1)
        # Behind the first chunk, which says the size.
        return data[:33] + struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


class Maker:
    """Makes pages of one form. Not to be shared between threads."""

    def __init__(
        self,
        form: Form,
        hands: Hands,
        seed: int,
        strength: float = 1.0,
        plain: bool = False,
        struck: float = 0.0,
        printed: bool = True,
    ) -> None:
        """Prepare a form.

        Args:
            strength: of the harshest page's distortions.
            plain: nothing is distorted; pages lie straight at `PLAIN_DPI`.
            struck: share of pages on which one field is struck out.
            printed: without, the same ink lies on white paper: what reading boxes costs is told by it.

        Raises:
            FormError: the form cannot be printed.
        """
        self.form, self.layout = form, lay_out(form)
        self._hands, self._seed, self._struck = hands, seed, struck
        self._strength = 0.0 if plain else strength
        self._plain = plain
        self._pdf = sheet_pdf(form)
        self._white = not printed
        self._printed: dict[int, Sheet] = {}

    def make(self, number: int) -> Page:
        """Return page `number`, from 1.

        Raises:
            FormError: no values were found that keep the form's rules.
        """
        texts, writer, ink, scanner = (np.random.default_rng((self._seed, number, k)) for k in range(4))
        hand = PageHand(self._hands, writer)
        values = draw_values(self.form, texts, lambda field, text: has_letters(field) or hand.has(text))
        strength, strengths = virtual_scan.draw_strengths(scanner, self._strength)
        if self._plain:
            scan = virtual_scan.plain_scan(self.layout, PLAIN_DPI)
        else:
            dpi = int(scanner.choice(virtual_scan.DPI))
            scan = virtual_scan.draw_scan(scanner, self.layout, strength, strengths, dpi)
        pen = draw_pen(ink, virtual_scan.CROSSING_MM * strengths["crossing"])
        if pen.crossing:
            scan.drawn["crossing"] = {"strength": strengths["crossing"], "mm": pen.crossing}
        sheet = self._blank(scan.dpi * FINER)
        written = self._fill(sheet, values, hand, pen, ink)
        virtual_scan.stain_sheet(sheet, self.layout, scan, scanner)
        grey = virtual_scan.scan_sheet(sheet, self.layout, scan, scanner)
        record = {
            "homography": scan.homography.tolist(),
            "size": list(scan.size),
            "dpi": scan.dpi,
            "strength": strength,
            "writer": hand.writer,
            "borrowed": hand.borrowed,
            "pen": asdict(pen) | {"width": pen.width},
            "distortions": scan.drawn,
            **written,
        }
        truth = {name: value for name, value in values.items() if name not in written["struck"]}
        return Page(f"page-{number:0{DIGITS_OF_NAMES}}.png", grey, scan.dpi, truth, rounded(record))

    def _fill(self, sheet: Sheet, values: dict[str, str], hand: PageHand, pen: Pen, rng: Rng) -> dict[str, Any]:
        glyphs: dict[str, list[int]] = {}
        ticks: dict[str, str] = {}
        sources = [pool.source for pool in (self._hands.digits, self._hands.characters) if pool]
        for place in self.layout.places:
            value = values[place.field.name]
            if isinstance(place.field, CheckboxField):
                if value == "yes":
                    ticks[place.field.name] = tick(sheet, place.boxes[0], pen, rng)
            elif value:
                text = text_of(place.field, value)
                found = write_field(sheet, place, text, hand, pen, rng)
                glyphs[place.field.name] = [n for source, number in found for n in (sources.index(source), number)]
        struck: dict[str, str] = {}
        if glyphs and rng.random() < self._struck:
            name = str(rng.choice(list(glyphs)))
            place = next(p for p in self.layout.places if p.field.name == name)
            struck[name] = strike(sheet, place, len(glyphs[name]) // 2, pen, rng)
        # Of each character its source and its number there, one after the other.
        return {"sources": sources, "glyphs": glyphs, "ticks": ticks, "struck": struck}

    def _blank(self, dpi: int) -> Sheet:
        """Return a sheet to write on."""
        if dpi not in self._printed:
            self._printed[dpi] = print_sheet(self._pdf, dpi, self.layout.width, self.layout.height)
        printed = self._printed[dpi]
        return Sheet(np.full_like(printed.grey, 255) if self._white else printed.grey.copy(), printed.scale)


def print_sheet(pdf: bytes, dpi: int, width: float, height: float) -> Sheet:
    """Return a sheet as it comes out of the printer, seen in grey.

    Args:
        width: of the page, as `height` in mm.

    Raises:
        FormError: the PDF has another size than the form.
    """
    document = pypdfium2.PdfDocument(pdf)
    try:
        found = [25.4 / 72 * side for side in document[0].get_size()]
        if not all(math.isclose(a, b, abs_tol=0.02) for a, b in zip(found, (width, height), strict=True)):
            raise FormError(f"the sheet is {found[0]:.2f} x {found[1]:.2f} mm, the form {width:g} x {height:g}")
        pixels = document[0].render(scale=dpi / 72, rev_byteorder=False).to_numpy()
        grey = cv2.cvtColor(np.ascontiguousarray(pixels[:, :, :3]), cv2.COLOR_BGR2GRAY)
    finally:
        document.close()
    # The page is stretched to whole pixels.
    return Sheet(np.asarray(grey, dtype=np.uint8), (grey.shape[1] / width, grey.shape[0] / height))


def has_letters(field: FormField) -> bool:
    """Tell whether letters may stand in a field, check digits aside: then its characters come from where letters do."""
    return not isinstance(field, CheckboxField) and field.kind != "id" and any(c.isalpha() for c in field.alphabet)


def needs_letters(form: Form) -> bool:
    """Tell whether some field of a form may have a letter."""
    return any(
        not isinstance(field, CheckboxField) and any(c.isalpha() for c in field.alphabet) for field in form.fields
    )


def rounded(value: Any) -> Any:
    """Return a document with its numbers cut to what they mean; homographies are kept whole."""
    if isinstance(value, dict):
        return {key: part if key == "homography" else rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value
