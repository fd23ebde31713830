"""causal_conv1d's functions, with its argument names and order, over `bdgf_fast.ops.causal_conv1d`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn import causal_conv1d_update
from ..ops import _check as check
from ..ops import causal_conv1d

__all__ = ["causal_conv1d_fn", "causal_conv1d_update"]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise causal convolution of x (batch, dim, L) with weight (dim, width), width 2 to 4.

    Args:
        x, weight, bias, activation: as for `bdgf_fast.ops.causal_conv1d`.
        seq_idx: int (batch, L), which of several packed sequences each step belongs to; none sees into another, and a
            negative number marks padding, whose output is act(0). Runs on torch operations, not on a kernel.
        initial_states: (batch, dim, width - 1), the steps before the first (of the first sequence).
        return_final_states: return (out, final_states), the last width - 1 steps, zeros before the first; not with
            seq_idx. Gradients pass through both states.
        final_states_out: where to write them.

    Any layout of x will do. Errors as for `bdgf_fast.ops.causal_conv1d`.
    """
    check.a_tensor("x", x, 3, "(batch, dim, L)")
    check.a_tensor("weight", weight, 2, "(dim, width)")
    past = weight.shape[1] - 1
    if initial_states is not None:
        check.beside("initial_states", initial_states, x)
        check.shape("initial_states", initial_states, (*x.shape[:2], past), "(batch, dim, width - 1)")
        initial_states = initial_states.to(x.dtype)
    if seq_idx is not None:
        if return_final_states:
            raise ValueError("return_final_states is True; with seq_idx it takes False")
        return _packed_sequences(x, weight, bias, seq_idx, initial_states, activation)
    steps = x if initial_states is None else torch.cat([initial_states, x], dim=-1)
    out = causal_conv1d(steps, weight, bias, activation)
    if initial_states is not None:
        out = out[..., past:]
    if not return_final_states:
        return out
    final_states = F.pad(steps, (past - steps.shape[-1], 0))  # cut to the last steps, or filled up with zeros
    if final_states_out is not None:
        final_states = final_states_out.copy_(final_states)
    return out, final_states


def _packed_sequences(x, weight, bias, seq_idx, initial_states, activation):
    check.choice("activation", activation, (None, "silu", "swish"))
    check.a_tensor("seq_idx", seq_idx, 2, "(batch, L)")
    batch, dim, length = x.shape
    check.shape("seq_idx", seq_idx, (batch, length), "(batch, L)")
    past = weight.shape[1] - 1
    if initial_states is None:
        initial_states, before = x.new_zeros(batch, dim, past), seq_idx.new_full((batch, past), -1)
    else:
        before = seq_idx[:, :1].expand(-1, past)
    steps, owner = torch.cat([initial_states, x], dim=-1), torch.cat([before, seq_idx], dim=-1)
    real = torch.promote_types(x.dtype, torch.float32)
    out = torch.zeros_like(x, dtype=real)
    for i, tap in enumerate(weight.to(real).unbind(1)):
        same = (owner[:, i : i + length] == seq_idx).unsqueeze(1)
        out = out + tap.unsqueeze(-1) * steps[..., i : i + length].to(real).masked_fill(~same, 0.0)
    if bias is not None:
        out = out + bias.to(real).unsqueeze(-1)
    out = out.masked_fill((seq_idx < 0).unsqueeze(1), 0.0)
    return (out if activation is None else F.silu(out)).to(x.dtype)
