"""Held-out glyphs -> the hand that fills a page: whose characters it has, and what they look like in ink.

Glyphs are uint8 (28, 28), white on black, that no model of the project has learnt from; digits come with their writer.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwr_export.datasets import content_sha256, load_chars62
from hwr_export.errors import DataError
from hwr_export.labels import DIGITS
from train.data import load_test, split_training_data
from train.recipe import DataRecipe

Part = Literal["test", "validation"]
Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Rng = np.random.Generator

SIDE = 28
LONGER = 20.0  # pixels of a glyph that its longer side takes, as MNIST normalises
VISIBLE = 64  # grey level from which a pixel counts as ink
SMOOTH = 0.4  # of a glyph before it is enlarged, in its pixels: without it the enlarged stroke shows stairs
EDGE = 0.3  # of full ink, over which an edge goes from paper to ink: about 0.1 mm
TILE = 512
SMALL = "acemnorsuvwxz"  # small letters without ascender or descender
BELOW = "gpqy"


@dataclass(frozen=True)
class Pool:
    """Glyphs of one source, in the order of the part that they are of."""

    source: str
    images: Grey  # uint8 (N, 28, 28)
    characters: npt.NDArray[np.str_]  # (N,)
    writers: npt.NDArray[np.int32] | None

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """What the characters are, as numbers, int64 (N,)."""
        return np.array([ord(str(c)) for c in self.characters], dtype=np.int64)

    @cached_property
    def by_character(self) -> dict[str, npt.NDArray[np.int64]]:
        return {str(c): np.flatnonzero(self.characters == c) for c in np.unique(self.characters)}

    @cached_property
    def by_writer(self) -> dict[int, npt.NDArray[np.int64]]:
        assert self.writers is not None
        return {int(w): np.flatnonzero(self.writers == w) for w in np.unique(self.writers)}


@dataclass(frozen=True)
class Hands:
    """All glyphs that pages of one kind may be written with."""

    part: Part
    digits: Pool
    characters: Pool | None  # of all 62 characters; None for forms of digits alone


def load_hands(part: Part, letters: bool, root: Path | None = None) -> Hands:
    """Load the glyphs of a part; validation is what the recipes hold out of MNIST, and chars62's own part.

    Args:
        letters: whether the form has fields in which letters may stand.

    Raises:
        DataError: a dataset is missing or broken.
    """
    digits = _pool("mnist", part, root)
    if not letters:
        return Hands(part, digits, None)
    try:
        load_chars62(part, root)
    except DataError as err:
        raise DataError(f"the form has fields for letters, and those are written with chars62: {err}") from err
    return Hands(part, digits, _pool("chars62", part, root))


def identities(hands: Hands) -> dict[str, str]:
    """Return the sha256 of each source's glyphs and what they are."""
    return {pool.source: content_sha256(pool.images, pool.numbers) for pool in (hands.digits, hands.characters) if pool}


def _pool(name: Literal["mnist", "chars62"], part: Part, root: Path | None) -> Pool:
    recipe = DataRecipe(name=name)
    if part == "test":
        data = load_test(recipe, root)
        index = np.arange(len(data))
    else:
        split = split_training_data(recipe, root)
        data, index = split.data, split.validation
    characters = np.array(list(data.label_set))[data.labels[index]]
    writers = None if data.writers is None else data.writers[index]
    return Pool(f"{name} {part}", data.images[index], characters, writers)


@dataclass
class PageHand:
    """Who fills one page. Each of a writer's images of a character is used before one is used again."""

    hands: Hands
    rng: Rng
    writer: int | None = None
    borrowed: dict[str, int] = field(default_factory=dict)  # characters of other writers: how often
    _queues: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        writers = self.hands.digits.writers
        if writers is not None:
            # By how much they wrote, so that each image is as likely as any other.
            self.writer = int(self.rng.choice(writers))

    def has(self, text: str) -> bool:
        """Tell whether the writer has an image of every digit of a text."""
        return all(len(self._own(c)) for c in set(text) & set(DIGITS))

    def glyph(self, character: str, letters: bool) -> tuple[str, int, Grey]:
        """Return an image of a character: its source, its number there, and its pixels.

        Args:
            letters: whether letters may stand beside it; then all characters come from the source that has letters.
        """
        pool = self.hands.digits
        if letters or character not in DIGITS:
            assert self.hands.characters is not None
            pool = self.hands.characters
            candidates = pool.by_character[character]
        else:
            candidates = self._own(character)
            if not len(candidates):
                self.borrowed[character] = self.borrowed.get(character, 0) + 1
                candidates = pool.by_character[character]
        queue = self._queues.setdefault((pool.source, character), [])
        if not queue:
            queue += self.rng.permutation(candidates).tolist()
        number = queue.pop()
        return pool.source, number, pool.images[number]

    def _own(self, digit: str) -> npt.NDArray[np.int64]:
        pool = self.hands.digits
        if self.writer is None:
            return pool.by_character[digit]
        own = pool.by_writer[self.writer]
        return np.asarray(own[pool.characters[own] == digit], dtype=np.int64)


@dataclass(frozen=True)
class Pen:
    """How a page's strokes look. Lengths in mm."""

    height: float  # of a character's longer side
    level: float  # of the enlarged glyph, at which its stroke ends: lower is thicker
    darkness: float  # share of the light that full ink takes away
    slant: float  # shear, to the right
    tilt_deg: float
    drift: tuple[float, float]  # of all characters in their boxes
    crossing: float  # most that a character is out of its place besides; none crosses its box at 0
    direction: float  # radians, in which most of them are
    slope: float  # of lines of writing

    @property
    def width(self) -> str:
        """In a word."""
        return "thick" if self.level < 0.36 else "thin" if self.level > 0.5 else "normal"

    @property
    def stroke_mm(self) -> float:
        """Of what is drawn with it besides characters."""
        return 0.5 + 1.2 * (0.42 - self.level)


def draw_pen(rng: Rng, crossing: float) -> Pen:
    """Return a pen and the habits of a hand; `crossing` in mm."""
    return Pen(
        height=float(rng.uniform(4.2, 5.3)),
        level=float(
            rng.choice([rng.uniform(0.26, 0.36), rng.uniform(0.36, 0.5), rng.uniform(0.5, 0.58)], p=[0.25, 0.5, 0.25])
        ),
        darkness=float(rng.uniform(0.62, 0.93)),
        slant=float(rng.normal(0, 0.05)),
        tilt_deg=float(rng.normal(0, 1.2)),
        drift=(float(rng.normal(0, 0.15)), float(rng.normal(0, 0.2))),
        crossing=crossing,
        direction=float(rng.uniform(0, 2 * np.pi)),
        slope=float(rng.normal(0, 0.006)),
    )
