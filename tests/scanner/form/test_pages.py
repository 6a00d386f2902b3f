"""Page files of every kind come out as the same grey page; the others each get a sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hwr_export.errors import ImageError
from hwr_export.scanner.form import pages
from hwr_export.scanner.form.pages import load_pages, open_pages

WIDTH, HEIGHT = 420, 594


def drawn(mark: int = 0) -> Image.Image:
    """A page that is not like itself turned; black on white, without levels between."""
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 30, 90, 50), fill=0)
    draw.line((100, 500, 300, 400), fill=0, width=5)
    draw.text((200, 60 + 20 * mark), f"page {mark}", fill=0)
    return image.point(lambda v: 255 if v > 127 else 0)


def grey_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))


def only(path: Path) -> pages.PageImage:
    (page,) = load_pages(path)
    assert (page.number, page.of, page.name) == (1, 1, str(path))
    assert page.grey.dtype == np.uint8
    assert page.grey.flags.c_contiguous
    return page


def pdf_of(*images: Image.Image, dpi: float = 150.0) -> bytes:
    file = io.BytesIO()
    images[0].save(file, "PDF", resolution=dpi, save_all=True, append_images=images[1:])
    return file.getvalue()


# -- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("grey.png", "L", {"dpi": (300, 300)}),
        ("colour.png", "RGB", {"dpi": (300, 300)}),
        ("palette.png", "P", {"dpi": (300, 300)}),
        ("bits.png", "1", {"dpi": (300, 300)}),
        ("fax.tif", "1", {"compression": "group4", "dpi": (300, 300)}),
        ("lzw.tiff", "L", {"compression": "tiff_lzw", "dpi": (300, 300)}),
        ("ink.tif", "CMYK", {"compression": "tiff_deflate", "dpi": (300, 300)}),
        ("palette.tif", "P", {"dpi": (300, 300)}),
        ("scan.pgm", "L", {}),
        ("scan.bmp", "RGB", {"dpi": (300, 300)}),
    ],
)
def test_what_loses_nothing_is_read_as_it_is(tmp_path: Path, name: str, mode: str, options: dict) -> None:
    drawn().convert(mode).save(tmp_path / name, **options)
    page = only(tmp_path / name)
    assert np.array_equal(page.grey, grey_of(drawn()))
    assert page.dpi == (pytest.approx(300, abs=0.1) if options else None)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path: Path, mode: str) -> None:
    drawn().convert(mode).save(tmp_path / "page.jpg", quality=95, dpi=(200, 200))
    page = only(tmp_path / "page.jpg")
    assert np.abs(page.grey.astype(int) - grey_of(drawn())).mean() < 1
    assert page.dpi == pytest.approx(200)


@pytest.mark.parametrize(("order", "negative"), [("little", False), ("little", True), ("big", False)])
def test_sixteen_bits(tmp_path: Path, order: str, negative: bool) -> None:
    """Pillow leaves levels of 16 bits alone where white is 0."""
    import struct

    levels = grey_of(drawn()).astype(np.uint16) * 257
    stored = (65535 - levels if negative else levels).astype("<u2" if order == "little" else ">u2").tobytes()
    sign = "<" if order == "little" else ">"
    tags = [(256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, 16), (259, 3, 1), (262, 3, 0 if negative else 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, HEIGHT), (279, 4, len(stored))]
    directory = struct.pack(f"{sign}H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(f"{sign}I" if kind == 4 else f"{sign}H", value).ljust(4, b"\0")
        directory += struct.pack(f"{sign}HHI", tag, kind, 1) + packed
    head = (b"II*\0" if order == "little" else b"MM\0*") + struct.pack(f"{sign}I", 8 + len(stored))
    (tmp_path / "deep.tif").write_bytes(head + stored + directory + b"\0\0\0\0")
    assert np.array_equal(only(tmp_path / "deep.tif").grey, grey_of(drawn()))


def test_sixteen_bits_of_a_png(tmp_path: Path) -> None:
    Image.fromarray(grey_of(drawn()).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(only(tmp_path / "deep.png").grey, grey_of(drawn()))


@pytest.mark.parametrize("name", ["clear.png", "clear.tif"])
def test_what_is_transparent_is_paper(tmp_path: Path, name: str) -> None:
    black = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    black.putalpha(Image.fromarray(255 - grey_of(drawn())))
    black.save(tmp_path / name)
    assert np.array_equal(only(tmp_path / name).grey, grey_of(drawn()))


def test_one_level_of_a_png_may_be_transparent(tmp_path: Path) -> None:
    drawn().save(tmp_path / "clear.png", transparency=0)
    assert only(tmp_path / "clear.png").grey.min() == 255


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.tif"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pages_are_turned_as_their_exif_says(tmp_path: Path, name: str, orientation: int) -> None:
    lying = drawn().transpose(
        {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    )
    if name.endswith("tif"):
        lying.save(tmp_path / name, tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying.save(tmp_path / name, exif=exif, **({"quality": 95} if name.endswith("jpg") else {}))
    found = only(tmp_path / name).grey
    assert found.shape == (HEIGHT, WIDTH)
    assert np.abs(found.astype(int) - grey_of(drawn())).mean() < 1


def test_the_tint_of_boxes_is_light_and_blue_ink_dark(tmp_path: Path) -> None:
    for name in ("page.png", "page.jpg", "page.tif", "page.pdf"):
        image = Image.new("RGB", (200, 280), "white")
        ImageDraw.Draw(image).rectangle((0, 0, 199, 100), fill=(255, 194, 126))
        ImageDraw.Draw(image).rectangle((0, 200, 199, 279), fill=(30, 50, 140))
        image.save(tmp_path / name)
        grey = only(tmp_path / name).grey.astype(int)
        height = len(grey)
        assert abs(np.median(grey[: height // 4]) - 204) <= 3
        assert np.median(grey[-height // 5 :]) < 65


def test_pages_of_a_tiff_come_one_by_one_and_thumbnails_do_not(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    small = drawn().resize((42, 59))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    drawn(1).save(path, save_all=True, append_images=[small, drawn(2).convert("1")], compression="tiff_lzw")
    found = list(load_pages(path))
    assert [(page.name, page.number, page.of) for page in found] == [(f"{path}#1", 1, 2), (f"{path}#2", 2, 2)]
    for page in found:
        assert np.array_equal(page.grey, grey_of(drawn(page.number)))
    with open_pages(path) as file:
        assert np.array_equal(file.page(2).grey, grey_of(drawn(2)))
        assert np.array_equal(file.page(1).grey, grey_of(drawn(1)))


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn().save(tmp_path / "many.tif", save_all=True, append_images=[drawn(1)])
    monkeypatch.setattr(pages, "to_grey", lambda image: pytest.fail("decoded"))
    with open_pages(tmp_path / "many.tif") as file:
        assert file.of == 2


def test_a_scan_within_a_pdf_has_its_own_pixels(tmp_path: Path) -> None:
    (tmp_path / "scans.pdf").write_bytes(pdf_of(drawn(1).convert("1"), drawn(2).rotate(90, expand=True), dpi=150))
    first, second = load_pages(tmp_path / "scans.pdf")
    assert (first.dpi, second.dpi) == (pytest.approx(150), pytest.approx(150))
    assert np.array_equal(first.grey, grey_of(drawn(1)))
    assert np.abs(second.grey.astype(int) - grey_of(drawn(2).rotate(90, expand=True))).mean() < 2  # a JPEG inside


def sheet(draw, size: tuple[float, float] = (595.2756, 841.8898), **options: object) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    file = io.BytesIO()
    canvas = Canvas(file, pagesize=size, **options)
    draw(canvas)
    canvas.save()
    return file.getvalue()


def test_what_was_drawn_in_a_pdf_is_rendered_at_300_dpi(tmp_path: Path) -> None:
    (tmp_path / "sheet.pdf").write_bytes(sheet(lambda c: c.rect(72, 841.8898 - 144, 72, 72, stroke=0, fill=1)))
    page = only(tmp_path / "sheet.pdf")
    assert (page.grey.shape, page.dpi) == ((3508, 2480), 300)
    assert page.grey[300:600, 300:600].max() < 10
    assert page.grey[:298].min() == 255


def test_a_logo_makes_no_scan_and_unseen_text_hides_none(tmp_path: Path) -> None:
    from reportlab.lib.utils import ImageReader

    def logo(canvas) -> None:
        canvas.drawImage(ImageReader(drawn()), 20, 700, 60, 84)
        canvas.drawString(100, 100, "text")

    def recognised(canvas) -> None:
        canvas.drawImage(ImageReader(drawn()), 0, 0, 201.6, 285.12)
        canvas.drawString(50, 50, "text", mode=3)

    (tmp_path / "logo.pdf").write_bytes(sheet(logo))
    assert only(tmp_path / "logo.pdf").dpi == 300
    (tmp_path / "scan.pdf").write_bytes(sheet(recognised, (201.6, 285.12)))
    page = only(tmp_path / "scan.pdf")
    assert page.dpi == pytest.approx(150)
    assert np.array_equal(page.grey, grey_of(drawn()))


def test_a_large_page_of_a_pdf_is_rendered_as_finely_as_a_page_may_be(tmp_path: Path) -> None:
    (tmp_path / "poster.pdf").write_bytes(sheet(lambda c: c.rect(0, 0, 9, 9), (72 * 30, 72 * 40)))
    page = only(tmp_path / "poster.pdf")
    assert page.dpi == pytest.approx((50e6 / 1200) ** 0.5)
    assert 0.99 * pages.MAX_PIXELS < page.grey.size <= pages.MAX_PIXELS


def test_colours_drawn_in_a_pdf_become_luminance(tmp_path: Path) -> None:
    colours = ((255, 194, 126), (30, 50, 140), (200, 30, 30), (0, 0, 0))

    def drawing(canvas) -> None:
        for i, colour in enumerate(colours):
            canvas.setFillColorRGB(*(level / 255 for level in colour))
            canvas.rect(0, 100 * i, 200, 100, stroke=0, fill=1)

    (tmp_path / "colours.pdf").write_bytes(sheet(drawing, (200, 400)))
    grey = only(tmp_path / "colours.pdf").grey
    for i, (red, green, blue) in enumerate(colours):
        here = grey[len(grey) * (7 - 2 * i) // 8, 100]
        assert here == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=2)


# -- what is refused -------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as raised:
        list(load_pages(path))
    return str(raised.value)


def write_png_header(path: Path, width: int, height: int) -> None:
    """A PNG that says it is large, and has nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file {path}"),
        (b"", "{path} is empty"),
        (b"what is this", "{path} is not an image in a format that can be read (PNG, JPEG, TIFF, PGM ...)"),
        (b"%PDF-1.7\n1 0 obj\n", "{path} is cut off: the end of a PDF is missing"),
        (b"%PDF-1.7\nstartxref\n0\n%%EOF", "{path} has no pages, or is damaged or cut off: PDFium cannot open it"),
    ],
)
def test_what_is_no_page(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "page"
    if content is not None:
        path.write_bytes(content)
    assert refusal(path) == said.format(path=path)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.tif", "colour.png"])
def test_what_is_cut_off_is_not_read_in_part(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    drawn().convert("RGB" if name.startswith("colour") else "L").save(path)
    data = path.read_bytes()
    for share in (0.3, 0.7, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        assert f"{path}" in refusal(path)


def test_a_page_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    write_png_header(path, 8000, 7000)
    assert refusal(path) == (
        f"{path} has 8000 x 7000 pixels, more than the 50,000,000 that a page may have; scan it at a lower resolution"
    )
    write_png_header(path, 60000, 60000)
    assert "is larger than an image may be" in refusal(path)
    write_png_header(path, 2**31 - 1, 2**31 - 1)
    assert "is larger than an image may be" in refusal(path)


def test_a_damaged_page_says_nothing_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    drawn(1).save(path, save_all=True, append_images=[drawn(2), drawn(3)], compression="tiff_deflate")
    with Image.open(path) as image:
        image.seek(1)
        start, count = image.tag_v2[273][0], image.tag_v2[279][0]
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    with open_pages(path) as file:
        assert np.array_equal(file.page(1).grey, grey_of(drawn(1)))
        with pytest.raises(ImageError, match=r"many\.tif#2 cannot be decoded: .*; it may be cut off"):
            file.page(2)
        assert np.array_equal(file.page(3).grey, grey_of(drawn(3)))


def test_a_tiff_whose_pages_go_round_ends(tmp_path: Path) -> None:
    path = tmp_path / "round.tif"
    drawn(1).save(path, save_all=True, append_images=[drawn(2)])
    data = path.read_bytes()
    with Image.open(path) as image:
        image.seek(1)
        first, second = image._frame_pos
    entries = int.from_bytes(data[second : second + 2], "little")
    at = second + 2 + 12 * entries
    path.write_bytes(data[:at] + first.to_bytes(4, "little") + data[at + 4 :])
    assert len(list(load_pages(path))) == 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_tiff_that_is_cut_off_loses_no_page_without_a_word(tmp_path: Path) -> None:
    """Wherever it is cut: Pillow takes a directory whose end is missing for the last one."""
    path = tmp_path / "many.tif"
    tiny = [Image.new("L", (20, 20), level) for level in (10, 20, 30)]
    tiny[0].save(path, save_all=True, append_images=tiny[1:])
    data = path.read_bytes()
    for length in range(8, len(data)):
        path.write_bytes(data[:length])
        try:
            with open_pages(path) as file:
                levels = [_level(file, number) for number in range(1, file.of + 1)]
                assert levels == [10, 20, 30] or None in levels, length
        except ImageError:
            pass


def _level(file: pages.PageFile, number: int) -> int | None:
    """The level that all of a page's pixels have; None of a page that is refused."""
    try:
        (level,) = np.unique(file.page(number).grey)
    except ImageError:
        return None
    return int(level)


def test_big_tiff(tmp_path: Path) -> None:
    drawn(1).save(tmp_path / "big.tif", big_tiff=True, save_all=True, append_images=[drawn(2)])
    found = list(load_pages(tmp_path / "big.tif"))
    assert [np.array_equal(page.grey, grey_of(drawn(page.number))) for page in found] == [True, True]


def test_too_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PAGES", 2)
    tiny = [Image.new("1", (20, 20), 1) for _ in range(3)]
    tiny[0].save(tmp_path / "many.tif", save_all=True, append_images=tiny[1:])
    assert refusal(tmp_path / "many.tif") == f"{tmp_path / 'many.tif'} has more than 2 pages; split it"
    (tmp_path / "many.pdf").write_bytes(pdf_of(*tiny))
    assert refusal(tmp_path / "many.pdf").endswith("has 3 pages, more than the 2 of one file; split it")


def test_an_encrypted_pdf(tmp_path: Path) -> None:
    (tmp_path / "locked.pdf").write_bytes(sheet(lambda c: c.rect(0, 0, 9, 9), encrypt="secret"))
    assert refusal(tmp_path / "locked.pdf") == f"{tmp_path / 'locked.pdf'} is encrypted; store it without a password"


def test_a_page_of_a_pdf_that_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "field.pdf").write_bytes(sheet(lambda c: c.rect(0, 0, 9, 9), (14400, 14400)))
    assert refusal(tmp_path / "field.pdf").endswith("measures 5080 x 5080 mm, larger than any form")


def test_fractions_are_no_levels(tmp_path: Path) -> None:
    Image.fromarray(np.ones((20, 20), np.float32)).save(tmp_path / "f.tif")
    assert refusal(tmp_path / "f.tif").endswith("has levels with a fraction, of 32 bits; scan with 8 bits")


def test_what_whoever_reads_meets_is_not_taken_for_a_damaged_page(tmp_path: Path) -> None:
    drawn().save(tmp_path / "page.png")
    with pytest.raises(OSError, match="full"), open_pages(tmp_path / "page.png"):
        raise OSError("full")
