"""From a branch's map to its feature and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import philox_normal

CLIP = 4.0
"""Largest deviation that the heads see, in standard deviations of the training patches: a band that leaves their range
elsewhere in the scene must not rule."""


@dataclass
class Address:
    """Where the dropout of n samples comes from: a function of (seed, sample, step), whatever rank or batch they are in."""

    seed: int
    """Its own: no other noise may share it. Head k takes seed + k, its layer j 2^32 j more."""
    samples: Tensor
    """int64 (n,)."""
    step: int


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """Mean, standard deviation and centre pixel (the label is the centre's) of each channel: maps (n, C_k, H, W) -> (n, 3 sum
    C_k)."""
    parts = []
    for x in maps:
        mean = x.mean((2, 3))
        deviation = ((x - mean[:, :, None, None]).square().mean((2, 3)) + 1e-6).sqrt()
        parts += [mean, deviation, x[:, :, x.shape[2] // 2, x.shape[3] // 2]]
    return torch.cat(parts, 1)


class Standardise(nn.Module):
    """(x - mean) / deviation, clipped to +- ``CLIP``, by statistics that are set once (``fit``) and stored."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the statistics of x (n, size)."""
        deviation, mean = torch.std_mean(x, 0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.deviation).clamp(-CLIP, CLIP)


class Head(nn.Module):
    """Feature and logits of n pixels, from their branch's pooled map (n, 3 width) and their statistics (n, statistics).

    Args:
        width: channels of the branch's map.
        hidden: width of the feature and of the layer before it.
        dropout: of the pooled values and of both layers. Half of the inputs left out makes each pass judge by others, as the
            trees of a random forest do; it is worth more here than any other regularisation (few labels, wide inputs).
        statistics: how many standardised statistics of the pixel's surroundings come in beside the pooled map.
        noise: standard deviation of normal noise added to the statistics in training: few labels, and neighbours look alike.
    """

    def __init__(
        self, width: int, classes: int, hidden: int, dropout: float, statistics: int = 0, noise: float = 0.0
    ) -> None:
        super().__init__()
        self.norm, self.dropout, self.noise = nn.LayerNorm(3 * width), dropout, noise
        self.mix, self.embed = nn.Linear(3 * width + statistics, hidden), nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(
        self, seen: Tensor, statistics: Tensor | None = None, address: Address | None = None
    ) -> tuple[Tensor, Tensor]:
        parts = [self.norm(seen)]
        if statistics is not None:
            parts.append(self._disturb(statistics, address))
        if self.training:
            mixed = self.mix(self._drop(torch.cat(parts, 1), address, 0))
        else:  # the product part by part: the inputs are wide, and joining them copies as much as multiplying reads
            weights = self.mix.weight.split([part.shape[1] for part in parts], 1)
            mixed = self.mix.bias + sum(F.linear(part, weight) for part, weight in zip(parts, weights, strict=True))
        feature = self.embed(self._drop(F.silu(mixed), address, 1))
        return feature, self.classify(self._drop(F.silu(feature), address, 2))

    def _disturb(self, x: Tensor, address: Address | None) -> Tensor:
        if not (self.training and self.noise):
            return x
        return x + self.noise * self._normal(x, address, 3)

    def _normal(self, x: Tensor, address: Address | None, layer: int) -> Tensor:
        """Standard normal values for layer ``layer``, addressed by sample and step."""
        if address is None:
            return torch.randn_like(x)
        seed = address.seed + (layer << 32)
        return philox_normal(x.shape, seed, sample_ids=address.samples, stream=address.step, device=x.device)

    def _drop(self, x: Tensor, address: Address | None, layer: int) -> Tensor:
        if not (self.training and self.dropout):
            return x
        if address is None:
            return F.dropout(x, self.dropout)
        kept = self._normal(x, address, layer) > NormalDist().inv_cdf(self.dropout)
        return x * kept / (1 - self.dropout)
