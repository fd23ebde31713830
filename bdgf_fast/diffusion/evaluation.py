"""How balanced a denoiser is: influence of each modality, and how well it recovers visible and hidden ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common.random_streams import generator
from .crops import Crops
from .denoiser import Denoiser
from .masking import channel_mask, measure_influence

TIMESTEPS = (50, 200, 400)
"""Steps (of 1000, scaled to the schedule's length) at which R^2 is measured."""
INFLUENCE_BELOW = 0.3
"""The influence is measured at t below this share of the schedule: where the features come from."""
BATCH = 8


@torch.no_grad()
def evaluate_denoiser(denoiser: Denoiser, crops: Crops, seed: int) -> dict[str, Any]:
    """Figures on held-out squares, with the same crops, t and noise for every policy and at every call.

    Returns ``visible_r2`` and ``hidden_r2`` (per modality; hidden_r2 None for a lone one), ``influence`` (per
    modality) and ``balance`` = min I / max I (None for a lone modality). R^2 = 1 - SSE / SST with SST around the
    training crops' channel means: a constant guess has 0. Without room for held-out squares (a tiny scene), or for a
    modality that no scene with squares has, they are None. The influence is taken on crops with all modalities where there are two.
    """
    rng = generator(seed, "evaluation")
    corners = crops.draw(rng, 64)
    sample = torch.stack([crops.window(corner) for corner in corners])
    absent = crops.absent([scene for scene, _, _ in corners])
    device = next(denoiser.unet.parameters()).device
    count = len(denoiser.groups)
    result: dict[str, Any] = {"visible_r2": [None] * count, "hidden_r2": [None] * count}

    steps = [t * denoiser.timesteps // 1000 for t in TIMESTEPS]
    if crops.holdouts:
        means = _means(sample, absent, denoiser.groups)[:, None, None].to(device)
        x0 = torch.stack([crops.window((h.scene, *h.crop)) for h in crops.holdouts]).to(device)
        result["visible_r2"] = _r2(denoiser, x0, means, crops, steps, seed, None)
        if count > 1:
            result["hidden_r2"] = [_r2(denoiser, x0, means, crops, steps, seed, m)[m] for m in range(count)]

    whole = ~absent.any(1)
    x0 = (sample[whole] if int(whole.sum()) >= 2 else sample)[:BATCH].to(device)
    t = torch.from_numpy(rng.integers(0, max(1, int(INFLUENCE_BELOW * denoiser.timesteps)), BATCH)).to(device)[: len(x0)]
    influence = measure_influence(denoiser.unet, denoiser.noisy(x0, t, seed, stream=2**31 + 1), t, denoiser.groups)
    result["influence"] = influence.tolist()
    result["balance"] = float(influence.min() / influence.max().clamp(min=1e-12)) if count > 1 else None
    return result


def _means(sample: Tensor, absent: Tensor, groups: tuple[int, ...]) -> Tensor:
    """Means (C,) of crops (n, C, ...) over those whose scene has the channel."""
    if not bool(absent.any()):
        return sample.mean((0, 2, 3))
    there = (~channel_mask(absent, groups)).float()
    return (sample.mean((2, 3)) * there).sum(0) / there.sum(0).clamp(min=1)


def _r2(
    denoiser: Denoiser, x0: Tensor, means: Tensor, crops: Crops, steps: list[int], seed: int, hide: int | None
) -> list[float | None]:
    """R^2 per modality over all held-out squares that have it and all steps, with modality ``hide`` hidden."""
    count = len(denoiser.groups)
    absent = crops.absent([square.scene for square in crops.holdouts])
    hidden = absent.clone()
    if hide is not None:
        hidden[:, hide] = True
    counted = ~absent & ~hidden.all(1, keepdim=True)  # with everything hidden there is nothing to tell it from
    hidden = hidden.to(x0.device)
    error, spread = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
    for step in steps:
        t = torch.full((len(x0),), step, device=x0.device)
        noisy = denoiser.noisy(x0, t, seed, hidden=hidden, stream=2**31)
        estimate = denoiser.estimate_x0(noisy, t, hidden)
        for i, square in enumerate(crops.holdouts):
            truth = x0[i, :, square.rows, square.columns]
            near = estimate[i, :, square.rows, square.columns]
            for m, (a, b, c) in enumerate(zip(*(v.split(denoiser.groups) for v in (near, truth, means)), strict=True)):
                if counted[i, m]:
                    error[m] += (a - b).double().square().sum().cpu()
                    spread[m] += (b - c).double().square().sum().cpu()
    found = (1 - error / spread.clamp(min=1e-12)).tolist()
    return [value if there else None for value, there in zip(found, counted.any(0).tolist(), strict=True)]
