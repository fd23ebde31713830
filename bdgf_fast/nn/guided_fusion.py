"""Feature fusion as a module: a map and a guide mixed pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GuidedFusion(nn.Module):
    """x + conv1x1(concat(x, conv1x1(guide))): x (B, C, H, W), guide (B, C_guide, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, guide_channels: int) -> None:
        super().__init__()
        self.guide = nn.Conv2d(guide_channels, channels, 1)
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return x + self.merge(torch.cat([x, self.guide(guide)], 1))
