"""torchvision's classifiers for small grey images: one input channel, and ResNets that keep the resolution."""

import copy

import torchvision
from torch import nn


def small_resnet(name: str, classes: int) -> nn.Module:
    """Return torchvision's ResNet with a 3 x 3, stride 1 stem and no first pooling (He et al. 2015, CIFAR variant)."""
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def torchvision_classifier(classes: int, model: str) -> nn.Module:
    """Return any torchvision classifier by name, its first convolution made to take one channel.

    Raises:
        ValueError: torchvision has no classifier of that name, or it has no convolution to change.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise ValueError(f"torchvision has no classifier {model!r}; known: {', '.join(known)}")
    network: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=classes)
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, _one_channel(child))
                return network
    raise ValueError(f"{model} has no convolution that could take one channel")


def _one_channel(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the same convolution for one channel; the others of its settings stay."""
    if conv.groups != 1:
        raise ValueError("its first convolution is grouped and cannot take one channel")
    grey = copy.deepcopy(conv)
    grey.in_channels = 1
    grey.weight = nn.Parameter(conv.weight[:, :1].detach().clone())
    grey.reset_parameters()
    return grey
