"""How a diffusion feature guides a branch after one of its stages.

The abstract of the BDGF paper names three ways: feature fusion, group channel attention and cross-attention. Each is a
residual map (x, guide) -> x' with x (B, C, H, W) and guide (B, C_guide, H, W), so any branch can take any of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.layers import PixelNorm
from ..nn import CrossAttention, GroupChannelAttention, GroupChannelGate, GuidedFusion


class Fusion(GuidedFusion):
    """Feature fusion: x + conv1x1(concat(x, conv1x1(guide)))."""

    def __init__(self, width: int, guide: int, heads: int, groups: int, window: int | None = None) -> None:
        super().__init__(width, guide)


class Gate(nn.Module):
    """Group channel attention as a gate: channels of (x + conv1x1(guide)) weighted by both maps' spatial means."""

    def __init__(self, width: int, guide: int, heads: int, groups: int, window: int | None = None) -> None:
        super().__init__()
        self.guide, self.gate = nn.Conv2d(guide, width, 1), GroupChannelGate(width, width, groups)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        guide = self.guide(guide)
        return x + self.gate(x + guide, guide)


class ChannelAttention(nn.Module):
    """Group channel attention as transposed attention: channels of x query those of the guide."""

    def __init__(self, width: int, guide: int, heads: int, groups: int, window: int | None = None) -> None:
        super().__init__()
        self.norm, self.attention = PixelNorm(width), GroupChannelAttention(width, guide, groups)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return x + self.attention(self.norm(x), guide)


class RelativeBias(nn.Module):
    """A learned bias of the attention scores by head and by the offset between two pixels of a window: (1, heads, side^2,
    side^2)."""

    index: Tensor

    def __init__(self, heads: int, side: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, (2 * side - 1) ** 2))
        offset = torch.arange(side)[:, None] - torch.arange(side) + side - 1
        index = offset[:, None, :, None] * (2 * side - 1) + offset[None, :, None, :]
        self.register_buffer("index", index.reshape(side**2, side**2), persistent=False)

    def forward(self) -> Tensor:
        return self.table[:, self.index][None]


class TokenCrossAttention(nn.Module):
    """Cross-attention: every pixel of x queries the pixels of the guide; in windows, with a learned bias by their offset."""

    def __init__(self, width: int, guide: int, heads: int, groups: int, window: int | None = None) -> None:
        super().__init__()
        self.norm, self.guide = PixelNorm(width), nn.Conv2d(guide, width, 1)
        self.attention = CrossAttention(width, heads)
        self.bias = None if window is None else RelativeBias(heads, window)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        bias = None if self.bias is None else self.bias()
        y = self.attention(tokens(self.norm(x)), tokens(self.guide(guide)), attn_bias=bias)
        return x + y.transpose(1, 2).view(batch, width, height, columns)


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


GUIDANCE = {
    "fusion": Fusion,
    "gate": Gate,
    "channel_attention": ChannelAttention,
    "cross_attention": TokenCrossAttention,
}
