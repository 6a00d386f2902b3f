"""A residual network for embedded devices: about 73,000 parameters and 10 MFLOP an image as configured by default."""

from collections.abc import Sequence

import torch
from torch import nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 projection (He et al. 2015), batch norm after each."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class EdgeNet(nn.Module):
    """Stem, three residual blocks (the first two halve the size), global average pool, linear.

    float32 (N, 1, H, W) -> logits (N, classes). `channels` are those of the stem and of each block.
    """

    def __init__(self, classes: int = 10, channels: Sequence[int] = (16, 24, 40, 48), dropout: float = 0.1) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"channels names the stem and three blocks, so four numbers; got {list(channels)}")
        stem, *widths = channels
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks, cin = [], stem
        for width, stride in zip(widths, (2, 2, 1), strict=True):
            blocks.append(ResidualBlock(cin, width, stride))
            cin = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(cin, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.blocks(self.stem(x)).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(self.dropout(pooled))
        return logits
