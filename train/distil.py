"""Larger models -> soft targets for a smaller one, computed on the very images that the smaller one sees.

Hinton et al. 2015; Beyer et al. 2022 show why teacher and student must look at the same distortion.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from hwr_export.checkpoint import load_checkpoint
from hwr_export.errors import UsageError
from train.recipe import DistilRecipe


class Teachers:
    """The mean of the probabilities of one or several checkpoints, at the recipe's temperature."""

    def __init__(self, recipe: DistilRecipe, labels: str, shape: tuple[int, int], device: torch.device) -> None:
        """Load the teachers.

        Raises:
            CheckpointError: one cannot be loaded.
            UsageError: one has other labels or another input than the student.
        """
        self.recipe = recipe
        self.parents: dict[str, str] = {}
        self._members = []
        for i, path in enumerate(recipe.teachers):
            checkpoint = load_checkpoint(Path(path))
            info = checkpoint.info
            found = (info.labels, (info.preprocessing.height, info.preprocessing.width))
            if found != (labels, shape):
                raise UsageError(
                    f"distil.teachers: {path} answers {info.labels!r} on {found[1][0]} x {found[1][1]}, "
                    f"the student {labels!r} on {shape[0]} x {shape[1]}; they must be the same"
                )
            module = checkpoint.module.to(device, memory_format=torch.channels_last)
            self._members.append((module, info.preprocessing.mean, info.preprocessing.std))
            self.parents[f"teacher {i + 1}"] = info.weights.sha256

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, classes) of images float32 (N, 1, H, W) in [0, 1], softened."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            answers = [module((images - mean) / std).float() for module, mean, std in self._members]
        return torch.stack([F.softmax(a / self.recipe.temperature, dim=1) for a in answers]).mean(0)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean KL divergence from the teachers' softened answers, times the temperature squared."""
        softened = F.log_softmax(logits / self.recipe.temperature, dim=1)
        return F.kl_div(softened, targets, reduction="batchmean") * self.recipe.temperature**2
