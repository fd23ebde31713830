"""Square windows of a map."""

from __future__ import annotations

from torch import Tensor


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
