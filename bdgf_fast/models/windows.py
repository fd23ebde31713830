"""Square windows of a map, and box means that do not depend on how a scene is cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""Added to a variance before its square root, whose slope at 0 is infinite."""


def to_windows(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B * H/side * W/side, C, side, side), windows row-major within a sample.

    H and W must be multiples of ``side``. A map in channels-last memory is copied once, row pieces of side * C values at a
    time, and the windows are channels-last too; a map of one window is returned as it is.
    """
    batch, channels, height, width = x.shape
    if height % side or width % side:
        raise ValueError(f"a map of {height} x {width} pixels is not divided by windows of {side} x {side}")
    if height == width == side:
        return x
    rows = x.permute(0, 2, 3, 1).reshape(batch, height // side, side, width // side, side, channels)
    return rows.transpose(2, 3).reshape(-1, side, side, channels).permute(0, 3, 1, 2)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of ``to_windows``: (B * n, C, side, side) -> (B, C, height, width)."""
    channels, side = windows.shape[1:3]
    if height == width == side:
        return windows
    grid = windows.permute(0, 2, 3, 1).reshape(-1, height // side, width // side, side, side, channels)
    return grid.transpose(2, 3).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)^2 pixels: (B, C, H, W) -> (B, C, H - 2 radius, W - 2 radius).

    Rows first, then columns, each window summed in the same order wherever it lies: unlike a running sum, a pixel's mean does
    not depend on the tile it was computed in. O(H W (4 radius + 2)) per channel.
    """
    side = 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)


def box_statistics(x: Tensor, radii: Sequence[int]) -> Tensor:
    """Each channel's value at the centre, then mean and standard deviation over every radius.

    x (B, C, H, W), with R = max(radii) -> (B, C (1 + 2 len(radii)), H - 2 R, W - 2 R), ordered [centre, mean, deviation, mean,
    ...] with C channels each.
    """
    reach = max(radii, default=0)
    parts = [_inner(x, reach)]
    for radius in radii:
        near = _inner(x, reach - radius)
        mean = box_mean(near, radius)
        parts += [mean, ((box_mean(near.square(), radius) - mean.square()).clamp(min=0) + EPSILON).sqrt()]
    return torch.cat(parts, 1)


def _inner(x: Tensor, margin: int) -> Tensor:
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]
