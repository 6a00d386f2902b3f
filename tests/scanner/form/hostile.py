"""Files that are no pages, or were some: made of good ones and from nothing, each by its number alone."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from hwr_export.scanner.form.definition import load_form
from hwr_export.scanner.form.sheet import preview_png

DPI = 150
# Not from conftest, which brings PyTorch: processes that read import this too.
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "payment-order.yaml"


@dataclass(frozen=True)
class Hostile:
    """One input; `what` says how it was made."""

    what: str
    name: str
    data: bytes


def hostile_page(number: int, seed: int) -> Hostile:
    """Return a file to be read as pages."""
    rng = random.Random(f"{seed} {number}")
    what = rng.choices(list(PAGES), weights=[weight for weight, _ in PAGES.values()])[0]
    name, data = PAGES[what][1](rng)
    return Hostile(what, f"{number:05}-{name}", data)


# -- good files ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def good_files() -> dict[str, bytes]:
    """A printed form with scribbles in it, in every kind of file."""
    rng = np.random.default_rng(0)
    sheet = np.array(Image.open(io.BytesIO(preview_png(load_form(EXAMPLE), DPI))).convert("RGB"))
    for _ in range(300):
        y, x = rng.integers(250, 900), rng.integers(140, 1000)
        sheet[y : y + 2 + rng.integers(12), x : x + 2 + rng.integers(12)] = 30
    colour = Image.fromarray(sheet)
    grey = colour.convert("L")
    kinds: dict[str, tuple[Image.Image, str, dict]] = {
        "grey.png": (grey, "PNG", {}),
        "colour.png": (colour, "PNG", {}),
        "bits.png": (grey.convert("1"), "PNG", {}),
        "palette.png": (colour.convert("P"), "PNG", {}),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG", {}),
        "clear.png": (colour.convert("RGBA"), "PNG", {}),
        "grey.jpg": (grey, "JPEG", {"quality": 80}),
        "colour.jpg": (colour, "JPEG", {"quality": 60, "progressive": True}),
        "ink.jpg": (colour.convert("CMYK"), "JPEG", {}),
        "fax.tif": (grey.convert("1"), "TIFF", {"compression": "group4"}),
        "lzw.tif": (grey, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (colour, "TIFF", {"compression": "jpeg"}),
        "many.tif": (grey, "TIFF", {"compression": "tiff_deflate", "save_all": True, "append_images": [grey] * 2}),
        "raw.tif": (grey.resize((200, 280)), "TIFF", {}),
        "scan.pgm": (grey, "PPM", {}),
        "scan.bmp": (grey.convert("P"), "BMP", {}),
        "scans.pdf": (grey, "PDF", {"resolution": DPI, "save_all": True, "append_images": [grey.convert("1")]}),
    }
    found = {}
    for name, (image, kind, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        found[name] = file.getvalue()
    return found | {"sheet.pdf": _drawn_pdf()}


def _drawn_pdf() -> bytes:
    from hwr_export.scanner.form.sheet import sheet_pdf

    return sheet_pdf(load_form(EXAMPLE))


# -- what becomes of them --------------------------------------------------------------------------------------------

Made = tuple[str, bytes]


def _good(rng: random.Random) -> Made:
    return rng.choice(list(good_files().items()))


def _cut(rng: random.Random) -> Made:
    name, data = _good(rng)
    return name, data[: rng.randrange(len(data))]


def _flipped(rng: random.Random) -> Made:
    """Bits of it are wrong: most where the headers are, for elsewhere a checksum sees them at once."""
    name, data = _good(rng)
    changed = bytearray(data)
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 600)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return name, _resealed(bytes(changed)) if name.endswith("png") and rng.random() < 0.7 else bytes(changed)


def _spliced(rng: random.Random) -> Made:
    name, data = _good(rng)
    _, other = _good(rng)
    return name, data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _overwritten(rng: random.Random) -> Made:
    """A stretch of it is zeros, ones or noise: what a bad card leaves."""
    name, data = _good(rng)
    changed = bytearray(data)
    start = rng.randrange(len(changed))
    length = min(rng.choice((4, 64, 4096)), len(changed) - start)
    changed[start : start + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return name, bytes(changed)


def _random(rng: random.Random) -> Made:
    head = rng.choice(
        (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*", b"%PDF-1.7\n", b"P5 ", b"BM")
    )
    return "noise", head + rng.randbytes(rng.choice((0, 1, 30, 1000, 50_000)))


def _sized(rng: random.Random) -> Made:
    """A file that says it is far larger, or smaller, than it is."""
    sides = (0, 1, 7, 65_535, 2**20, 2**31 - 1, 2**32 - 1)
    width, height = rng.choice(sides), rng.choice(sides)
    kind = rng.randrange(4)
    if kind == 0:
        return "sized.png", png(width, height, zlib.compress(bytes(1000)), rng.choice((0, 2, 4, 6)))
    if kind == 1:
        data = good_files()["grey.jpg"]
        at = data.index(b"\xff\xc0") + 5
        return "sized.jpg", data[:at] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[at + 4 :]
    if kind == 2:
        return "sized.tif", tiff(width, height, bytes(1000))
    box = rng.choice((width, -width, 0, 1e-9, 1e30, 14_400, "nan"))
    page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {box} {height}]/UserUnit {rng.choice((1, 1e9))}>>"
    return "sized.pdf", pdf([page.encode()])


def _bomb(rng: random.Random) -> Made:
    """Little that becomes much."""
    kind = rng.randrange(6)
    if kind == 0:
        side = rng.choice((7_000, 12_000, 60_000))
        return "bomb.png", png(side, side, zlib.compress(bytes(min(side * side, 60_000_000)), 1), 0)
    if kind == 1:
        return "bomb.tif", tiff(7_000, 7_000, zlib.compress(bytes(49_000_000), 1), compression=8)
    if kind == 2:
        return "bomb.pdf", laughing(rng.choice((3, 5, 20, 200)), rng.choice((1, 5, 10)))
    if kind == 3:
        many = zlib.compress(zlib.compress(b"0 0 9 9 re f\n" * rng.choice((10_000, 1_000_000)), 9), 9)
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>"
        return "bomb.pdf", pdf([page, stream(many, b"/Filter[/FlateDecode/FlateDecode]")])
    if kind == 4:
        side = rng.choice((5_000, 20_000, 100_000))
        return "bomb.pdf", image_pdf(side, side, zlib.compress(bytes(10_000_000), 1))
    return "bomb.png", _with_text(zlib.compress(bytes(80_000_000), 9))


def _pages(rng: random.Random) -> Made:
    """None, far too many, or pages that contain themselves."""
    kind = rng.randrange(5)
    if kind == 0:
        return "none.pdf", pdf([])
    if kind == 1:
        return "count.pdf", pdf([], count=rng.choice((-1, 10**6, 2**31)))
    if kind == 2:
        return "round.pdf", pdf([b"<</Type/Pages/Parent 2 0 R/Kids[2 0 R]/Count 9>>"])
    if kind == 3:
        deep = [b"<</Type/Pages/Parent %d 0 R/Kids[%d 0 R]/Count 1>>" % (n + 2, n + 4) for n in range(3_000)]
        return "deep.pdf", pdf(deep)
    count = rng.choice((400, 6_000))
    return "many.tif", tiff(20, 20, bytes(400), pages=count)


def _locked(rng: random.Random) -> Made:
    from reportlab.pdfgen.canvas import Canvas

    file = io.BytesIO()
    canvas = Canvas(file, encrypt=rng.choice(("secret", "", "x" * 40)))
    canvas.rect(0, 0, 9, 9)
    canvas.save()
    data = file.getvalue()
    return "locked.pdf", data if rng.random() < 0.5 else data[: rng.randrange(len(data))]


PAGES: dict[str, tuple[float, Callable[[random.Random], Made]]] = {
    "as it was": (3, _good),
    "cut off": (22, _cut),
    "flipped bits": (34, _flipped),
    "spliced": (8, _spliced),
    "overwritten": (12, _overwritten),
    "random bytes": (8, _random),
    "absurd size": (8, _sized),
    "bomb": (1.5, _bomb),
    "no or too many pages": (2, _pages),
    "encrypted": (1.5, _locked),
}


# -- files by hand ---------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, colour: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _with_text(compressed: bytes) -> bytes:
    data = good_files()["grey.png"]
    return data[:33] + chunk(b"zTXt", b"Comment\0\0" + compressed) + chunk(b"iCCP", b"x\0\0" + compressed) + data[33:]


def _resealed(data: bytes) -> bytes:
    """Return a PNG with its checksums put right, so that what is wrong in it is met."""
    found, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        found += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return found + data[at:]


def tiff(width: int, height: int, data: bytes, compression: int = 1, pages: int = 1) -> bytes:
    """A TIFF of eight bits; of several pages, all have the same strip."""
    tags = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size, found = 2 + len(body) + 4, struct.pack("<4sI", b"II*\0", 8 + len(data)) + data
    for page in range(pages):
        following = 0 if page == pages - 1 else len(found) + size
        found += struct.pack("<H", len(tags)) + body + struct.pack("<I", following)
    return found


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(data), data)


def pdf(objects: list[bytes], count: int = 1) -> bytes:
    """A PDF whose third object is its page, if it has one; the first two are made here."""
    kids = b"[3 0 R]" if objects else b"[]"
    head = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids%s/Count %d>>" % (kids, count)]
    found, offsets = b"%PDF-1.7\n", []
    for number, each in enumerate(head + objects, 1):
        offsets.append(len(found))
        found += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(offsets) + 1, len(found))
    return found + b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1) + table + trailer


def laughing(depth: int, width: int) -> bytes:
    """Drawings that each draw the next one several times."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</XObject<</F 5 0 R>>>>/Contents 4 0 R>>"
    objects = [page, stream(b"/F Do")]
    for level in range(depth):
        last = level == depth - 1
        uses = b"" if last else b"/Resources<</XObject<</F %d 0 R>>>>" % (6 + level)
        entries = b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]" + uses
        objects.append(stream(b"0 0 9 9 re f" if last else b"/F Do " * width, entries))
    return pdf(objects)


def image_pdf(width: int, height: int, data: bytes) -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</XObject<</I 5 0 R>>>>/Contents 4 0 R>>"
    entries = b"/Type/XObject/Subtype/Image/BitsPerComponent 8/ColorSpace/DeviceGray/Filter/FlateDecode"
    entries += b"/Width %d/Height %d" % (width, height)
    return pdf([page, stream(b"595 0 0 842 0 0 cm /I Do"), stream(data, entries)])
