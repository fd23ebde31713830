"""A Mamba block after its input projection, as mamba_ssm and Vim call it: in one direction or in both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import causal_conv1d
from .selective_scan import selective_scan_fn

__all__ = [
    "BiMambaInnerFn",
    "MambaInnerFn",
    "MambaInnerFnNoOutProj",
    "bimamba_inner_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
]


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
    y = mamba_inner_fn_no_out_proj(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias, B_proj_bias, C_proj_bias,
        delta_softplus, checkpoint_lvl, b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps,
    )  # fmt: skip
    return _project(y, out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
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
    """`mamba_inner_fn` up to its output projection: (batch, dim, L)."""
    x, z, delta, B, C = _scan_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias, b_rms_weight,
        c_rms_weight, dt_rms_weight, b_c_dt_rms_eps,
    )  # fmt: skip
    y = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)  # no last state was asked for
    return y


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """`mamba_inner_fn` with a second scan, from the last step to the first with A_b for A, added before the output projection
    (Vim's `bimamba_type="v1"`, arXiv 2401.09417)."""
    x, z, delta, B, C = _scan_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias, None, None, None, 0.0
    )
    forth = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    turned = [v if v.dim() == 2 else v.flip(-1) for v in (x, delta, B, C, z)]
    back = selective_scan_fn(turned[0], turned[1], A_b, turned[2], turned[3], D, turned[4], delta_bias, delta_softplus)
    assert isinstance(forth, Tensor) and isinstance(back, Tensor)
    return _project(forth + back.flip(-1), out_proj_weight, out_proj_bias)


class MambaInnerFn:
    """What mamba_ssm's autograd.Function of this name is called for."""

    apply = staticmethod(mamba_inner_fn)


class MambaInnerFnNoOutProj:
    """Likewise, without the output projection."""

    apply = staticmethod(mamba_inner_fn_no_out_proj)


class BiMambaInnerFn:
    """Likewise, in both directions."""

    apply = staticmethod(bimamba_inner_fn)


def _scan_inputs(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias, b_rms_weight, c_rms_weight,
    dt_rms_weight, eps,
):  # fmt: skip
    """x, z, delta, B and C of the scan."""
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d(x, conv1d_weight[:, 0], conv1d_bias, "silu")
    rank, state = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    step, b, c = F.linear(x.transpose(1, 2), x_proj_weight).split([rank, state, state], dim=-1)
    delta = _rms_norm(F.linear(step, delta_proj_weight), dt_rms_weight, eps).transpose(1, 2)
    if B is None:
        B = _per_step(b, B_proj_bias, b_rms_weight, eps, A.is_complex())
    if C is None:
        C = _per_step(c, C_proj_bias, c_rms_weight, eps, A.is_complex())
    return x, z, delta, B, C


def _project(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(y.transpose(1, 2), weight, None if bias is None else bias.to(weight.dtype))


def _per_step(x: Tensor, bias: Tensor | None, rms_weight: Tensor | None, eps: float, paired: bool) -> Tensor:
    """B or C (batch, L, N) as the scan takes it: (batch, N, L); (batch, N, 2 L) in pairs for a complex A."""
    x = _rms_norm(x if bias is None else x + bias.to(x.dtype), rms_weight, eps)
    return x.unflatten(-1, (-1, 2)).permute(0, 2, 1, 3).flatten(2) if paired else x.transpose(1, 2)


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return x
    real = torch.promote_types(x.dtype, torch.float32)
    return F.rms_norm(x.to(real), x.shape[-1:], weight.to(real), eps).to(x.dtype)
