"""Architecture name + configuration -> `nn.Module` in eval mode.

Every model takes float32 (N, C, H, W), already normalised, and returns logits float32 (N, classes).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from hwr_export.errors import CheckpointError
from hwr_export.models.article_cnn import ArticleCNN
from hwr_export.models.edge import EdgeNet


def _torchvision(classes: int, model: str) -> nn.Module:
    from hwr_export.models.torchvision_nets import torchvision_classifier

    return torchvision_classifier(classes, model)


def _resnet(name: str) -> Callable[..., nn.Module]:
    def make(classes: int) -> nn.Module:
        from hwr_export.models.torchvision_nets import small_resnet

        return small_resnet(name, classes)

    return make


# `edge` takes any channels; `edge-s` and `edge-m` are its two sizes: at most 25,000 and 100,000 parameters.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "article-cnn": ArticleCNN,
    "edge": EdgeNet,
    "edge-s": partial(EdgeNet, channels=(8, 16, 24, 24), dropout=0.0),
    "edge-m": partial(EdgeNet, channels=(16, 32, 48, 48), stem_stride=2, project=False),
    "resnet18": _resnet("resnet18"),
    "resnet34": _resnet("resnet34"),
    "torchvision": _torchvision,
}


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
