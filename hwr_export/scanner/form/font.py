"""The fonts that are embedded in a sheet: how wide text is in them, and how it breaks into lines.

Bitstream Vera, which comes with reportlab: the letters of Western Europe. Other characters are refused, never left out.
"""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

from hwr_export.errors import FormError

REGULAR, BOLD = "Vera", "VeraBd"
MM_PER_POINT = 25.4 / 72
ASCENT, DESCENT = 0.93, 0.24  # of the size, accents on capitals included
LEADING = 1.2  # of the size, from line to line
MOST_LINES = 4


def width_mm(text: str, size: float, bold: bool = False) -> float:
    """Return how wide a text of a size in points is.

    Raises:
        FormError: the font does not have one of its characters.
    """
    name = BOLD if bold else REGULAR
    characters = _characters(name)
    from reportlab.pdfbase.pdfmetrics import stringWidth

    if strange := sorted(set(text) - characters):
        raise FormError(
            f"{strange[0]!r} in {text[:60]!r} cannot be printed: the sheet's font has the letters of Western Europe"
        )
    return float(stringWidth(text, name, size)) * MM_PER_POINT


def broken(
    text: str, sizes: Sequence[Sequence[float]], width: float | None, bold: bool = False
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Yield sizes in points with the text's lines, none wider than `width` mm: the best way to print it first.

    Args:
        text: words with single spaces.
        sizes: ranges of sizes; the text is broken into lines before a later range is taken.
        width: of the lines, or None where that is looked at elsewhere.
        bold: in heavy letters.
    """
    counts = range(1, min(MOST_LINES, text.count(" ") + 1) + 1)
    for some in sizes:
        for count in counts:
            lines = _split(text, count, bold)
            widest = max(width_mm(line, 1.0, bold) for line in lines)
            yield from ((size, lines) for size in some if width is None or widest * size <= width)


@lru_cache(maxsize=256)
def _split(text: str, count: int, bold: bool) -> tuple[str, ...]:
    """Return a text in so many lines or fewer, the widest of them as narrow as can be, to a thousandth."""
    if count == 1:
        return (text,)
    words = text.split(" ")
    widths = [width_mm(word, 1.0, bold) for word in words]
    space = width_mm(" ", 1.0, bold)
    least, most = max(widths), sum(widths) + space * (len(words) - 1)
    lines = [words]
    while most - least > 0.001 * most:
        tried = _filled(words, widths, space, (least + most) / 2)
        if len(tried) <= count:
            lines, most = tried, (least + most) / 2
        else:
            least = (least + most) / 2
    return tuple(" ".join(line) for line in lines)


def _filled(words: list[str], widths: list[float], space: float, width: float) -> list[list[str]]:
    """Return words in lines, each as full as a width allows."""
    lines: list[list[str]] = []
    left = 0.0
    for word, wide in zip(words, widths, strict=True):
        if lines and wide + space <= left:
            lines[-1].append(word)
            left -= wide + space
        else:
            lines.append([word])
            left = width - wide
    return lines


@cache
def _characters(font: str) -> frozenset[str]:
    """Return what can be printed in a font, which is made known to reportlab."""
    import reportlab
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    path = Path(reportlab.__file__).parent / "fonts" / f"{font}.ttf"
    found = TTFont(font, str(path))
    registerFont(found)
    return frozenset(chr(code) for code in found.face.charToGlyph if chr(code).isprintable()) | {"\u00a0"}
