"""Selective scan (Gu and Dao, "Mamba", arXiv 2312.00752, eq. 2) and the 2-D cross-scan of VMamba (arXiv 2401.10166)."""

from __future__ import annotations

import functools
import operator

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
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
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """One step of the recurrence after the other, exp inside the loop. See `bdgf_fast.ops.selective_scan`.

    The sequences are unbound once: indexing [..., l] in the loop would make the backward O(L^2).
    """
    real = torch.promote_types(u.dtype, torch.float32)
    state_dtype = torch.promote_types(real, torch.complex64) if A.is_complex() else real
    batch, dim, length = u.shape
    A = A.to(state_dtype)
    u_real = u.to(real)
    delta = delta.to(real)
    if delta_bias is not None:
        delta = delta + delta_bias.to(real).unsqueeze(-1)
    if delta_softplus:
        delta = F.softplus(delta, threshold=20.0)

    deltas, inputs = delta.unbind(-1), (delta * u_real).unbind(-1)
    Bs, Cs = _steps(B, dim, length, state_dtype), _steps(C, dim, length, state_dtype)
    x = torch.zeros(batch, dim, A.shape[1], dtype=state_dtype, device=u.device)
    if initial_state is not None:
        x = initial_state.to(state_dtype)
    ys: list[Tensor] = [x] * length
    for l in reversed(range(length)) if reverse else range(length):
        x = torch.exp(deltas[l].unsqueeze(-1) * A) * x + inputs[l].unsqueeze(-1) * Bs[l]
        ys[l] = (x * Cs[l]).sum(-1)
    y = torch.stack(ys, dim=-1)
    if y.is_complex():
        y = 2.0 * y.real
    if D is not None:
        y = y + D.to(real).unsqueeze(-1) * u_real
    if z is not None:
        y = y * F.silu(z.to(real))
    y = y.to(u.dtype)
    return (y, x) if return_last_state else y


def _steps(matrix: Tensor, dim: int, length: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """B or C as one tensor a step, each broadcasting against (batch, dim, N)."""
    if matrix.dim() == 2:
        return (matrix.to(dtype),) * length
    if matrix.dim() == 3:
        matrix = matrix.unsqueeze(1)
    if dtype.is_complex and not matrix.is_complex():  # real pairs interleaved along L, as mamba_ssm stores them
        matrix = torch.view_as_complex(matrix.to(dtype.to_real()).unflatten(-1, (length, 2)).contiguous())
    steps = matrix.to(dtype).unbind(-1)
    groups = matrix.shape[1]
    return steps if groups == 1 else tuple(s.repeat_interleave(dim // groups, dim=1) for s in steps)


def selective_scan_2d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    directions: int = 4,
    order: str = "pixel",
) -> Tensor:
    """`directions` scans over the pixels, merged by sum. See `bdgf_fast.ops.selective_scan_2d`."""
    batch, dim, height, width = x.shape
    real = torch.promote_types(x.dtype, torch.float32)

    def reorder(sequence: Tensor, k: int, back: bool = False) -> Tensor:
        """Pixel order to the order in which direction k visits the pixels, or back."""
        reverse, by_columns = scan_direction(k, directions)
        if reverse and back:
            sequence = sequence.flip(-1)
        if by_columns:
            sides = (width, height) if back else (height, width)
            sequence = sequence.unflatten(-1, sides).transpose(-1, -2).flatten(-2)
        return sequence.flip(-1) if reverse and not back else sequence

    def stack(parameter: Tensor) -> Tensor:
        """(batch, K or 1, rows, H*W) -> (batch, K, rows, L) in visiting order."""
        ks = range(directions)
        shared = parameter.shape[1] == 1
        if order == "scan" and not (shared and directions > 1):
            return parameter
        return torch.stack([reorder(parameter[:, 0 if shared else k], k) for k in ks], dim=1)

    pixels = x.to(real).flatten(2)
    u = torch.stack([reorder(pixels, k) for k in range(directions)], dim=1).flatten(1, 2)
    per_direction = [None if p is None else p.expand(directions, dim).flatten() for p in (D, delta_bias)]
    y = selective_scan(
        u,
        stack(delta).flatten(1, 2),
        A.flatten(0, 1),
        stack(B),
        stack(C),
        D=per_direction[0],
        delta_bias=per_direction[1],
        delta_softplus=delta_softplus,
    )
    assert isinstance(y, Tensor)  # no last state was asked for
    y = y.unflatten(1, (directions, dim))
    merged = functools.reduce(operator.add, (reorder(y[:, k], k, back=True) for k in range(directions)))
    return merged.unflatten(-1, (height, width)).to(x.dtype)


def scan_direction(k: int, directions: int) -> tuple[bool, bool]:
    """(reversed, by columns) of direction k: 4 = rows, columns, rows reversed, columns reversed; 2 = rows, reversed."""
    if directions == 4:
        return k >= 2, k % 2 == 1
    return k == 1, False
