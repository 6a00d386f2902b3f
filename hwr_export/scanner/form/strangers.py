"""A page on which a form's marks are not -> what it is instead, as well as can be told."""

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from hwr_export.scanner.form.layout import CODE_VALUES, CORNERS, Layout, code_of
from hwr_export.scanner.form.refusal import PageRefused
from hwr_export.scanner.form.shrink import shrunk
from hwr_export.scanner.page import Grey

BLANK = "the page is blank: nothing is printed or written on it"
LATEST_VERSION = 9999
INK_LEVELS = 25  # darker than the paper around it
INK_SHARE = 0.0003  # of the page; less is dust
BLANK_PX = 700  # of the longer side of the page on which ink is sought, at least


def of_another_form(numbers: Sequence[int], layout: Layout) -> PageRefused:
    """Return the refusal of a page that has other marks, by their numbers in the dictionary."""
    code: list[int | None] = [None] * 4
    for number in numbers:
        code[number % 4] = number // 4
    if code.count(None) == 1:  # any three give the fourth
        code[code.index(None)] = -sum(value or 0 for value in code) % CODE_VALUES
    told = "-".join("???" if value is None else f"{value:03d}" for value in code)
    ours = f"{layout.form} version {layout.version} with the code {'-'.join(f'{value:03d}' for value in layout.code)}"
    if None not in code:
        for version in range(1, LATEST_VERSION + 1):
            if list(code_of(layout.form, version)) == code:
                return PageRefused(
                    "wrong-version",
                    f"the sheet is {layout.form} version {version} (code {told}); expected is {ours}: "
                    "read it with the definition of its own version",
                )
    return PageRefused(
        "wrong-form",
        f"the sheet's marks have the code {told}, which is another form's or another version's; expected is {ours}: "
        "the code is printed at a sheet's foot",
    )


def not_this_form(layout: Layout, why: str) -> PageRefused:
    """Return the refusal of a page whose lines are not those of a form without marks."""
    return PageRefused(
        "not-this-form",
        f"the page is not a sheet of {layout.form} version {layout.version}, or its boxes are too pale: {why}; a form "
        "without marks must fill the page, scanned whole",
    )


def of_few_marks(corners: Collection[int]) -> PageRefused:
    """Return the refusal of a page that has too few of the form's marks."""
    names = ", ".join(CORNERS[corner] for corner in sorted(corners))
    return PageRefused(
        "few-marks",
        f"what is seen of the sheet's 4 marks ({names}), and of the lines in between, does not tell well enough where "
        "it lies: scan the whole sheet, with nothing on its corners",
    )


def is_blank(page: Grey) -> bool:
    """Tell whether there is nothing on a page: no ink, whatever the paper's tone."""
    small, _ = shrunk(page, max(page.shape) / BLANK_PX)
    edge = max(small.shape) // 50  # a page often has the scanner's lid along its edges
    inner = small[edge:-edge, edge:-edge] if min(small.shape) > 4 * edge > 0 else small
    paper = cv2.morphologyEx(cv2.blur(inner, (2, 2)), cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
    return float((cv2.subtract(paper, inner) > INK_LEVELS).mean()) < INK_SHARE
