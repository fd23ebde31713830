"""Attention between the channels of a group (Zamir et al., "Restormer", arXiv 2111.09881, eq. 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def group_channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | float, *, groups: int) -> Tensor:
    """softmax(tau Q^ K^') V in each group. See `bdgf_fast.ops.group_channel_attention`."""
    real = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (t.to(real).unflatten(1, (groups, -1)) for t in (q, k, v))
    if isinstance(temperature, Tensor):
        temperature = temperature.to(real).reshape(-1, 1, 1)
    scores = F.normalize(q_, dim=-1, eps=1e-12) @ F.normalize(k_, dim=-1, eps=1e-12).transpose(-1, -2)
    return ((temperature * scores).softmax(-1) @ v_).flatten(1, 2).to(q.dtype)
