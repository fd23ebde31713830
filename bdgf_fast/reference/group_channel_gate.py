"""A squeeze-and-excitation gate (Hu et al., arXiv 1709.01507) per group of channels, guided by a second feature map."""

from __future__ import annotations

import torch
from torch import Tensor


def group_channel_gate(
    x: Tensor,
    guide: Tensor | None,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    groups: int,
    gate_source: str = "both",
) -> Tensor:
    """x * sigmoid(MLP_g(mean of x and guide)). See `bdgf_fast.ops.group_channel_gate`."""
    real = torch.promote_types(x.dtype, torch.float32)
    sources = {"x": (x,), "guide": (guide,), "both": (x, guide)}[gate_source]
    squeezed = torch.cat([s.to(real).mean((2, 3)).unflatten(1, (groups, -1)) for s in sources if s is not None], dim=-1)
    hidden = torch.einsum("bgi,ghi->bgh", squeezed, weight1.to(real)) + bias1.to(real)
    logits = torch.einsum("bgh,gch->bgc", hidden.relu(), weight2.to(real)) + bias2.to(real)
    return (x.to(real) * logits.sigmoid().flatten(1)[:, :, None, None]).to(x.dtype)
