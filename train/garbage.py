"""Images that are no character, made anew at every step, so that a model learns not to be sure of them.

Torn pieces of the batch's own characters, soft shadow, bars and grain. Other code makes those that `evaluate` counts;
bars and grain are of the same family as its strokes, specks and noise. The loss on them pulls every class towards the
same probability (outlier exposure, Hendrycks et al. 2019).
"""

import torch
import torch.nn.functional as F


def garbage_like(images: torch.Tensor) -> torch.Tensor:
    """Return as many images that are no character as there are characters, float32 (N, 1, H, W) in [0, 1]."""
    kinds = [_scrambled, _smooth, _bars, _grain]
    parts = images.chunk(len(kinds))
    return torch.cat([make(part) for make, part in zip(kinds, parts, strict=False)])


def garbage_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of float32 logits (N, classes) against the uniform distribution."""
    return -F.log_softmax(logits, dim=1).mean()


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
