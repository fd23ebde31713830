"""Argument checks: one sentence that names the argument, what it got and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def a_tensor(name: str, x: Any, ndim: int | tuple[int, ...] | None = None, layout: str = "") -> None:
    """`x` is a tensor of `ndim` dimensions, which `layout` spells out."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}; it takes a tensor{' ' + layout if layout else ''}")
    if ndim is not None and (x.dim() not in ndim if isinstance(ndim, tuple) else x.dim() != ndim):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it takes {layout}")


def main(name: str, x: Any, ndim: int, layout: str) -> None:
    """The tensor that settles dtype and device of a call."""
    a_tensor(name, x, ndim, layout)
    if x.dtype not in FLOATING:
        raise TypeError(f"{name} is {x.dtype}; it takes float32, float16, bfloat16, or float64 on the CPU")
    if x.dtype is torch.float64 and x.device.type != "cpu":
        raise TypeError(f"{name} is float64 on {x.device}; float64 is for the CPU only: cast to float32")


def beside(name: str, x: Any, like: Tensor, dtypes: Sequence[torch.dtype] | None = None) -> None:
    """`x` is a tensor on the device of `like`, of one of the dtypes (any float if None)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}; it takes a tensor")
    if x.device != like.device:
        raise ValueError(f"{name} is on {x.device}; it takes a tensor on {like.device} like the other arguments")
    if x.dtype not in (FLOATING if dtypes is None else dtypes):
        takes = "a floating-point dtype" if dtypes is None else " or ".join(str(d) for d in dtypes)
        raise TypeError(f"{name} is {x.dtype}; it takes {takes}")


def shape(name: str, x: Tensor, expected: Sequence[int], layout: str) -> None:
    """`x` has just this shape, which `layout` spells out."""
    if tuple(x.shape) != tuple(expected):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it takes {layout} = {tuple(expected)}")


def choice(name: str, value: Any, options: Sequence[Any]) -> None:
    """`value` is one of the options."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(repr(o) for o in options)}")


def at_least_one(name: str, size: int, what: str) -> None:
    """A size that may not be 0."""
    if size < 1:
        raise ValueError(f"{name} has {what} {size}; it takes at least 1")


def groups(value: Any, channels: int, name: str) -> None:
    """`groups` is a positive divisor of the channels of `name`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"groups is {value!r}; it takes an int")
    if value < 1 or channels % value:
        raise ValueError(f"groups is {value}; it takes a divisor of the {channels} channels of {name}")
