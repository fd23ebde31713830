"""Depthwise causal convolution as a module."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import causal_conv1d


class CausalConv1d(nn.Conv1d):
    """Depthwise causal convolution over the last axis, x (batch, channels, L) -> (batch, channels, L).

    The ``state_dict`` keys are those of ``nn.Conv1d(channels, channels, width, groups=channels, padding=width - 1)``, which it
    replaces; the last ``width - 1`` outputs of that are cut off. ``activation`` is None or ``"silu"``; the width is 2
    to 4.
    """

    def __init__(self, channels: int, width: int = 4, bias: bool = True, activation: str | None = None) -> None:
        super().__init__(channels, channels, width, groups=channels, padding=width - 1, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return causal_conv1d(x, self.weight[:, 0], self.bias, self.activation)
