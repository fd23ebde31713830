"""Squareplus, a smooth ReLU."""

from __future__ import annotations

from torch import Tensor


def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    """(x + sqrt(x^2 + b)) / 2."""
    return ((x + (x * x + b).sqrt()) / 2).to(x.dtype)
