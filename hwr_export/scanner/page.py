"""A page, grey uint8 (H, W), dark on light -> its fields. Whatever knows where fields lie is a `PageReader`.

What is read of a page is one batch for the model. A field that has nothing in it has the value None.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hwr_export.glyph import normalize
from hwr_export.reader import Answer, recognise
from hwr_export.runners import Runner
from hwr_export.spec import Strict

Grey = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the page


@dataclass(frozen=True)
class Character:
    """One place for a character: `label` is None where it is empty."""

    label: str | None
    confidence: float
    rejected: bool
    box: Box


@dataclass(frozen=True)
class Field:
    """What stands in one field. `confidence` is its least certain character's; `rejected`: one of them is.

    A form knows more: there `confidence` is the value's own, and `reasons` say why it is rejected.
    """

    name: str
    value: str | None
    confidence: float
    rejected: bool
    characters: tuple[Character, ...]
    reasons: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as a result carries it; reasons where there are some."""
        found = asdict(self)
        if not self.reasons:
            del found["reasons"]
        return found


class PageReader(Protocol):
    """What reads a page."""

    def read(self, page: Grey) -> list[Field]:
        """Return the page's fields.

        Raises:
            ImageError: the page is not one that this reader can read.
            RunnerError: the model's backend failed.
        """


class CropConfig(Strict):
    """The whole image is one character, any size."""

    kind: Literal["crop"] = "crop"


class CropReader:
    """Images of single characters: one field, `character`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def read(self, page: Grey) -> list[Field]:
        (answer,) = recognise(self._runner, [normalize(page, *self._runner.spec.image_shape)])
        height, width = page.shape
        return [field_of("character", [answer], [(0, 0, width, height)])]


def field_of(name: str, answers: Sequence[Answer | None], boxes: Sequence[Box]) -> Field:
    """Join what was read of a field's boxes: an empty box between others is a space, at an end it is nothing."""
    characters = tuple(
        Character(None, 0.0, False, box) if a is None else Character(a.label, a.confidence, a.rejected, box)
        for a, box in zip(answers, boxes, strict=True)
    )
    written = [c for c in characters if c.label is not None]
    return Field(
        name,
        "".join(c.label or " " for c in characters).strip(" ") if written else None,
        min((c.confidence for c in written), default=0.0),
        any(c.rejected for c in written),
        characters,
    )
