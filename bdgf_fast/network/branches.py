"""The three branches: residual convolutions, 2-D selective scans, attention. Each maps (B, C, H, W) to (B, width, H,
W).

Every normalisation is per pixel: a sample's result depends neither on its batch nor on the rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.layers import PixelNorm
from ..config import ModelConfig
from ..nn import SS2D, CrossAttention
from .guidance import GUIDANCE, RelativeBias, tokens
from .windows import from_windows, to_windows


class ConvolutionStage(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, config: ModelConfig, window: int | None = None) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.conv1 = PixelNorm(width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = PixelNorm(width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class ScanStage(nn.Module):
    """x + SS2D(norm(x))."""

    def __init__(self, config: ModelConfig, window: int | None = None) -> None:
        super().__init__()
        self.norm = PixelNorm(config.width)
        self.scan = SS2D(config.width, config.state, expand=config.expand, directions=config.directions)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scan(self.norm(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class AttentionStage(nn.Module):
    """Pre-norm self-attention over the pixels of a patch or window, then a two-layer perceptron."""

    def __init__(self, config: ModelConfig, window: int | None = None) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.attention = PixelNorm(width), CrossAttention(width, config.heads)
        self.norm2, self.up, self.down = (
            PixelNorm(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.Conv2d(2 * width, width, 1),
        )
        self.bias = None if window is None else RelativeBias(config.heads, window)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(tokens(self.norm1(x)), attn_bias=None if self.bias is None else self.bias())
        x = x + y.transpose(1, 2).view_as(x)
        return x + self.down(F.silu(self.up(self.norm2(x))))


STAGES = {"cnn": ConvolutionStage, "mamba": ScanStage, "transformer": AttentionStage}


class Branch(nn.Module):
    """Stem (3 x 3 convolution of the raw bands), then ``config.stages`` times a stage and its guidance.

    Args:
        kind: ``cnn``, ``mamba`` or ``transformer``.
        channels: raw channels. guides: channels of each guide map; stage k takes map k * len(guides) // stages.
        dense: the map is a piece of a scene and not a patch around one pixel. Scans, gates and attention then work in windows
            of ``config.scan_window`` and ``config.attention_window`` pixels, whose sides divide the map's, attention is biased
            by the offset of two pixels in place of a position in the patch, and x comes with a frame of one pixel, which the
            stem uses up: x (B, C, H + 2, W + 2), guides (B, C_k, H, W).
    """

    def __init__(self, kind: str, channels: int, guides: Sequence[int], config: ModelConfig, dense: bool = False) -> None:
        super().__init__()
        way = getattr(config, f"guide_{kind}")
        sides = {"gate": config.scan_window, "channel_attention": config.scan_window, "cross_attention": config.attention_window}
        self.window = {"mamba": config.scan_window, "transformer": config.attention_window}.get(kind) if dense else None
        self.guide_window = sides.get(way) if dense else None
        self.positions = kind == "transformer" and not dense
        self.stem = nn.Conv2d(channels, config.width, 3, padding=0 if dense else 1)
        self.stages = nn.ModuleList(STAGES[kind](config, self.window) for _ in range(config.stages))
        self.level = [k * len(guides) // config.stages for k in range(config.stages)]
        self.guidance = nn.ModuleList()
        if way != "none" and guides:
            self.guidance.extend(
                GUIDANCE[way](config.width, guides[i], config.heads, config.groups, self.guide_window) for i in self.level
            )

    def forward(self, x: Tensor, guides: Sequence[Tensor]) -> Tensor:
        x = self.stem(x)
        if self.positions:
            x = x + position_embedding(x.shape[1], x.shape[2], x.shape[3]).to(x)
        whole, now = (x.shape[2], x.shape[3]), None
        for k, stage in enumerate(self.stages):
            x, now = stage(_cut(x, now, self.window, whole)), self.window
            if self.guidance:
                guide = _cut(guides[self.level[k]], None, self.guide_window, whole)
                x, now = self.guidance[k](_cut(x, now, self.guide_window, whole), guide), self.guide_window
        return _cut(x, now, None, whole)


def _cut(x: Tensor, now: int | None, wanted: int | None, whole: tuple[int, int]) -> Tensor:
    """A map in windows of side ``now`` (None: in one piece, of the size ``whole``) in windows of side ``wanted``."""
    if now == wanted:
        return x
    x = x if now is None else from_windows(x, *whole)
    return x if wanted is None else to_windows(x, wanted)


def position_embedding(width: int, height: int, columns: int) -> Tensor:
    """Sinusoids of the offset from the patch's centre, rows in the first half of the channels: (width, height,
    columns)."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange((half + 1) // 2) * (-math.log(100.0) / max((half + 1) // 2 - 1, 1)))

    def axis(size: int) -> Tensor:
        angles = (torch.arange(size) - size // 2)[None, :] * rates[:, None]
        return torch.cat([angles.sin(), angles.cos()])[:half]

    rows = axis(height)[:, :, None].expand(-1, -1, columns)
    cols = axis(columns)[: width - half, None, :].expand(-1, height, -1)
    return torch.cat([rows, cols])
