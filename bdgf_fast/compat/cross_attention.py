"""torch's name for attention, with torch's arguments, over `bdgf_fast.ops.cross_attention`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import _check as check
from ..ops import cross_attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` on the kernels of `bdgf_fast.ops.cross_attention`.

    Args:
        query: (..., heads, Lq, d), or (..., Lq, d) with up to one axis in front.
        key, value: (..., heads or, with enable_gqa, a divisor of it, Lk, d); value's depth may differ.
        attn_mask: broadcastable to (..., heads, Lq, Lk): bool, True = attend, or float, added to the scores.
        dropout_p: as in torch it acts whenever it is above 0; the mask follows torch's seed, by another generator.
        is_causal: query i sees keys 0..i; not with attn_mask.
        scale: 1/sqrt(d) when None.

    Returns:
        (..., heads, Lq, value's depth) in query's dtype. A row that may attend to nothing gives 0.

    Raises:
        ValueError, TypeError: an argument's shape, dtype or device does not fit, and which.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check.a_tensor(name, x)
    is_causal, enable_gqa = check.flag("is_causal", is_causal), check.flag("enable_gqa", enable_gqa)
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError("query, key and value take at least 2 dimensions, (..., L, d)")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask is given with is_causal; give one of them")
    if 0 in (*query.shape[-2:], *key.shape[-2:], *value.shape[-2:]):  # nothing to attend to: torch says what that gives
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        if key.dim() < 3 or query.shape[-3] % key.shape[-3] or query.shape[-3] % value.shape[-3]:
            raise ValueError(f"key has shape {tuple(key.shape)}; enable_gqa takes heads that divide query's")
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
    rows, columns, depth, value_depth = query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1]
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    batch, heads = math.prod(lead[:-1]), lead[-1] if lead else 1
    scale = 1.0 / math.sqrt(depth) if scale is None else scale
    if value_depth != depth:  # zeros add nothing to a score, and their outputs are cut off
        widest = max(depth, value_depth)
        query, key, value = (F.pad(x, (0, widest - x.shape[-1])) for x in (query, key, value))
    query, key, value = (
        x.expand(*lead, *x.shape[-2:]).reshape(batch, heads, *x.shape[-2:]) for x in (query, key, value)
    )
    if is_causal:
        attn_mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    key_mask = attn_bias = None
    if attn_mask is not None:
        attn_bias = _four_dimensions(attn_mask, lead).expand(-1, -1, -1, columns)
        if attn_bias.dtype is torch.bool:
            if attn_bias.shape[1:3] == (1, 1):
                key_mask, attn_bias = attn_bias[:, 0, 0].expand(batch, columns), None
            else:
                zeros = torch.zeros(attn_bias.shape, dtype=query.dtype, device=query.device)
                attn_bias = zeros.masked_fill(~attn_bias, -torch.inf)
    seed = torch.randint(2**62, (), device=query.device) if dropout_p > 0.0 else None
    out = cross_attention(
        query, key, value, key_mask=key_mask, attn_bias=attn_bias, scale=scale, dropout_p=dropout_p, seed=seed
    )
    return out[..., :value_depth].reshape(*lead, rows, value_depth)


def _four_dimensions(mask: Tensor, lead: tuple[int, ...]) -> Tensor:
    """A mask broadcastable to (*lead, Lq, Lk) as (1 or batch, 1 or heads, 1 or Lq, 1 or Lk)."""
    front = (len(lead) or 1) + 2 - mask.dim()
    if front < 0:
        raise ValueError(f"attn_mask has shape {tuple(mask.shape)}; it takes at most {(len(lead) or 1) + 2} dimensions")
    mask = mask.reshape(*[1] * front, *mask.shape)
    if any(size != 1 for size in mask.shape[:-3]):
        return mask.expand(*lead[:-1], *mask.shape[-3:]).reshape(math.prod(lead[:-1]), *mask.shape[-3:])
    return mask.reshape(1, *mask.shape[-3:])
