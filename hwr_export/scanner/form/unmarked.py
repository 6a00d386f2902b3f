"""A page of a form without marks -> the homography by its printed lines, with every field found where it should be.

Another form, another version, and a sheet of which nobody can say which way up it lies, are refused.
"""

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.alignment import Alignment, grow, per_mm
from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.measured import measure
from hwr_export.scanner.form.pieces import Pieces, is_box
from hwr_export.scanner.form.plausible import implausible
from hwr_export.scanner.form.refusal import PageRefused
from hwr_export.scanner.form.residual import LinesFound, lines_found, on_line
from hwr_export.scanner.form.rivals import Rival
from hwr_export.scanner.form.search import guesses
from hwr_export.scanner.form.strangers import BLANK, is_blank, not_this_form
from hwr_export.scanner.page import Grey

Floats = npt.NDArray[np.float64]

RIVAL = 0.5  # share of what is found of the sheet, that may be found of what it could be mistaken for
MOST_CHANGES = 4  # of mind


def align_by_lines(page: Grey, layout: Layout, lines: Pieces, mistakes: tuple[Rival, ...]) -> Alignment:
    """Return the homography by the printed lines alone.

    Args:
        mistakes: in which ways the sheet could be mistaken for itself.

    Raises:
        PageRefused: they are not there, or fit in more than one way.
    """
    boxes = lines[is_box(lines, layout)]
    best = LinesFound(0.0, "")
    # A frame is a help, not a promise: without it, if with it nothing is found.
    for pieces in (lines, boxes) if layout.frame else (boxes,):
        for guess in guesses(page, layout, pieces):
            match, aligned = _followed(page, guess, layout, pieces, boxes, mistakes)
            if aligned is not None:
                return aligned
            best = max(best, match, key=lambda match: match.share)
    if is_blank(page):
        raise PageRefused("blank-page", BLANK)
    what = f"no line of the field {best.missing!r} is" if best.missing else f"{best.share:.0%} of the lines are"
    raise not_this_form(layout, f"{what} where the form has them")


def _followed(
    page: Grey, guess: Floats, layout: Layout, pieces: Pieces, boxes: Pieces, mistakes: tuple[Rival, ...]
) -> tuple[LinesFound, Alignment | None]:
    """Align with the pieces from a guess, and from what it turns out to be mistaken for."""
    match = LinesFound(0.0, "")
    for _ in range(MOST_CHANGES):
        aligned = grow(page, guess, layout, pieces, np.zeros(len(pieces), dtype=bool))
        if aligned is None or implausible(aligned.homography, layout):
            break
        scale = per_mm(aligned.homography)
        match = lines_found(measure(page, aligned.homography, boxes), boxes, layout, scale)
        own, other, motion = _strongest(page, aligned.homography, mistakes)
        if other > own:
            guess = aligned.homography @ motion
            continue
        if not match.all_there:
            break
        if other > RIVAL * own:
            raise PageRefused(
                "ambiguous",
                f"the sheet of {layout.form} can lie on the page in two ways, of which nobody can tell which is right: "
                "print the form with marks, or with boxes that look different when it is turned or moved",
            )
        return match, aligned
    return match, None


def _strongest(page: Grey, homography: Floats, mistakes: tuple[Rival, ...]) -> tuple[float, float, Floats]:
    """Return the most likely mistake: shares found of the lines that tell, the sheet's and the rival's; its motion."""
    strongest, scale = (1.0, 0.0, np.eye(3)), per_mm(homography)
    for rival in mistakes:
        if len(rival.own) == 0:
            return 1.0, 1.0, rival.motion
        own, other = (
            float(on_line(measure(page, homography, pieces), scale).mean()) for pieces in (rival.own, rival.others)
        )
        if other - RIVAL * own > strongest[1] - RIVAL * strongest[0]:
            strongest = own, other, rival.motion
    return strongest
