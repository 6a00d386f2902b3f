"""The fonts that are embedded in a sheet: how wide text is in them, and how it breaks into lines.

Bitstream Vera, which comes with reportlab: the letters of Western Europe. Other characters are refused, never left out.
"""

from collections.abc import Iterator
from functools import cache
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
    from reportlab.pdfbase.pdfmetrics import stringWidth

    name = BOLD if bold else REGULAR
    if strange := sorted(set(text) - _characters(name)):
        raise FormError(
            f"{strange[0]!r} in {text[:60]!r} cannot be printed: the sheet's font has the letters of Western Europe"
        )
    return float(stringWidth(text, name, size)) * MM_PER_POINT


def broken(
    text: str, sizes: tuple[float, ...], width: float | None, bold: bool = False
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Yield sizes in points with the text's lines, few lines and large letters first, none wider than `width` mm."""
    words = text.split(" ")
    for count in range(1, min(MOST_LINES, len(words)) + 1):
        lines = _split(words, count, bold)
        widest = max(width_mm(line, 1.0, bold) for line in lines)
        for size in sizes:
            if width is None or widest * size <= width:
                yield size, lines


def _split(words: list[str], count: int, bold: bool) -> tuple[str, ...]:
    """Return the words in so many lines, the widest of them as narrow as can be."""
    if count == 1:
        return (" ".join(words),)
    # The narrowest width that does: a line takes the words that fit, and widths are those of runs of words.
    runs = sorted(
        {width_mm(" ".join(words[i:j]), 1.0, bold) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    )
    for width in runs:
        lines = _filled(words, width + 1e-9, bold)
        if lines is not None and len(lines) <= count:
            return lines
    return (" ".join(words),)


def _filled(words: list[str], width: float, bold: bool) -> tuple[str, ...] | None:
    lines: list[str] = []
    for word in words:
        if lines and width_mm(f"{lines[-1]} {word}", 1.0, bold) <= width:
            lines[-1] += f" {word}"
        elif width_mm(word, 1.0, bold) <= width:
            lines.append(word)
        else:
            return None
    return tuple(lines)


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
