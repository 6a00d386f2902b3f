"""A layout -> the ways in which its sheet could be mistaken for itself: a box further along a row, a row down, turned.

Of such a pair only lines tell which one of them has and the other has not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.pieces import Pieces

Floats = npt.NDArray[np.float64]

MOST_RIVALS = 12
MOST_BOXES = 600  # that are compared with one another
LIKE = 0.3  # share of the boxes that a motion brings onto others, for a mistake to be possible
ROUND_MM = 0.5  # to which motions are told apart
SAME_MM = 0.35  # two lines that are looked for in the same place
MOST_BESIDE = 0.25  # of the sheet, that may lie beside the page; it is to fill it
LEAST_MM = 1.0  # less is found out by looking


@dataclass(frozen=True)
class Rival:
    """The sheet, moved: where it would lie if the page were mistaken."""

    motion: Floats  # (3, 3), mm -> mm
    own: Pieces  # lines that only the sheet as it is has
    others: Pieces  # lines that only the moved sheet has, where they would be


def rivals(layout: Layout, lines: Pieces, ways: tuple[int, ...]) -> tuple[Rival, ...]:
    """Return the most likely mistakes.

    Args:
        lines: of boxes.
        ways: quarter turns by which the sheet may be mistaken.
    """
    centres = np.array([(box.corners[0] + box.corners[2]) / 2 for place in layout.places for box in place.boxes])
    centres = centres[:: -(-len(centres) // MOST_BOXES)]
    sheet = np.array([layout.width, layout.height])
    found: list[tuple[int, Floats]] = []
    for turns in ways:
        turn = _turn(turns)
        away = (centres[None] - (centres @ turn.T)[:, None]).reshape(-1, 2)
        _, inverse, counts = np.unique(np.round(away / ROUND_MM), axis=0, return_inverse=True, return_counts=True)
        for cell in np.argsort(-counts)[: MOST_RIVALS + 1]:
            shift = away[inverse.ravel() == cell].mean(axis=0)
            middle = turn @ sheet / 2 + shift - sheet / 2
            if counts[cell] < LIKE * len(centres) or (np.abs(middle) > MOST_BESIDE * sheet).any():
                continue
            if turns or np.abs(shift).max() >= LEAST_MM:
                found.append((int(counts[cell]), np.vstack([np.c_[turn, shift], [0, 0, 1]])))
    found.sort(key=lambda one: -one[0])
    return tuple(_rival(motion, lines) for _, motion in found[:MOST_RIVALS])


def _turn(quarters: int) -> Floats:
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    return np.array([[cos, -sin], [sin, cos]], dtype=np.float64)


def _rival(motion: Floats, lines: Pieces) -> Rival:
    moved = lines.moved(motion)
    return Rival(motion, lines[~_on(lines, moved)], moved[~_on(moved, lines)])


def _on(some: Pieces, others: Pieces) -> npt.NDArray[np.bool_]:
    """Return which pieces lie on one of the others: bool (N,)."""
    found = np.zeros(len(some), dtype=bool)
    long = np.linalg.norm(others.halves, axis=1)
    ways, places = others.halves / long[:, None], (others.centres * others.halves).sum(axis=1) / long
    for start in range(0, len(some), 200):  # memory grows with what is compared at once
        centres, normals = some.centres[start : start + 200], some.normals[start : start + 200]
        across = np.abs(normals @ others.centres.T - (normals * centres).sum(axis=1)[:, None])
        along = np.abs(centres @ ways.T - places)
        same = np.abs(normals @ others.normals.T) > 0.5
        # Half of a piece on half of another, what lies between pieces included.
        found[start : start + 200] = (same & (across < SAME_MM) & (along < 1.4 * long)).any(axis=1)
    return found
