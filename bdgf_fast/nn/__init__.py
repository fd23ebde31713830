"""Modules over the operations: thin, and with the parameter names of the originals where there is one."""

from .causal_conv1d import CausalConv1d
from .cross_attention import CrossAttention
from .group_channel_attention import GroupChannelAttention
from .group_channel_gate import GroupChannelGate
from .selective_scan import SS2D, Mamba

__all__ = ["CausalConv1d", "CrossAttention", "GroupChannelAttention", "GroupChannelGate", "Mamba", "SS2D"]
