"""The denoiser: a small convolutional U-Net whose features can be cut into tiles without a trace.

Two properties make the dense feature mode exact: every normalisation is per pixel (over the channels of that pixel),
and nothing looks at the whole image (no attention, no GroupNorm). A feature then depends on the pixels within
``receptive_radius`` only, and a tile with that halo gives the same numbers as the whole scene.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.layers import PixelNorm


class ResidualBlock(nn.Module):
    """norm, SiLU, 3 x 3 convolution, time; norm, SiLU, 3 x 3 convolution; plus a (projected) skip."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = PixelNorm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.norm2, self.conv2 = PixelNorm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.normal_(self.conv2.weight, std=1e-2 / math.sqrt(9 * out))  # starts as the identity, nearly
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(h))) + self.skip(x)


class DenoisingUNet(nn.Module):
    """U-Net over concatenated modalities.

    Args:
        groups: channels of each modality; their sum C is the channel count in and out.
        widths: channels per level, finest first; level l works at 1/2^l of the resolution (sizes round up).
        blocks: residual blocks per level, in the encoder and in the decoder each.

    ``forward(x, t, visible)``: x (B, C, H, W) float, t (B,) int64, visible (B, M) bool (None = all) -> (B, C, H, W).
    Any H, W >= 1. One visibility plane per modality (1 = visible) is appended to the input: the mask embedding.
    """

    def __init__(self, groups: Sequence[int], widths: Sequence[int] = (32, 64, 64), blocks: int = 1) -> None:
        super().__init__()
        self.groups, self.widths, self.blocks = tuple(groups), tuple(widths), blocks
        channels, levels, time = sum(groups), len(widths), 2 * max(widths)
        self.time_width = widths[0]
        self.time = nn.Sequential(nn.Linear(self.time_width, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.inlet = nn.Conv2d(channels + len(self.groups), widths[0], 3, padding=1)
        self.encoder, self.decoder, self.down = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            self.encoder.append(nn.ModuleList(ResidualBlock(width, width, time) for _ in range(blocks)))
            if level + 1 < levels:
                self.down.append(nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1))
            below = widths[level + 1] if level + 1 < levels else 0  # the bottom's decoder has nothing beneath it
            self.decoder.append(
                nn.ModuleList(ResidualBlock(width + below if i == 0 else width, width, time) for i in range(blocks))
            )
        self.norm, self.outlet = PixelNorm(widths[0]), nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)
        assert self.outlet.bias is not None
        nn.init.zeros_(self.outlet.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form

    def forward(self, x: Tensor, t: Tensor, visible: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, t, visible)[-1])

    def head(self, finest: Tensor) -> Tensor:
        """The prediction (B, C, H, W) from the decoder's finest map."""
        return self.outlet(F.silu(self.norm(finest)))

    def features(self, x: Tensor, t: Tensor, visible: Tensor | None = None, levels: int | None = None) -> list[Tensor]:
        """Decoder maps, coarsest first: (B, widths[l], ceil(H / 2^l), ceil(W / 2^l)) for l from the bottom up.

        With ``levels`` only that many are computed; no block behind the last of them runs.
        """
        batch, channels, height, width = x.shape
        if channels != sum(self.groups):
            raise ValueError(
                f"x has {channels} channels; this denoiser was made for {sum(self.groups)} ({self.groups})"
            )
        levels = len(self.widths) if levels is None else levels
        if not 1 <= levels <= len(self.widths):
            raise ValueError(f"levels is {levels}; this denoiser has {len(self.widths)}")
        if visible is None:
            planes = x.new_ones(batch, len(self.groups), height, width)
        else:
            planes = visible.to(x.dtype)[:, :, None, None].expand(batch, len(self.groups), height, width)
        time = self.time(time_embedding(t, self.time_width).to(x.dtype))
        h = self.inlet(torch.cat([x, planes], 1).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.encoder):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                h = block(h, time)
            skips.append(h)
            if level < len(self.down):
                h = self.down[level](h)
        maps: list[Tensor] = []
        for level in reversed(range(len(self.widths))):
            if len(maps) == levels:
                break
            skip = skips[level]
            if maps:
                skip = torch.cat([skip, double(maps[-1], skip.shape[2], skip.shape[3])], 1)
            h = skip
            blocks = self.decoder[level]
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                h = block(h, time)
            maps.append(h)
        return maps

    def receptive_radius(self, levels: int | None = None) -> int:
        """Pixels a feature brought to the pixel grid can see in each direction, the interpolation included."""
        return receptive_radius(len(self.widths), self.blocks, levels)


def receptive_radius(depth: int, blocks: int, levels: int | None = None) -> int:
    """That of a U-Net of ``depth`` levels with ``blocks`` residual blocks each, whose ``levels`` coarsest maps are used."""
    strides = [2**level for level in range(depth)]
    radius = 1 + sum(2 * blocks * s for s in strides) + sum(strides[:-1])
    worst = 0
    for place, s in enumerate(reversed(strides)):
        if place == (depth if levels is None else levels):
            break
        radius += 2 * blocks * s + (s if place else 0)
        worst = max(worst, radius + (s if s > 1 else 0))
    return worst


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of t (B,) -> float32 (B, width); frequencies 1 ... 1e-4 (Vaswani et al., arXiv
    1706.03762)."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(1e4) / max(half - 1, 1)))
    angles = t.to(torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


def double(x: Tensor, height: int, width: int) -> Tensor:
    """Nearest upsampling by exactly two, cropped to (height, width): aligned with a stride-2 convolution's grid for
    odd sizes too, which a resize to the target size would not be."""
    return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, :height, :width]


def to_pixel_grid(x: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Bilinear interpolation of a map whose sample i sits at pixel ``factor * i``; (B, C, h, w) -> (B, C, height,
    width).

    Past the last sample its value is held (a scene's lower and right edge).
    """
    if factor == 1:
        return x
    h, w = x.shape[2:]
    fine = F.interpolate(x, size=((h - 1) * factor + 1, (w - 1) * factor + 1), mode="bilinear", align_corners=True)
    below, right = max(height - fine.shape[2], 0), max(width - fine.shape[3], 0)
    if below or right:
        fine = F.pad(fine, (0, right, 0, below), mode="replicate")
    return fine[:, :, :height, :width]
