"""Modules over the operations: thin, and with the parameter names of the originals where there is one."""

from .causal_conv1d import CausalConv1d
from .cross_attention import CrossAttention
from .group_channel_attention import GroupChannelAttention
from .group_channel_gate import GroupChannelGate
from .guided_fusion import GuidedFusion
from .recurrent_step import causal_conv1d_update, selective_state_update
from .selective_scan import SS2D, Mamba

__all__ = [
    "SS2D",
    "CausalConv1d",
    "CrossAttention",
    "GroupChannelAttention",
    "GroupChannelGate",
    "GuidedFusion",
    "Mamba",
    "causal_conv1d_update",
    "selective_state_update",
]
