"""What the operations on noise share: where an element's noise comes from, timesteps and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference import tables
from . import _check as check

# The noise address, as the library operators take it.
ADDRESS_TENSORS = "Tensor? seed_at, Tensor? sample_ids, Tensor? stream_at, Tensor? origin"
ADDRESS_SCALARS = "SymInt seed, SymInt stream, SymInt extent_h, SymInt extent_w"
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def number(name: str, value: Any, device: torch.device | None) -> tuple[int, Tensor | None]:
    """A seed or stream as (int, None), wrapped into int64, or as (0, 0-d int64 tensor)."""
    if isinstance(value, Tensor):
        if value.dim() != 0 or value.dtype is not torch.int64:
            raise TypeError(
                f"{name} is {value.dtype} of shape {tuple(value.shape)}; it takes an int or a 0-d int64 tensor"
            )
        if device is not None and value.device != device:
            raise ValueError(f"{name} is on {value.device}; it takes an int or a 0-d int64 tensor on {device}")
        return 0, value
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} is {type(value).__name__}; it takes an int or a 0-d int64 tensor")
    value = check.integer(name, value)
    if not -(2**63) <= value < 2**63:
        value = (value + 2**63) % 2**64 - 2**63
    return value, None


def address(
    shape: Sequence[int],
    device: torch.device,
    seed: Any,
    sample_ids: Any,
    stream: Any,
    origin: Any = None,
    extent: Any = None,
) -> tuple[tuple[Tensor | None, ...], tuple[int, ...]]:
    """Check a noise address; returns its ADDRESS_TENSORS and its ADDRESS_SCALARS."""
    seed, seed_at = number("seed", seed, device)
    stream, stream_at = number("stream", stream, device)
    for name, x, expected, layout in (
        ("sample_ids", sample_ids, (shape[0],), "(batch,)"),
        ("origin", origin, (shape[0], 2), "(batch, 2)"),
    ):
        if x is not None:
            check.a_tensor(name, x)
            if x.device != device:
                raise ValueError(f"{name} is on {x.device}; it takes a tensor on {device} like the other arguments")
            if x.dtype is not torch.int64:
                raise TypeError(f"{name} is {x.dtype}; it takes torch.int64")
            check.shape(name, x, expected, layout)
    if origin is None:
        if extent is not None:
            raise ValueError("extent is given without origin; give both, or neither")
        extent = (0, 0)
    else:
        if len(shape) != 4:
            raise ValueError(f"origin is given for {len(shape)} dimensions; it takes (batch, C, H, W)")
        if not isinstance(extent, (tuple, list)) or len(extent) != 2:
            raise ValueError(f"extent is {extent!r}; with origin it takes the scene's (height, width)")
        extent = tuple(check.integer("extent", side) for side in extent)
        if extent[0] < max(shape[2], 1) or extent[1] < max(shape[3], 1):
            raise ValueError(f"extent is {tuple(extent)}; it takes at least the tile's {tuple(shape[2:])}")
        origin = origin.contiguous()
    if sample_ids is not None:
        sample_ids = sample_ids.contiguous()
    return (seed_at, sample_ids, stream_at, origin), (seed, stream, extent[0], extent[1])


def launch_address(*address: Any) -> tuple[Any, ...]:
    """A noise address as the extension takes it: seed, stream, sample_ids, origin, extent_h, extent_w."""
    seed_at, sample_ids, stream_at, origin, seed, stream, extent_h, extent_w = address
    seed = seed if seed_at is None else seed_at
    return seed, stream if stream_at is None else stream_at, sample_ids, origin, extent_h, extent_w


def supports_native(facts: Mapping[str, Any]) -> str | None:
    """The kernels compute in float32."""
    return "it computes in float32; float64 takes the reference" if facts["dtype"] is torch.float64 else None


def timesteps(t: Any, like: Tensor, count: int, name: str = "t") -> Tensor:
    """t as int64 (batch,) on the device of `like`; an int is checked here, a tensor where it is read."""
    if isinstance(t, Tensor):
        check.beside(name, t, like, (torch.int64, torch.int32))
        if t.dim() > 0:
            check.shape(name, t, (like.shape[0],), "(batch,)")
    elif isinstance(t, bool) or not hasattr(type(t), "__index__"):
        raise TypeError(f"{name} is {type(t).__name__}; it takes an int or an int64 tensor (batch,)")
    else:
        t = check.integer(name, t)
        if name == "t" and not 0 <= t < count:
            raise ValueError(f"t is {t}; it takes 0 to {count - 1}")
    return tables.steps(t, like)


def check_range(t: Tensor, count: int, name: str = "t") -> None:
    """Raise on the CPU when a timestep is out of range; elsewhere its sample becomes NaN, without waiting for it.

    Traced code cannot look at values: CPU launchers call this, and the public functions do before plain functions.
    """
    if t.device.type != "cpu" or t.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = t.min().item(), t.max().item()
    if low < 0 or high >= count:
        raise ValueError(f"{name} has {low if low < 0 else high}; it takes 0 to {count - 1}")


def length(schedule: Any) -> int:
    """T of a schedule, checked."""
    abar = schedule if isinstance(schedule, Tensor) else getattr(schedule, "alphas_cumprod", None)
    if not isinstance(abar, Tensor):
        raise TypeError(f"schedule is {type(schedule).__name__}; it takes a Schedule or a tensor of abar (T,)")
    if abar.dim() != 1 or abar.shape[0] < 1 or not abar.is_floating_point():
        raise ValueError(f"schedule has {abar.dtype} abar of shape {tuple(abar.shape)}; it takes floats of shape (T,)")
    return abar.shape[0]


def constant(name: str, x: Tensor | None) -> None:
    """`x` is taken as it stands: losing its gradient silently would be worse than saying so."""
    if x is not None and x.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient; it takes a constant: detach it")
