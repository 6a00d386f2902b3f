"""A page and what was read of it -> the page with the decisions drawn on it, a JPEG in colours.

What is accepted has a thin solid frame in bluish green, what is left to a person a thick dashed one in vermilion: two
colours that everybody tells apart (Okabe and Ito 2008), and two lines for those who see or print none.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hwr_export.scanner.form.pages import PageImage
from hwr_export.scanner.form.results import FieldResult, PageResult
from hwr_export.scanner.page import Box, Grey

ACCEPTED, REFERRED = (0, 158, 115), (213, 94, 0)
WHITE = (255, 255, 255)
EMPTY = "(empty)"
TEXT_SHARE = 1 / 75  # of the page's longer side: 4 mm on A4
SMALLER = (1.0, 0.8, 0.65)  # sizes that a caption is tried in, until it lies on nothing else
QUALITY = 85  # of the JPEG


def write_annotated(page: PageImage, result: PageResult, folder: Path) -> Path:
    """Draw a page's decisions and store it in a folder, below the names that its path has; return where.

    Raises:
        OSError: it cannot be written.
    """
    parts = ["up" if part == ".." else part for part in page.path.parts if part != page.path.anchor]
    number = "" if page.of == 1 else f"-{page.number:0{len(str(page.of))}}"
    path = folder.joinpath(*parts[:-1], f"{parts[-1]}{number}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        annotated(page.grey, result).save(temporary, "JPEG", quality=QUALITY, subsampling=0)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def annotated(grey: Grey, result: PageResult) -> Image.Image:
    """Return a page, uint8 (H, W), in RGB with what was decided drawn on it."""
    image = Image.fromarray(grey).convert("RGB")
    size = max(12.0, max(image.size) * TEXT_SHARE)
    if result.status != "read":
        return _refused(image, result.reason, size)
    draw = ImageDraw.Draw(image)
    line = max(1, round(size / 12))
    taken: list[Box] = []
    for field in result.fields:
        _frame(draw, field.box, field.accepted, line)
        taken.append(_grown(field.box, line))
    for field in result.fields:
        taken.append(_caption(draw, image.size, field, taken, size, 2 * line))
    return image


def _caption(
    draw: ImageDraw.ImageDraw, page: tuple[int, int], field: FieldResult, taken: list[Box], size: float, gap: int
) -> Box:
    """Write what was read above a field, or below it, where it covers nothing else; return the box it takes."""
    text = caption_of(field)
    fonts = [_font(round(size * smaller)) for smaller in SMALLER]
    places = [(font, box) for font in fonts for box in _places(font, text, field.box, page, gap)]
    font, box = next(((f, b) for f, b in places if not any(_overlap(b, other) for other in taken)), places[-2])
    colour = ACCEPTED if field.accepted else REFERRED
    x, y, width, height = box
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + width / 2, y + height / 2), text, fill=WHITE, font=font, anchor="mm")
    return box


def caption_of(field: FieldResult) -> str:
    """Return what is written at a field: its name, its value and how sure that is, and why it is referred."""
    said = f"{field.name}: {field.value or EMPTY}  {100 * field.confidence:.1f} %"
    return said if field.accepted else f"{said}  {', '.join(field.reasons)}"


def _places(font: ImageFont.FreeTypeFont, text: str, box: Box, page: tuple[int, int], gap: int) -> Iterator[Box]:
    left, _, right, _ = font.getbbox(text)
    width, height = round(right - left + font.size * 0.5), round(font.size * 1.25)
    x = max(0, min(box[0], page[0] - width))
    for y in (box[1] - gap - height, box[1] + box[3] + gap):
        yield x, max(0, min(y, page[1] - height)), width, height


def _frame(draw: ImageDraw.ImageDraw, box: Box, accepted: bool, line: int) -> None:
    x, y, width, height = box
    if accepted:
        draw.rectangle(
            (x - 2 * line, y - 2 * line, x + width + 2 * line, y + height + 2 * line), outline=ACCEPTED, width=line
        )
        return
    thick, dash = 2 * line, 8 * line
    left, top, right, bottom = x - thick, y - thick, x + width + thick, y + height + thick
    for start in range(left, right, 2 * dash):
        for at in (top, bottom):
            draw.line((start, at, min(start + dash, right), at), fill=REFERRED, width=thick)
    for start in range(top, bottom, 2 * dash):
        for at in (left, right):
            draw.line((at, start, at, min(start + dash, bottom)), fill=REFERRED, width=thick)


def _refused(page: Image.Image, reason: str, size: float) -> Image.Image:
    """Return a page below a band that says why it was not read."""
    font = _font(round(size * 1.3))
    lines = [""]
    for word in f"Not read: {reason}".split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) < page.width - 2 * font.size else [*lines, word]
    height = round(len(lines) * font.size * 1.3 + font.size)
    image = Image.new("RGB", (page.width, page.height + height), REFERRED)
    image.paste(page, (0, height))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((font.size, font.size / 2), "\n".join(filter(None, lines)), fill=WHITE, font=font)
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=REFERRED, width=max(2, round(size / 3)))
    return image


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _grown(box: Box, by: int) -> Box:
    return box[0] - by, box[1] - by, box[2] + 2 * by, box[3] + 2 * by


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
