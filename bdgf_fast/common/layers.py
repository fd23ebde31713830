"""Layers that the U-Net and the group network share."""

from __future__ import annotations

from torch import Tensor, nn


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel; x (B, C, H, W), any memory format.

    A channels-last tensor seen as (B, H, W, C) is contiguous, so neither permutation copies anything.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
