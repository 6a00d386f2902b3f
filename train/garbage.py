"""Images that are no character, made anew at every step, so that a model learns not to be sure of them.

Torn pieces of the batch's own characters, soft shadow, bars, grain and marks; with `garbage_data`, half are real images
of other characters. Other code makes those that `evaluate` counts, some of the same families. The loss pushes their
best class below one half (outlier exposure, Hendrycks et al. 2019, with a hinge).
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hwr_export.datasets import Dataset
from hwr_export.errors import UsageError
from train.data import split_training_data
from train.recipe import Recipe

UNSURE = 0.5  # confidence below which no scanner accepts


def other_characters(recipe: Recipe, data: Dataset, root: Path | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the training part of the recipe's `garbage_data`, uint8 (M, H, W); no image where it names none.

    Raises:
        UsageError: among them is a character that the model is to read, or nothing weighs them.
        DataError: they are missing or broken.
    """
    if recipe.garbage_data is None:
        return data.images[:0]
    if not recipe.garbage_weight:
        raise UsageError(
            "garbage_data without garbage_weight would never be looked at; give the weight, 0.2 to begin with"
        )
    found = split_training_data(recipe.garbage_data, root)
    both = sorted(set(found.data.label_set) & set(data.label_set))
    if both:
        raise UsageError(
            f"garbage_data holds {', '.join(both)}, which the model is to read; name the others in garbage_data.classes"
        )
    if found.data.images.shape[1:] != data.images.shape[1:]:
        raise UsageError(
            f"garbage_data has images of {found.data.images.shape[1:]} pixels, data {data.images.shape[1:]}"
        )
    return found.data.images[found.train]


def garbage_like(images: torch.Tensor, labels: str) -> torch.Tensor:
    """Return as many images that are no character as there are characters, float32 (N, 1, H, W) in [0, 1].

    Args:
        labels: where letters are among them, marks are of one piece: two and three make L, T, V, X, Y, H.
    """
    pieces = 1 if any(c.isalpha() for c in labels) else 3
    kinds = [_scrambled, _smooth, _bars, _grain, partial(_marks, most=pieces)]
    parts = images.tensor_split(len(kinds))
    return torch.cat([make(part) for make, part in zip(kinds, parts, strict=True)])


def garbage_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of how far, in nats, the best class of float32 logits (N, classes) is above UNSURE.

    Nothing more is asked: pulling garbage all the way to a uniform answer costs accuracy on characters like it.
    """
    return F.relu(F.log_softmax(logits, dim=1).amax(1) - math.log(UNSURE)).mean()


def _scrambled(images: torch.Tensor) -> torch.Tensor:
    """Quarters of different characters: strokes without a character."""
    height, width = images.shape[2] // 2, images.shape[3] // 2
    torn = images.clone()
    for rows in (slice(0, height), slice(height, None)):
        for columns in (slice(0, width), slice(width, None)):
            order = torch.randperm(len(images), device=images.device)
            torn[:, :, rows, columns] = images[order][:, :, rows, columns].flip(2 if rows.start else 3)
    return torn


def _smooth(images: torch.Tensor) -> torch.Tensor:
    """Soft light and shadow, as of a fold or a thumb."""
    coarse = torch.rand(len(images), 1, 4, 4, device=images.device)
    field = F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=True)
    return field * torch.rand(len(images), 1, 1, 1, device=images.device)


def _bars(images: torch.Tensor) -> torch.Tensor:
    """A straight bar across the frame at any angle, and sometimes a second: box lines."""
    n, _, height, width = images.shape
    y = torch.linspace(-1, 1, height, device=images.device).view(1, 1, height, 1)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, width)

    def bar() -> torch.Tensor:
        angle, offset, half = (torch.rand(n, 1, 1, 1, device=images.device) for _ in range(3))
        distance = (x * torch.cos(angle * torch.pi) + y * torch.sin(angle * torch.pi) - (2 * offset - 1)).abs()
        return (1 - (distance - 0.02 - 0.12 * half).clamp(min=0) * 15).clamp(0, 1)

    second = torch.rand(n, 1, 1, 1, device=images.device) < 0.5
    return torch.maximum(bar(), bar() * second)


def _grain(images: torch.Tensor) -> torch.Tensor:
    """Paper grain, dust and dropped pixels, from a few specks to all of the frame."""
    density = torch.rand(len(images), 1, 1, 1, device=images.device) ** 2
    hit = torch.rand_like(images) < density
    return hit * torch.rand_like(images)


def _marks(images: torch.Tensor, most: int) -> torch.Tensor:
    """Dots, dashes, crosses and stars: up to `most` straight pieces. Never one upright piece alone, which is a 1."""
    n, _, height, width = images.shape
    device = images.device
    y = torch.linspace(-1, 1, height, device=device).view(1, 1, height, 1)
    x = torch.linspace(-1, 1, width, device=device).view(1, 1, 1, width)
    pieces = torch.randint(1, most + 1, (n, 1, 1, 1), device=device)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, device=device)

    def piece(angle: torch.Tensor) -> torch.Tensor:
        centre_x, centre_y, half_length, half_width = (
            uniform(-0.3, 0.3), uniform(-0.3, 0.3), uniform(0, 0.7), uniform(0.05, 0.3)
        )  # fmt: skip
        along = (x - centre_x) * angle.cos() + (y - centre_y) * angle.sin()
        across = (y - centre_y) * angle.cos() - (x - centre_x) * angle.sin()
        distance = torch.hypot(along - along.clamp(-half_length, half_length), across)
        return (1 - (distance - half_width) * width / 3).clamp(0, 1)

    mark = piece(uniform(-0.6, 0.6))
    for i in (2, 3):
        mark = torch.maximum(mark, piece(uniform(0, torch.pi)) * (pieces >= i))
    return mark
