"""How balanced a denoiser is: influence of each modality, and how well it recovers visible and hidden ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common.random_streams import generator
from ..data.prepared import PreparedScene
from .crops import CropSampler
from .denoiser import Denoiser
from .masking import measure_influence

TIMESTEPS = (50, 200, 400)
"""Steps (of 1000, scaled to the schedule's length) at which R^2 is measured."""
INFLUENCE_BELOW = 0.3
"""The influence is measured at t below this share of the schedule: where the features come from."""
BATCH = 8


@torch.no_grad()
def evaluate_denoiser(denoiser: Denoiser, prepared: PreparedScene, sampler: CropSampler, seed: int) -> dict[str, Any]:
    """Figures on held-out squares, with the same crops, t and noise for every policy and at every call.

    Returns ``visible_r2`` and ``hidden_r2`` (per modality; hidden_r2 None for a lone one), ``influence`` (per
    modality) and ``balance`` = min I / max I (None for a lone modality). R^2 = 1 - SSE / SST with SST around the
    training crops' channel means: a constant guess has 0. Without room for held-out squares (a tiny scene) both R^2
    are None.
    """
    rng = generator(seed, "evaluation")
    crops = sampler.draw(rng, 64)
    sample = torch.stack([prepared.window(y, x, sampler.size, sampler.size) for y, x in crops])
    device = next(denoiser.unet.parameters()).device
    count = len(denoiser.groups)
    result: dict[str, Any] = {"visible_r2": [None] * count, "hidden_r2": [None] * count}

    steps = [t * denoiser.timesteps // 1000 for t in TIMESTEPS]
    if sampler.holdouts:
        means = sample.mean((0, 2, 3))[:, None, None].to(device)
        x0 = torch.stack([prepared.window(*h.crop, sampler.size, sampler.size) for h in sampler.holdouts]).to(device)
        result["visible_r2"] = _r2(denoiser, x0, means, sampler, steps, seed, None)
        if count > 1:
            result["hidden_r2"] = [_r2(denoiser, x0, means, sampler, steps, seed, m)[m] for m in range(count)]

    x0 = sample[:BATCH].to(device)
    t = torch.from_numpy(rng.integers(0, max(1, int(INFLUENCE_BELOW * denoiser.timesteps)), BATCH)).to(device)
    influence = measure_influence(denoiser.unet, denoiser.noisy(x0, t, seed, stream=2**31 + 1), t, denoiser.groups)
    result["influence"] = influence.tolist()
    result["balance"] = float(influence.min() / influence.max().clamp(min=1e-12)) if count > 1 else None
    return result


def _r2(
    denoiser: Denoiser, x0: Tensor, means: Tensor, sampler: CropSampler, steps: list[int], seed: int, hide: int | None
) -> list[float]:
    """R^2 per modality over all held-out squares and steps, with modality ``hide`` hidden."""
    count = len(denoiser.groups)
    hidden = torch.zeros(len(x0), count, dtype=torch.bool, device=x0.device)
    if hide is not None:
        hidden[:, hide] = True
    error, spread = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
    for step in steps:
        t = torch.full((len(x0),), step, device=x0.device)
        noisy = denoiser.noisy(x0, t, seed, hidden=hidden, stream=2**31)
        estimate = denoiser.estimate_x0(noisy, t, hidden)
        for i, square in enumerate(sampler.holdouts):
            truth = x0[i, :, square.rows, square.columns]
            for m, (a, b, c) in enumerate(
                zip(
                    *(v.split(denoiser.groups) for v in (estimate[i, :, square.rows, square.columns], truth, means)),
                    strict=True,
                )
            ):
                error[m] += (a - b).double().square().sum().cpu()
                spread[m] += (b - c).double().square().sum().cpu()
    return (1 - error / spread.clamp(min=1e-12)).tolist()
