"""Argument checks: one sentence that names the argument, what it got and what it takes."""

from __future__ import annotations

import operator
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
    if x.dtype is torch.float64 and x.device.type not in ("cpu", "meta"):
        raise TypeError(f"{name} is float64 on {x.device}; float64 is for the CPU only: cast to float32")


def beside(name: str, x: Any, like: Tensor, dtypes: Sequence[torch.dtype] | None = None) -> None:
    """`x` is a tensor on the device of `like`, of one of the dtypes (any float if None)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is {type(x).__name__}; it takes a tensor")
    if x.device != like.device:
        raise ValueError(f"{name} is on {x.device}; it takes a tensor on {like.device} like the other arguments")
    if x.dtype not in (FLOATING if dtypes is None else dtypes):
        takes = "a floating-point dtype" if dtypes is None else " or ".join(dict.fromkeys(map(str, dtypes)))
        raise TypeError(f"{name} is {x.dtype}; it takes {takes}")


def shape(name: str, x: Tensor, expected: tuple[int, ...], layout: str) -> None:
    """`x` has just this shape, which `layout` spells out."""
    if x.shape != expected:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it takes {layout} = {tuple(expected)}")


def features_last(name: str, x: Any, ndim: int, size: int, layout: str) -> None:
    """`x` has `ndim` dimensions, which `layout` spells out, and the last of them this size."""
    a_tensor(name, x, ndim, layout)
    shape(name, x, (*x.shape[:-1], size), layout)


def choice(name: str, value: Any, options: Sequence[Any]) -> None:
    """`value` is one of the options."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(repr(o) for o in options)}")


def at_least_one(name: str, size: int, what: str) -> None:
    """A size that may not be 0."""
    if size < 1:
        raise ValueError(f"{name} has {what} {size}; it takes at least 1")


def flag(name: str, value: Any) -> bool:
    """A truth value: True, False, None, or anything that says itself which of the two it is."""
    if value is True or value is False:
        return value
    try:
        if hasattr(type(value), "__bool__"):
            return bool(value)
    except (RuntimeError, ValueError):  # a tensor or an array of several elements
        pass
    raise TypeError(f"{name} is {type(value).__name__}; it takes True or False")


def integer(name: str, value: Any) -> int:
    """An int, numpy's among them."""
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value  # type: ignore[return-value]  # a SymInt is an int to come
    if isinstance(value, (bool, Tensor)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} is {value!r}; it takes an int")
    return operator.index(value)


def real(name: str, value: Any) -> float:
    """A number as a float; a tensor of one element counts as one."""
    if isinstance(value, float):
        return value
    try:
        if hasattr(type(value), "__float__"):
            return float(value)
    except (RuntimeError, TypeError, ValueError):
        pass
    raise TypeError(f"{name} is {type(value).__name__}; it takes a number")


def groups(value: Any, channels: int, name: str) -> int:
    """`groups` is a positive divisor of the channels of `name`."""
    value = integer("groups", value)
    if value < 1 or channels % value:
        raise ValueError(f"groups is {value}; it takes a divisor of the {channels} channels of {name}")
    return value
