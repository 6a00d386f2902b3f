"""Held-out characters -> image files such as a person would hand to `hwr-export read`."""

from pathlib import Path

import numpy as np
from PIL import Image

from hwr_export.errors import UsageError
from train.data import split_training_data
from train.recipe import DataRecipe

SCALES = (1, 2, 3, 5)


def write_samples(dataset: str, count: int, out: Path, data_root: Path | None) -> list[Path]:
    """Write `count` validation images as `digit-<label>-<index>.png`, every other one dark on paper.

    Raises:
        UsageError: `count` is not positive, or `out` is a file.
    """
    if count < 1:
        raise UsageError(f"-n takes a positive number, got {count}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder")
    split = split_training_data(DataRecipe.model_validate({"name": dataset}), data_root)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for i, index in enumerate(np.random.default_rng(0).choice(split.validation, count, replace=False)):
        pixels = split.data.images[index]
        if i % 2:
            pixels = (235 - pixels * 0.8).astype(np.uint8)
        side = pixels.shape[1] * SCALES[i % len(SCALES)], pixels.shape[0] * SCALES[i % len(SCALES)]
        path = out / f"digit-{split.data.label_set[split.data.labels[index]]}-{index}.png"
        Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC).save(path)
        written.append(path)
    return written
