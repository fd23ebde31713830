"""Scaled dot-product attention (Vaswani et al., arXiv 1706.03762, eq. 1) between two sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .philox import dropout_keep


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
) -> Tensor:
    """softmax(scale Q K' + bias) V, rows without a key give 0. See `bdgf_fast.ops.cross_attention`."""
    real = torch.promote_types(query.dtype, torch.float32)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query.to(real) * scale) @ key.to(real).transpose(-1, -2)
    if attn_bias is not None:
        scores = scores + attn_bias.to(real)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None, :], -torch.inf)
    if key_mask is not None or attn_bias is not None:
        dead = (scores == -torch.inf).all(-1, keepdim=True)  # their softmax would be 0 / 0
        weights = scores.masked_fill(dead, 0.0).softmax(-1).masked_fill(dead, 0.0)
    else:
        weights = scores.softmax(-1)
    if dropout_p > 0.0:
        assert seed is not None
        batch, heads, rows, columns = weights.shape
        keep = dropout_keep(batch, heads, rows, columns, dropout_p, seed, query.device)
        weights = weights * keep / (1.0 - dropout_p)  # a product, as in torch: what is not finite remains so
    return (weights @ value.to(real)).to(query.dtype)
