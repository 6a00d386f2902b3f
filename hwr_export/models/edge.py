"""A residual network for embedded devices: about 73,000 parameters and 10 MFLOP an image as configured by default.

`stem_stride` 2 looks at 5 x 5 pixels and halves the size at once: a convolution of one channel at full size costs a
vector unit as much as one of 16 and does a sixteenth of the work (docs/latency.md).
"""

from collections.abc import Sequence

import torch
from torch import nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 projection (He et al. 2015), batch norm after each."""

    def __init__(self, cin: int, cout: int, stride: int, project: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        projection = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
        self.shortcut = projection if project or cin != cout or stride != 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class EdgeNet(nn.Module):
    """Stem, three residual blocks, global average pool, linear; the size is halved twice.

    float32 (N, 1, H, W) -> logits (N, classes). `channels` are those of the stem and of each block. With `project`
    False a block whose input and output have one shape adds its input as it is.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: Sequence[int] = (16, 24, 40, 48),
        dropout: float = 0.1,
        stem_stride: int = 1,
        project: bool = True,
    ) -> None:
        super().__init__()
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is 1 or 2, got {stem_stride}")
        if len(channels) != 4:
            raise ValueError(f"channels names the stem and three blocks, so four numbers; got {list(channels)}")
        stem, *widths = channels
        size = 3 if stem_stride == 1 else 5
        first = nn.Conv2d(1, stem, size, stem_stride, padding=size // 2, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(stem), nn.ReLU())
        blocks, cin = [], stem
        for width, stride in zip(widths, (2 // stem_stride, 2, 1), strict=True):
            blocks.append(ResidualBlock(cin, width, stride, project))
            cin = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(cin, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.blocks(self.stem(x)).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(self.dropout(pooled))
        return logits
