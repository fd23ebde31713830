"""mamba_ssm's layer norms with dropout and residual in front, in plain PyTorch: every gradient is autograd's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """norm(sum) with sum = dropout(x rowscale) + dropout(x1) + residual, over the last axis.

    Args:
        x, x1, residual: (..., width), any float dtypes; sum and norm are float32 (float64 for a float64 x).
        weight, bias: (width,). weight1, bias1: a second norm of the same sum.
        rowscale: (...), not with x1.
        prenorm: return the sum too, in residual's dtype, or without one in float32 if residual_in_fp32, else in x's.
        is_rms_norm: sum / sqrt(mean(sum^2) + eps), nothing subtracted.
        return_dropout_mask: also return what was kept of x and of x1 (bool; None without dropout, or without x1).

    Returns:
        y in x's dtype, or a tuple of y, [y1], [sum], [mask of x, mask of x1], in this order, of those asked for.
    """
    if x1 is not None and rowscale is not None:
        raise ValueError("rowscale is given with x1; give one of them")
    real = torch.promote_types(x.dtype, torch.float32)
    total = x.to(real) if rowscale is None else x.to(real) * rowscale.to(real).unsqueeze(-1)
    total, mask = _dropout(total, dropout_p)
    mask1 = None
    if x1 is not None:
        second, mask1 = _dropout(x1.to(real), dropout_p)
        total = total + second
    if residual is not None:
        total = total + residual.to(real)
        sum_dtype = residual.dtype
    else:
        sum_dtype = torch.promote_types(real, torch.float32) if residual_in_fp32 else x.dtype
    found: list[Tensor | None] = [_norm(total, weight, bias, eps, is_rms_norm).to(x.dtype)]
    if weight1 is not None:
        found.append(_norm(total, weight1, bias1, eps, is_rms_norm).to(x.dtype))
    if prenorm:
        found.append(total.to(sum_dtype))
    if return_dropout_mask:
        found += [mask, mask1]
    return found[0] if len(found) == 1 else tuple(found)


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """`layer_norm_fn` with is_rms_norm."""
    return layer_norm_fn(
        x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale, prenorm, residual_in_fp32, True,
        return_dropout_mask,
    )  # fmt: skip


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, with dropout and residual in front as asked."""

    bias: Tensor | None

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, dropout_p: float = 0.0, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False, residual_in_fp32: bool = False
    ) -> Any:
        dropout_p = self.drop.p if self.drop is not None and self.training else 0.0
        return rms_norm_fn(
            x, self.weight, self.bias, residual, eps=self.eps, dropout_p=dropout_p, prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )  # fmt: skip


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if not rms:
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    y = F.rms_norm(x, x.shape[-1:], weight, eps)
    return y if bias is None else y + bias


def _dropout(x: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    if p == 0.0:
        return x, None
    keep = torch.rand_like(x) >= p
    return x * keep / (1.0 - p), keep
