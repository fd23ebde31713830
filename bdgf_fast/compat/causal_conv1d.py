"""causal_conv1d's functions and kernels, with its argument names and order, over `bdgf_fast.ops.causal_conv1d`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn import causal_conv1d_update
from ..ops import _check as check
from ..ops import causal_conv1d

__all__ = ["CausalConv1dFn", "causal_conv1d_fn", "causal_conv1d_update", "kernel_bwd", "kernel_fwd", "kernel_update"]


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
    return_final_states = check.flag("return_final_states", return_final_states)
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


class CausalConv1dFn:
    """What causal_conv1d's autograd.Function of this name is called for."""

    apply = staticmethod(causal_conv1d_fn)


# The kernels as their releases have taken them, by the number of arguments after (x, weight, bias) or (x, weight, bias, dout).
_FORWARD: dict[int, tuple[str, ...]] = {
    1: ("silu",),
    2: ("seq_idx", "silu"),
    4: ("seq_idx", "initial_states", "final_states_out", "silu"),
    5: ("seq_idx", "initial_states", "out", "final_states_out", "silu"),
}
_BACKWARD: dict[int, tuple[str, ...]] = {
    2: ("dx", "silu"),
    3: ("seq_idx", "dx", "silu"),
    6: ("seq_idx", "initial_states", "dfinal_states", "dx", "return_dinitial_states", "silu"),
    8: ("seq_idx", "initial_states", "dfinal_states", "dx", "dweight", "dbias", "dinitial_states", "silu"),
}
_UPDATE: dict[int, tuple[str, ...]] = {
    1: ("silu",),
    3: ("silu", "cache_seqlens", "conv_state_indices"),
    4: ("out", "silu", "cache_seqlens", "conv_state_indices"),
}


def kernel_fwd(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """`causal_conv1d_cuda.causal_conv1d_fwd` of every release: out, written where `out` and `final_states_out` say."""
    given = _named("causal_conv1d_fwd", _FORWARD, rest)
    states = given.get("final_states_out")
    found = causal_conv1d_fn(
        x, weight, bias, given.get("seq_idx"), given.get("initial_states"), states is not None, states,
        "silu" if given["silu"] else None,
    )  # fmt: skip
    return _write(given.get("out"), found[0] if isinstance(found, tuple) else found)


def kernel_bwd(x: Tensor, weight: Tensor, bias: Tensor | None, dout: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    """`causal_conv1d_bwd`, likewise: the gradients of x, weight, bias and initial_states, written to those that are given."""
    given = _named("causal_conv1d_bwd", _BACKWARD, rest)
    inputs = [None if v is None else v.detach().requires_grad_() for v in (x, weight, bias, given.get("initial_states"))]
    final = given.get("dfinal_states")
    with torch.enable_grad():
        found = causal_conv1d_fn(
            inputs[0], inputs[1], inputs[2], given.get("seq_idx"), inputs[3], final is not None, None,  # type: ignore[arg-type]
            "silu" if given["silu"] else None,
        )  # fmt: skip
    outputs = found if isinstance(found, tuple) else (found,)
    into = [v for v in (dout, final) if v is not None]
    pairs = [(o, g.to(o.dtype)) for o, g in zip(outputs, into, strict=True)]
    wanted = [v for v in inputs if v is not None]
    slopes = iter(torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs]))
    names = ("dx", "dweight", "dbias", "dinitial_states")
    return tuple(None if v is None else _write(given.get(n), next(slopes)) for n, v in zip(names, inputs, strict=True))


def kernel_update(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """`causal_conv1d_update`, likewise."""
    given = _named("causal_conv1d_update", _UPDATE, rest)
    activation = "silu" if given["silu"] else None
    slots = given.get("cache_seqlens"), given.get("conv_state_indices")
    return _write(given.get("out"), causal_conv1d_update(x, conv_state, weight, bias, activation, *slots))


def _named(function: str, layouts: dict[int, tuple[str, ...]], rest: tuple[Any, ...]) -> dict[str, Any]:
    if len(rest) not in layouts:
        counts = ", ".join(str(n) for n in layouts)
        raise TypeError(f"{function} got {len(rest)} arguments after its tensors; its releases take {counts}")
    return dict(zip(layouts[len(rest)], rest, strict=True))


def _write(place: Tensor | None, values: Tensor) -> Tensor:
    return values if place is None else place.copy_(values)


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
