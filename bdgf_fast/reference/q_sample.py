"""The forward process of DDPM (Ho, Jain, Abbeel, arXiv 2006.11239, eq. 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .philox import philox_normal
from .tables import at, per_sample, schedule_tables, steps


def q_sample(
    x0: Tensor,
    t: int | Tensor,
    schedule: Any,
    seed: int | Tensor,
    *,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
    origin: Tensor | None = None,
    extent: tuple[int, int] | None = None,
    channel_mask: Tensor | None = None,
    mask_mode: str = "zero",
) -> Tensor:
    """sqrt(abar_t) x0 + sqrt(1 - abar_t) eps. See `bdgf_fast.ops.q_sample`."""
    real = torch.promote_types(x0.dtype, torch.float32)
    address: dict[str, Any] = {"sample_ids": sample_ids, "stream": stream, "origin": origin, "extent": extent}
    address.update(dtype=real, device=x0.device)
    sqrt_abar, sqrt_rest = (
        per_sample(at(table, steps(t, x0)), x0).to(real) for table in schedule_tables(schedule, x0.device)
    )
    noisy = sqrt_abar * x0.to(real) + sqrt_rest * philox_normal(x0.shape, seed, **address)
    if channel_mask is not None:
        hidden = channel_mask.reshape(*channel_mask.shape, *[1] * (x0.dim() - 2))
        fill = 0.0 if mask_mode == "zero" else philox_normal(x0.shape, seed, purpose="mask_fill", **address)
        noisy = torch.where(hidden, fill, noisy)
    return noisy.to(x0.dtype)
