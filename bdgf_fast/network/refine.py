"""Refinement of a map: diffusion of the class probabilities over a graph of similar pixels nearby.

Each pixel is joined to those at most ``RADIUS`` rows and columns away, with the weight exp(-d^2 / (2 WIDTH^2)), where d is the root
mean square difference of their normalised bands. One round replaces the probabilities of a pixel by the weighted mean over its
neighbours and itself: p_i <- sum_j w_ij p_j / sum_j w_ij, a step of graph diffusion (as in Diff-ResNet, arXiv 2105.03155, which
diffuses features over a graph of nearest neighbours). Pixels without a value take no part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS, WIDTH = 4, 0.3
"""Chosen among windows of 5 and 9 pixels and widths of 0.3 and 0.6, on split 0 of the Sentinel tile."""


def refine(probabilities: Tensor, bands: Tensor, rounds: int) -> Tensor:
    """``rounds`` of diffusion of class probabilities float32 (K, h, w), 0 for every class where there is no value, over pixels with
    similar ``bands`` (C, h, w), in [-1, 1]. O((2 RADIUS + 1)^2 (C + rounds K) h w); holds (2 RADIUS + 1)^2 weights per pixel."""
    h, w = bands.shape[1:]
    there = probabilities.any(0).float()

    def shifted(maps: Tensor) -> list[Tensor]:
        wide = F.pad(maps, (RADIUS,) * 4)
        return [wide[..., y : y + h, x : x + w] for y in range(2 * RADIUS + 1) for x in range(2 * RADIUS + 1)]

    weights = []
    for other, exists in zip(shifted(bands), shifted(there), strict=True):
        squared = (other - bands).square_().mean(0)
        weights.append(squared.mul_(-0.5 / WIDTH**2).exp_().mul_(exists))
    scale = there / torch.stack(weights).sum(0).clamp(min=1e-12)
    for _ in range(rounds):
        total = torch.zeros_like(probabilities)
        for weight, other in zip(weights, shifted(probabilities), strict=True):
            total.addcmul_(weight, other)
        probabilities = total.mul_(scale)
    return probabilities
