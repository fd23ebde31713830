"""The denoising loss per sample and modality, min-SNR weighted (Hang et al., arXiv 2303.09556) when asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .philox import philox_normal
from .tables import at, per_sample, schedule_tables, steps


def denoising_loss(
    pred: Tensor,
    t: int | Tensor,
    schedule: Any,
    seed: int | Tensor,
    *,
    x0: Tensor | None = None,
    prediction_type: str = "epsilon",
    channel_groups: Sequence[int],
    weights: Tensor | None = None,
    min_snr_gamma: float | None = None,
    hidden: Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
    origin: Tensor | None = None,
    extent: tuple[int, int] | None = None,
) -> Tensor:
    """Mean squared error (batch, M) of each group of channels, weighted. See `bdgf_fast.ops.denoising_loss`."""
    loss = group_errors(
        pred, t, schedule, seed, x0=x0, prediction_type=prediction_type, channel_groups=channel_groups, hidden=hidden,
        sample_ids=sample_ids, stream=stream, origin=origin, extent=extent,
    )  # fmt: skip
    scale = loss_scale(t, schedule, pred, prediction_type, weights, min_snr_gamma, hidden)
    return loss if scale is None else loss * scale


def group_errors(
    pred, t, schedule, seed, *, x0, prediction_type, channel_groups, hidden, sample_ids, stream, origin, extent
) -> Tensor:
    """The unweighted part: mean over each group's channels and pixels of (pred - target)^2, (batch, M)."""
    real = torch.promote_types(pred.dtype, torch.float32)
    t = steps(t, pred)
    sqrt_abar, sqrt_rest = (per_sample(at(table, t), pred).to(real) for table in schedule_tables(schedule, pred.device))
    clean: Any = None if x0 is None else x0.to(real)  # there wherever a target asks for it: the caller checks
    if prediction_type == "sample":
        target = clean
    else:
        target = philox_normal(
            pred.shape, seed, sample_ids=sample_ids, stream=stream, origin=origin, extent=extent, dtype=real,
            device=pred.device,
        )  # fmt: skip
        if prediction_type == "v_prediction":
            target = sqrt_abar * target - sqrt_rest * clean
    spoiled = 0.0 * sqrt_abar  # NaN where t is out of range, hidden or not
    groups = list(channel_groups)
    losses = []
    for m, (p, y) in enumerate(zip(pred.to(real).split(groups, 1), target.split(groups, 1), strict=True)):
        if hidden is not None:
            y = torch.where(per_sample(hidden[:, m], pred), clean[:, sum(groups[:m]) : sum(groups[: m + 1])], y)
        losses.append((p - y + spoiled).square().flatten(1).mean(1))
    return torch.stack(losses, dim=1)


def loss_scale(
    t: int | Tensor,
    schedule: Any,
    pred: Tensor,
    prediction_type: str,
    weights: Tensor | None,
    min_snr_gamma: float | None,
    hidden: Tensor | None,
) -> Tensor | None:
    """weights times the min-SNR weight, broadcasting to (batch, M); None when both are absent.

    Every form is min(snr, gamma) on the error of x0, so a hidden modality, whose target is x0, takes just that.
    """
    if min_snr_gamma is None:
        return weights
    sqrt_abar, sqrt_rest = (at(table, steps(t, pred))[:, None] for table in schedule_tables(schedule, pred.device))
    snr = (sqrt_abar / sqrt_rest).square()
    on_x0 = snr.clamp(max=min_snr_gamma)
    if prediction_type == "sample":
        scale = on_x0
    elif prediction_type == "epsilon":
        scale = (min_snr_gamma / snr).clamp(max=1.0)  # min(snr, gamma) / snr, right at snr 0 too
    else:
        scale = on_x0 / (snr + 1.0)
    if hidden is not None:
        scale = torch.where(hidden, on_x0, scale)
    return scale if weights is None else scale * weights
