"""One step of the recurrences, for inference token by token: states go in, are updated in place, and stay with the caller.

Both are compositions of the operations, so they run on whatever backend those choose.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ..ops import _check as check
from ..ops import causal_conv1d, selective_scan


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """`causal_conv1d` of new steps; the steps before them come from `conv_state`, which then holds the newest ones.

    Args:
        x: (batch, dim), one step, or (batch, dim, L); dtypes as `causal_conv1d`.
        conv_state: (batch, dim, kept), kept at least width - 1, any float dtype; written to.
        weight, bias, activation: as for `causal_conv1d`.
        cache_seqlens: int (batch,), the number of steps seen so far. conv_state is then a ring buffer, in which step s lies at
            s modulo kept, and L is at most kept.
        conv_state_indices: int (batch,), which row of a larger conv_state belongs to each sample. A negative one marks
            padding: the sample's output is 0 and no state is written.

    Returns:
        of x's shape and dtype.

    Raises:
        ValueError, TypeError: an argument's shape, dtype or device does not fit, and which.
    """
    check.a_tensor("x", x, (2, 3), "(batch, dim) or (batch, dim, L)")
    check.a_tensor("weight", weight, 2, "(dim, width)")
    check.a_tensor("conv_state", conv_state, 3, "(batch, dim, kept)")
    new = x.unsqueeze(-1) if x.dim() == 2 else x
    batch, dim, length = new.shape
    past, kept = weight.shape[1] - 1, conv_state.shape[2]
    if kept < past:
        raise ValueError(f"conv_state keeps {kept} steps; a weight of width {past + 1} takes at least {past}")
    slots = _Slots("conv_state_indices", conv_state_indices, batch, conv_state)
    state = slots.read(conv_state)
    check.shape("conv_state", state, (batch, dim, kept), "(batch, dim, kept)")
    if cache_seqlens is None:
        before = state[..., kept - past :]
        updated = torch.cat([state, new.to(state.dtype)], dim=-1)[..., length:]
    else:
        if length > kept:
            raise ValueError(f"x has length {length}; a ring of {kept} steps takes at most {kept}")
        seen = _indices("cache_seqlens", cache_seqlens, batch)[:, None]
        places = (seen + torch.arange(-past, length, device=x.device)) % kept
        places = places[:, None].expand(-1, dim, -1)
        before = state.gather(2, places[..., :past])
        updated = state.scatter(2, places[..., past:], new.to(state.dtype))
    out = causal_conv1d(torch.cat([before.to(x.dtype), new], dim=-1), weight, bias, activation)[..., past:]
    slots.write(conv_state, updated, state)
    return slots.skip(out.reshape(x.shape).to(x.dtype))


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """One step of `selective_scan`, state = exp(dt A) state + dt B x; returns (C . state + D x) silu(z).

    Args:
        state: (batch, dim, N) or (batch, heads, dim, N), any float dtype; written to. The arithmetic is float32.
        x, dt, z: (batch, dim) or (batch, heads, dim), any float dtypes.
        A: (dim, N) or (heads, dim, N).
        B, C: (batch, N) or (batch, G, N), G a divisor of heads: head h takes group h G // heads.
        D, dt_bias: (dim,) or (heads, dim).
        dt_softplus: apply softplus (linear above 20) to dt + dt_bias.
        state_batch_indices: int (batch,), which row of a larger state belongs to each sample. A negative one marks padding:
            the sample's output is 0 and no state is written.

    Returns:
        of x's shape and dtype.

    Raises:
        ValueError, TypeError: an argument's shape, dtype or device does not fit, and which.
    """
    check.a_tensor("state", state, (3, 4), "(batch, dim, N) or (batch, heads, dim, N)")
    check.a_tensor("x", x, state.dim() - 1, "state's shape without N")
    check.a_tensor("B", B, (2, 3), "(batch, N) or (batch, G, N)")
    batch, sizes, width = x.shape[0], state.shape[1:-1], state.shape[-1]
    slots = _Slots("state_batch_indices", state_batch_indices, batch, state)
    current = slots.read(state)
    check.shape("state", current, (batch, *sizes, width), "(batch, [heads,] dim, N)")
    groups, heads = (B.shape[1] if B.dim() == 3 else 1), (sizes[0] if len(sizes) == 2 else 1)
    if groups < 1 or heads % groups:
        raise ValueError(f"B has {groups} groups; it takes a divisor of the {heads} heads")
    for name, v, expected, layout in (
        ("x", x, (batch, *sizes), "(batch, [heads,] dim)"),
        ("dt", dt, (batch, *sizes), "x's shape"),
        ("z", z, (batch, *sizes), "x's shape"),
        ("A", A, (*sizes, width), "([heads,] dim, N)"),
        ("B", B, (batch, *B.shape[1:-1], width), "(batch, [G,] N)"),
        ("C", C, B.shape, "B's shape"),
        ("D", D, sizes, "([heads,] dim)"),
        ("dt_bias", dt_bias, sizes, "([heads,] dim)"),
    ):
        if v is not None:
            check.beside(name, v, state)
            check.shape(name, v, tuple(expected), layout)
    # A scan of one step, the heads being groups of channels.
    dtype = functools.reduce(torch.promote_types, [v.dtype for v in (x, dt, z, B, C) if v is not None])
    channels = math.prod(sizes)
    u, delta = (v.reshape(batch, channels, 1).to(dtype) for v in (x, dt))
    gate = None if z is None else z.reshape(batch, channels, 1).to(dtype)
    B, C = (v.reshape(batch, groups, width, 1).to(dtype) for v in (B, C))
    D, dt_bias = (None if v is None else v.reshape(-1) for v in (D, dt_bias))
    y, last = selective_scan(
        u, delta, A.reshape(-1, width), B, C, D, gate, dt_bias, dt_softplus, True,
        initial_state=current.reshape(batch, channels, width),
    )  # fmt: skip
    slots.write(state, last.view(current.shape).to(state.dtype), current)
    return slots.skip(y.reshape(x.shape).to(x.dtype))


class _Slots:
    """Which rows of a state belong to the samples; all of them, in order, without indices. Nothing here waits for a GPU."""

    def __init__(self, name: str, indices: Tensor | None, batch: int, state: Tensor) -> None:
        self.rows = self.kept = None
        if indices is None:
            return
        indices = _indices(name, indices, batch)
        count = state.shape[0]
        if indices.device.type == "cpu" and batch > 0 and not torch.compiler.is_compiling() and indices.max() >= count:
            raise ValueError(f"{name} has {indices.max().item()}; it takes up to {count - 1}, and negative ones for padding")
        self.rows, self.kept = indices.clamp(min=0), indices >= 0

    def read(self, state: Tensor) -> Tensor:
        return state if self.rows is None else state[self.rows]

    def write(self, state: Tensor, updated: Tensor, before: Tensor) -> None:
        """`updated` to its rows. A sample of padding repeats what another one writes, or what was there if all are padding."""
        if self.rows is None or self.kept is None:
            state.copy_(updated)
        elif len(self.rows):
            updated = torch.where(self._along(updated), updated, before)
            source = torch.where(self.kept, torch.arange(len(self.rows), device=self.rows.device), self.kept.byte().argmax())
            state[self.rows[source]] = updated[source]

    def skip(self, out: Tensor) -> Tensor:
        return out if self.kept is None else out.masked_fill(~self._along(out), 0.0)

    def _along(self, x: Tensor) -> Tensor:
        assert self.kept is not None
        return self.kept.view(-1, *[1] * (x.dim() - 1))


def _indices(name: str, x: Tensor, batch: int) -> Tensor:
    check.a_tensor(name, x, 1, "(batch,)")
    if x.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} is {x.dtype}; it takes torch.int32 or torch.int64")
    check.shape(name, x, (batch,), "(batch,)")
    return x.long()
