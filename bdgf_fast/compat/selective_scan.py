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
from ..ops import causal_conv1d, selective_scan

__all__ = [
    "core_fwd",
    "cross_scan_bwd",
    "mamba_inner_fn",
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


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Everything of a Mamba block after its input projection: convolution, projections, scan, output projection.

    Args:
        xz: (batch, 2 dim, L), the branch and its gate.
        conv1d_weight, conv1d_bias: (dim, 1, width) and (dim,); silu follows.
        x_proj_weight: (rank + 2 N, dim), whose outputs are the step's ranks, B and C (2 N each for a complex A).
        delta_proj_weight: (dim, rank). out_proj_weight, out_proj_bias: (out, dim) and (out,).
        A, D, delta_bias: as for `selective_scan`. B, C: constant (dim, N), or None: from x_proj_weight, then plus
            B_proj_bias, C_proj_bias (N,).
        b_rms_weight, c_rms_weight, dt_rms_weight: (N,), (N,), (dim,): root-mean-square norms of B, C and the steps; their
            gradients are computed too.
        checkpoint_lvl: accepted; the scan keeps no states in any case.

    Returns:
        (batch, L, out).
    """
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d(x, conv1d_weight[:, 0], conv1d_bias, "silu")
    rank, state = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    step, b, c = F.linear(x.transpose(1, 2), x_proj_weight).split([rank, state, state], dim=-1)
    delta = _rms_norm(F.linear(step, delta_proj_weight), dt_rms_weight, b_c_dt_rms_eps).transpose(1, 2)
    if B is None:
        B = _per_step(b, B_proj_bias, b_rms_weight, b_c_dt_rms_eps, A.is_complex())
    if C is None:
        C = _per_step(c, C_proj_bias, c_rms_weight, b_c_dt_rms_eps, A.is_complex())
    y = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)  # no last state was asked for
    out_proj_bias = None if out_proj_bias is None else out_proj_bias.to(out_proj_weight.dtype)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _per_step(x: Tensor, bias: Tensor | None, rms_weight: Tensor | None, eps: float, paired: bool) -> Tensor:
    """B or C (batch, L, N) as the scan takes it: (batch, N, L); (batch, N, 2 L) in pairs for a complex A."""
    x = _rms_norm(x if bias is None else x + bias.to(x.dtype), rms_weight, eps)
    return x.unflatten(-1, (-1, 2)).permute(0, 2, 1, 3).flatten(2) if paired else x.transpose(1, 2)


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return x
    real = torch.promote_types(x.dtype, torch.float32)
    return F.rms_norm(x.to(real), x.shape[-1:], weight.to(real), eps).to(x.dtype)


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
    u, delta, B, C = (v.to(dtype) for v in (u, delta, B, C))
    return selective_scan(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True)
