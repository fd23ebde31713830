"""Depthwise causal convolution along L, as in front of Mamba's scan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """out_l = act(bias + sum_w weight_w x_{l - width + 1 + w}). See `bdgf_fast.ops.causal_conv1d`."""
    dim, width = weight.shape
    real = torch.promote_types(x.dtype, torch.float32)
    bias = None if bias is None else bias.to(real)
    out = F.conv1d(F.pad(x.to(real), (width - 1, 0)), weight.to(real).unsqueeze(1), bias, groups=dim)
    return (out if activation is None else F.silu(out)).to(x.dtype)
