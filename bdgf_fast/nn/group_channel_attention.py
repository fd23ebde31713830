"""Group channel attention as a module: transposed attention over channels, inside groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import group_channel_attention


class GroupChannelAttention(nn.Module):
    """Queries from x (B, C, H, W), keys and values from guide (B, C_guide, H, W); returns (B, C, H, W), no residual.

    Attention is between the C / groups channels of a group; each group has one learned temperature.
    """

    def __init__(self, channels: int, guide_channels: int, groups: int = 4) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels {channels} is not a multiple of groups {groups}")
        self.groups = groups
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key_value = nn.Conv2d(guide_channels, 2 * channels, 1, bias=False)
        self.temperature = nn.Parameter(torch.ones(groups))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        q, (k, v) = self.query(x).flatten(2), self.key_value(guide).flatten(2).chunk(2, dim=1)
        y = group_channel_attention(q, k, v, self.temperature, groups=self.groups)
        return self.out(y.view_as(x))
