"""mamba_ssm's functions and VMamba's kernels, with their argument names and order, over `bdgf_fast.ops.selective_scan`."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from .. import reference
from ..nn import selective_state_update
from ..ops import selective_scan

__all__ = [
    "SelectiveScanFn",
    "core_fwd",
    "cross_scan_bwd",
    "mamba_bwd",
    "mamba_fwd",
    "oflex_fwd",
    "selective_scan_fn",
    "selective_scan_ref",
    "selective_state_update",
]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`bdgf_fast.ops.selective_scan`, and inputs of mixed float dtypes are brought to their common one.

    The last state is right for a constant B as well, and gradients pass through it.
    """
    sequences = _common_dtype(u, delta, z, B if B.dim() > 2 else None, C if C.dim() > 2 else None)
    found = selective_scan(
        sequences[0], sequences[1], A, B if B.dim() == 2 else sequences[3], C if C.dim() == 2 else sequences[4], D,
        sequences[2], delta_bias, delta_softplus, return_last_state,
    )  # fmt: skip
    return (found[0].to(u.dtype), found[1]) if isinstance(found, tuple) else found.to(u.dtype)


class SelectiveScanFn:
    """What mamba_ssm's autograd.Function of this name is called for."""

    apply = staticmethod(selective_scan_fn)


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The same in plain PyTorch, step by step: `bdgf_fast.reference.selective_scan`."""
    return reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def _common_dtype(*tensors: Tensor | None) -> list[Any]:
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in tensors if x is not None])
    return [None if x is None else x.to(dtype) for x in tensors]


def oflex_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows, out_float):
    """VMamba's `selective_scan_cuda_oflex.fwd`: returns [out, x], out in float32 if out_float.

    u (batch, dim, L), delta (batch, dim or a divisor of it, L), B and C (batch, G, N, L). x (batch, dim, 1, 2 N) holds the
    last state in its odd places, where callers look for it; the states that the original keeps there for its backward are
    not needed.
    """
    dtype = torch.promote_types(u.dtype, torch.float32) if out_float else u.dtype
    inputs, edge, out, state = _recorded(dtype, u, delta, A, B, C, D, delta_bias, delta_softplus)
    x = torch.stack([torch.zeros_like(state), state], dim=-1).flatten(2).unsqueeze(2)
    if dtype is u.dtype:  # else it would keep casts of the inputs alive
        x.recorded = inputs, edge, dtype  # type: ignore[attr-defined]  # travels with the tensor
    return [out, x]


def core_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows):
    """VMamba's `selective_scan_cuda_core.fwd`: as `oflex_fwd`, out in u's dtype."""
    return oflex_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows, False)


def cross_scan_bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, nrows):
    """The `bwd` of both: the gradients of u, delta, A, B, C, D and delta_bias, each in its input's dtype (None for a D or
    delta_bias that is None).

    x may be any tensor: it is only asked for the graph that `oflex_fwd` recorded, which saves computing the forward again.
    """
    recorded: Any = getattr(x, "recorded", None)
    if recorded is None or recorded[2] is not dout.dtype:
        dtype = torch.promote_types(u.dtype, dout.dtype)
        recorded = (*_recorded(dtype, u, delta, A, B, C, D, delta_bias, delta_softplus)[:2], dtype)
    inputs, edge, dtype = recorded
    wanted = [v for v in inputs if v is not None]
    found = iter(torch.autograd.grad(edge, wanted, dout.to(dtype), retain_graph=True))
    return [None if v is None else next(found) for v in inputs]


def mamba_fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """mamba_ssm's `selective_scan_cuda.fwd`: returns [out, x], and with a gate z [out, x, out * silu(z)].

    B and C (dim, N) or (batch, G, N, L). x as for `oflex_fwd`.
    """
    out, x = core_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, 1)
    return [out, x] if z is None else [out, x, _gated(out, z)]


def mamba_bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute_out_z):
    """Its `bwd`: the gradients as `cross_scan_bwd` gives them; then that of z, written to dz where there is one; then out * silu(z)
    if recompute_out_z. `out` is what the forward returned first, or None without a gate."""
    if z is None:
        return cross_scan_bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, 1)
    leaves = [v.detach().requires_grad_() for v in (out, z)]
    with torch.enable_grad():
        gated = _gated(*leaves)
    dout, found = torch.autograd.grad(gated, leaves, dout.to(gated.dtype))
    dz = found if dz is None else dz.copy_(found)
    gradients = cross_scan_bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, 1)
    return [*gradients, dz, *([gated.detach()] if recompute_out_z else [])]


def _gated(out: Tensor, z: Tensor) -> Tensor:
    real = torch.promote_types(out.dtype, torch.float32)
    return (out.to(real) * F.silu(z.to(real))).to(out.dtype)


def _recorded(dtype, u, delta, A, B, C, D, delta_bias, delta_softplus):
    """The inputs as leaves of a graph of their own, the edge where its backward starts, its output and last state.

    Callers are inside an autograd function, where nothing is recorded. The edge does not keep the output alive.
    """
    inputs = [None if v is None else v.detach().requires_grad_() for v in (u, delta, A, B, C, D, delta_bias)]
    with torch.enable_grad():
        out, state = _cross_scan(dtype, delta_softplus, *inputs)
    return inputs, get_gradient_edge(out), out.detach(), state.detach()


def _cross_scan(dtype, delta_softplus, u, delta, A, B, C, D, delta_bias):
    repeats = u.shape[1] // max(delta.shape[1], 1)
    if repeats > 1:  # one step size for several channels
        delta = delta.repeat_interleave(repeats, dim=1)
        delta_bias = None if delta_bias is None else delta_bias.repeat_interleave(repeats)
    u, delta, B, C = (v if v.is_complex() else v.to(dtype) for v in (u, delta, B, C))
    return selective_scan(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True)
