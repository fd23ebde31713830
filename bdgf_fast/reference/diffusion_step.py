"""Reverse steps: DDPM (arXiv 2006.11239, eq. 6 and 7) and DDIM (Song, Meng, Ermon, arXiv 2010.02502, eq. 12 and 16)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .philox import philox_normal
from .tables import at, per_sample, schedule_abar, steps


class StepCoefficients(NamedTuple):
    """x0 = x0_sample * sample + x0_pred * pred, then clipped; prev = mean_sample * sample + mean_pred * pred
    + mean_x0 * x0 + std * noise. Each (batch,) float32."""

    x0_sample: Tensor
    x0_pred: Tensor
    mean_sample: Tensor
    mean_pred: Tensor
    mean_x0: Tensor
    std: Tensor


def _levels(t: Tensor, prev_t: int | Tensor | None, schedule: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """abar at t and at prev_t (t - 1 by default), float64; abar is 1 before the first step."""
    table = schedule_abar(schedule, like.device)
    prev_t = t - 1 if prev_t is None else steps(prev_t, like)
    return at(table, t), torch.where(prev_t < 0, 1.0, at(table, prev_t.clamp(min=0)))


def _x0_coefficients(abar: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    if prediction_type == "epsilon":
        return abar.rsqrt(), -(1.0 - abar).sqrt() * abar.rsqrt()
    if prediction_type == "sample":
        return torch.zeros_like(abar), torch.ones_like(abar)
    return abar.sqrt(), -(1.0 - abar).sqrt()


def ddpm_coefficients(t, prev_t, schedule, like: Tensor, prediction_type: str, variance: str) -> StepCoefficients:
    """Coefficients of one DDPM step, worked out in float64: 1 - abar_t / abar_prev cancels in float32."""
    t = steps(t, like)
    abar, abar_prev = _levels(t, prev_t, schedule, like)
    alpha = abar / abar_prev
    beta = 1.0 - alpha
    spread = (1.0 - abar_prev) / (1.0 - abar) * beta if variance == "fixed_small" else beta
    std = torch.where(t > 0, spread.clamp(min=1e-20).sqrt(), 0.0)
    mean_sample = alpha.sqrt() * (1.0 - abar_prev) / (1.0 - abar)
    mean_x0 = abar_prev.sqrt() * beta / (1.0 - abar)
    x0 = _x0_coefficients(abar, prediction_type)
    nan = 0.0 * abar  # a timestep out of range spoils its sample, whatever the prediction type
    columns = (x0[0] + nan, x0[1], mean_sample, torch.zeros_like(abar), mean_x0, std)
    return StepCoefficients(*(c.float() for c in columns))


def ddim_coefficients(t, prev_t, schedule, like: Tensor, prediction_type: str, eta: float) -> StepCoefficients:
    """Coefficients of one DDIM step: eps follows from the unclipped x0, as in the paper's appendix code."""
    t = steps(t, like)
    abar, abar_prev = _levels(t, prev_t, schedule, like)
    spread = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev)
    std = eta * spread.clamp(min=0.0).sqrt()
    direction = (1.0 - abar_prev - std.square()).clamp(min=0.0).sqrt()
    x0 = _x0_coefficients(abar, prediction_type)
    # eps = (sample - sqrt(abar) x0) / sqrt(1 - abar)
    if prediction_type == "epsilon":
        eps = torch.zeros_like(abar), torch.ones_like(abar)
    elif prediction_type == "sample":
        eps = (1.0 - abar).rsqrt(), -abar.sqrt() * (1.0 - abar).rsqrt()
    else:
        eps = (1.0 - abar).sqrt(), abar.sqrt()
    nan = 0.0 * abar
    columns = (x0[0] + nan, x0[1], direction * eps[0], direction * eps[1], abar_prev.sqrt(), std)
    return StepCoefficients(*(c.float() for c in columns))


def apply_step(
    pred: Tensor, sample: Tensor, coefficients: StepCoefficients, clip_sample: bool, noise: Tensor | None
) -> Tensor:
    """The step itself, in float32 (float64 for float64 samples)."""
    real = torch.promote_types(sample.dtype, torch.float32)
    c = StepCoefficients(*(per_sample(column, sample).to(real) for column in coefficients))
    p, x = pred.to(real), sample.to(real)
    x0 = c.x0_sample * x + c.x0_pred * p
    if clip_sample:
        x0 = x0.clamp(-1.0, 1.0)
    out = c.mean_x0 * x0 + c.mean_sample * x + c.mean_pred * p
    if noise is not None:
        out = out + c.std * noise.to(real)
    return out.to(sample.dtype)


def _noise(sample: Tensor, noise: Tensor | None, seed, sample_ids, stream) -> Tensor | None:
    if noise is not None or seed is None:
        return noise
    return philox_normal(
        sample.shape, seed, sample_ids=sample_ids, stream=stream, dtype=torch.float32, device=sample.device,
        purpose="sampler",
    )  # fmt: skip


def ddpm_step(
    pred: Tensor,
    t: int | Tensor,
    sample: Tensor,
    schedule: Any,
    *,
    prev_t: int | Tensor | None = None,
    prediction_type: str,
    clip_sample: bool = False,
    variance: str = "fixed_small",
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
) -> Tensor:
    """x_{prev_t} from x_t. See `bdgf_fast.ops.ddpm_step`."""
    coefficients = ddpm_coefficients(t, prev_t, schedule, sample, prediction_type, variance)
    return apply_step(pred, sample, coefficients, clip_sample, _noise(sample, noise, seed, sample_ids, stream))


def ddim_step(
    pred: Tensor,
    t: int | Tensor,
    sample: Tensor,
    schedule: Any,
    *,
    prev_t: int | Tensor | None = None,
    prediction_type: str,
    clip_sample: bool = False,
    eta: float = 0.0,
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
) -> Tensor:
    """x_{prev_t} from x_t, deterministic for eta 0. See `bdgf_fast.ops.ddim_step`."""
    coefficients = ddim_coefficients(t, prev_t, schedule, sample, prediction_type, eta)
    noise = None if eta == 0.0 else _noise(sample, noise, seed, sample_ids, stream)
    return apply_step(pred, sample, coefficients, clip_sample, noise)
