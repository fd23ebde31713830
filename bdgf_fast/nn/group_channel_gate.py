"""Group channel gate as a module: squeeze-and-excitation by groups, guided by a second map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import group_channel_gate


class GroupChannelGate(nn.Module):
    """x (B, C, H, W) times a gate per channel, which a small MLP per group computes from the spatial means of x and
    guide.

    ``groups`` divides C and C_guide. ``gate_source``: ``"x"``, ``"guide"`` or ``"both"``. The gate starts near 1/2 for
    all channels.
    """

    def __init__(
        self, channels: int, guide_channels: int, groups: int = 4, reduction: int = 2, gate_source: str = "both"
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("guide_channels", guide_channels)):
            if value % groups:
                raise ValueError(f"{name} {value} is not a multiple of groups {groups}")
        own = channels // groups
        taken = (own if gate_source != "guide" else 0) + (guide_channels // groups if gate_source != "x" else 0)
        hidden = max(own // reduction, 1)
        self.groups, self.gate_source = groups, gate_source
        self.weight1 = nn.Parameter(torch.randn(groups, hidden, taken) * (2 / taken) ** 0.5)
        self.bias1 = nn.Parameter(torch.zeros(groups, hidden))
        self.weight2 = nn.Parameter(torch.randn(groups, own, hidden) * hidden**-0.5)
        self.bias2 = nn.Parameter(torch.zeros(groups, own))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return group_channel_gate(
            x,
            guide,
            self.weight1,
            self.bias1,
            self.weight2,
            self.bias2,
            groups=self.groups,
            gate_source=self.gate_source,
        )
