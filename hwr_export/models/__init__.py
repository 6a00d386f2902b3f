"""Architecture name + configuration -> `nn.Module` in eval mode.

Every model takes float32 (N, C, H, W), already normalised, and returns logits float32 (N, classes).
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from hwr_export.errors import CheckpointError
from hwr_export.models.article_cnn import ArticleCNN
from hwr_export.models.edge import EdgeNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"article-cnn": ArticleCNN, "edge": EdgeNet}


def build_model(name: str, classes: int, config: dict[str, Any] | None = None) -> nn.Module:
    """Build an architecture by name.

    Raises:
        CheckpointError: unknown name, or a configuration that the architecture does not take.
    """
    if name not in ARCHITECTURES:
        raise CheckpointError(f"there is no architecture {name!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    try:
        return ARCHITECTURES[name](classes=classes, **(config or {})).eval()
    except (TypeError, ValueError) as err:
        raise CheckpointError(f"architecture {name!r} does not take the configuration {config}: {err}") from err


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable scalars."""
    return sum(p.numel() for p in model.parameters())
