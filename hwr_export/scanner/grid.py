"""Rows of boxes at fixed places of a page -> their fields: for paper that lies straight, with nothing to register.

A box is cut inside its printed lines. What has less ink than a speck is empty; the rest becomes the model's input as
`hwr-export read` makes it.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from hwr_export.errors import ImageError
from hwr_export.glyph import MIN_CONTRAST, normalize
from hwr_export.reader import recognise
from hwr_export.runners import Runner
from hwr_export.scanner.page import Box, Grey, field_of
from hwr_export.scanner.page import Field as PageField
from hwr_export.spec import Strict

MM_PER_INCH = 25.4


class Row(Strict):
    """Boxes side by side that make one field."""

    name: str = Field(min_length=1, max_length=80, description="Name of the field; unique.")
    x: float = Field(ge=0, description="Left edge of the first box, from the page's left.")
    y: float = Field(ge=0, description="Upper edge of the boxes, from the page's top.")
    width: float = Field(gt=0, description="Width of a box.")
    height: float = Field(gt=0, description="Height of a box.")
    pitch: float | None = Field(
        None, gt=0, description="From one box's left edge to the next one's; without it, boxes touch."
    )
    count: int = Field(ge=1, le=200, description="Number of boxes.")


def _distinct(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two rows are called {twice[0]!r}: give each a name of its own")
    return rows


class GridConfig(Strict):
    """Rows of boxes at fixed places."""

    kind: Literal["grid"]
    unit: Literal["mm", "px"] = Field("mm", description="Of every length of the page.")
    dpi: float = Field(300.0, ge=50, le=2400, description="Resolution of the images, for lengths in mm.")
    inset: float = Field(
        0.6, ge=0, description="What is cut off at each side of a box, so that no printed line is taken for ink."
    )
    blank_below: float = Field(
        0.004, ge=0, le=1, description="Share of a box's pixels with ink on them, below which it is empty."
    )
    rows: Annotated[tuple[Row, ...], AfterValidator(_distinct)] = Field(
        min_length=1, description="The fields, `[[page.rows]]`."
    )


class GridReader:
    """Pages of one layout."""

    def __init__(self, config: GridConfig, runner: Runner) -> None:
        self._runner = runner
        self._blank_below = config.blank_below
        scale = 1.0 if config.unit == "px" else config.dpi / MM_PER_INCH
        self._fields = {row.name: _boxes(row, config.inset, scale) for row in config.rows}

    def read(self, page: Grey) -> list[PageField]:
        boxes = [box for found in self._fields.values() for box in found]
        answers = recognise(self._runner, [self._crop(page, box) for box in boxes])
        rest = iter(answers)
        return [field_of(name, [next(rest) for _ in found], found) for name, found in self._fields.items()]

    def _crop(self, page: Grey, box: Box) -> Grey | None:
        x, y, width, height = box
        if x + width > page.shape[1] or y + height > page.shape[0]:
            raise ImageError(
                f"a box reaches to ({x + width}, {y + height}), beyond the page of {page.shape[1]} x {page.shape[0]} "
                "pixels; scan at the resolution that the grid's `dpi` says, or correct the grid"
            )
        cut = page[y : y + height, x : x + width]
        paper = int(np.median(cut))
        if float((cut < paper - MIN_CONTRAST).mean()) < self._blank_below:
            return None
        return normalize(cut, *self._runner.spec.image_shape)


def _boxes(row: Row, inset: float, scale: float) -> list[Box]:
    """Return a row's boxes in pixels, inside their lines."""
    width, height = (max(1, round((length - 2 * inset) * scale)) for length in (row.width, row.height))
    pitch = row.width if row.pitch is None else row.pitch
    y = round((row.y + inset) * scale)
    return [(round((row.x + i * pitch + inset) * scale), y, width, height) for i in range(row.count)]
