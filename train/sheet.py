"""What the network gets to see -> `augmented.png`: a row a character, the image first, then distortions of it."""

import io
from pathlib import Path

import torch
from PIL import Image

from hwr_export.files import write_atomic
from train.augment import augment
from train.garbage import garbage_like
from train.recipe import Recipe

ROWS, COLUMNS, ZOOM, GAP = 10, 12, 2, 2


def write_sheet(path: Path, images: torch.Tensor, recipe: Recipe, labels: str) -> None:
    """Draw distorted images of the first characters; with `garbage_weight`, last two rows of what is no character.

    Args:
        images: float32 (N, 1, H, W) in [0, 1].
        labels: the characters to be read, which decide what is none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        rows = [
            torch.cat([image[None], augment(image.expand(COLUMNS - 1, 1, -1, -1), recipe.augment)])
            for image in images[:ROWS].cpu()
        ]
        if recipe.garbage_weight:
            source = augment(images[: 2 * COLUMNS].cpu(), recipe.augment)
            rows += list(garbage_like(source, labels).split(COLUMNS))
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    sheet = torch.full((len(rows) * height + GAP, COLUMNS * width + GAP), 0.35)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = GAP + i * height, GAP + j * width
            sheet[top : top + image.shape[1], left : left + image.shape[2]] = image[0]
    pixels = (sheet * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels).resize((pixels.shape[1] * ZOOM, pixels.shape[0] * ZOOM), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
