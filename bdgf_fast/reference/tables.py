"""Per-sample coefficients of a noise schedule: float32 tables of sqrt(abar) and sqrt(1 - abar), float64 abar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sqrt_tables(alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar), computed in float64, rounded once to float32."""
    abar = alphas_cumprod.double()
    return abar.sqrt().float(), (1.0 - abar).sqrt().float()


def schedule_tables(schedule: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """The (T,) float32 tables of a Schedule, or of a plain tensor of abar, on `device`."""
    if isinstance(schedule, Tensor):
        return sqrt_tables(schedule.to(device))
    schedule = schedule.to(device)
    return schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod


def schedule_abar(schedule: Any, device: torch.device) -> Tensor:
    """abar (T,) float64 of a Schedule, or of a plain tensor of abar, on `device`."""
    if isinstance(schedule, Tensor):
        return schedule.to(device, torch.float64)
    return schedule.to(device).alphas_cumprod


def at(table: Tensor, t: Tensor) -> Tensor:
    """table[t] (batch,); NaN where t lies outside 0..T-1: looking there on the host would wait for the device."""
    inside = (t >= 0) & (t < table.shape[0])
    return torch.where(inside, table[t.clamp(0, table.shape[0] - 1)], torch.nan)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, ...) against `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def steps(t: int | Tensor, like: Tensor) -> Tensor:
    """A timestep for every sample: int, 0-d or (batch,) -> int64 (batch,) on the device of `like`."""
    if not isinstance(t, Tensor):
        return torch.full((like.shape[0],), t, dtype=torch.int64, device=like.device)
    return t.to(torch.int64).expand(like.shape[0])
