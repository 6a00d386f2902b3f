"""A page that is laid straight -> for every box the character in it as the model takes it, and whether it is empty."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwr_export.scanner.page import Box


@dataclass(frozen=True)
class Cell:
    """One box."""

    image: npt.NDArray[np.uint8] | None  # (28, 28), white on black, by glyph's own normalisation; None where empty
    blank: float  # probability that no character stands in it
    struck: bool  # struck out or scribbled over
    box_px: Box  # upright bounding box of it in the image that was scanned


@dataclass(frozen=True)
class FieldCells:
    """A field's boxes in reading order; of a line, the characters found on it from left to right."""

    cells: tuple[Cell, ...]
    ticked: float | None  # probability that a checkbox is ticked; None of all other fields
    stray: bool  # ink beside the boxes that belongs to none of them
    box_px: Box
