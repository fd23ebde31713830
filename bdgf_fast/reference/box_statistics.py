"""Value, and mean and standard deviation over square boxes, of every channel of a map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""Added to a variance before its square root, whose slope at 0 is infinite."""


def box_statistics(x: Tensor, radii: Sequence[int]) -> Tensor:
    """[centre, mean, deviation, mean, ...] of the channels, by radius. See `bdgf_fast.ops.box_statistics`."""
    real = torch.promote_types(x.dtype, torch.float32)
    reach = max(radii, default=0)
    parts = [_inner(x, reach).to(real)]
    for radius in radii:
        around = _inner(x, reach - radius).to(real)
        mean = _box_mean(around, radius)
        parts += [mean, ((_box_mean(around.square(), radius) - mean.square()).clamp(min=0) + EPSILON).sqrt()]
    return torch.cat(parts, 1).to(x.dtype)


def _box_mean(x: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)^2 pixels, rows first, then columns."""
    side = 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)


def _inner(x: Tensor, margin: int) -> Tensor:
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]
