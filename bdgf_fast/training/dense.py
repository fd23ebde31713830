"""Pieces of a scene for the dense network: how far it sees, and the statistics of bands and guides in its heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import Config, ModelConfig
from ..diffusion.features import FeatureSource
from ..diffusion.unet import receptive_radius
from ..models.windows import box_statistics

Tile = Callable[[int, int, int, int], list[Tensor]]
"""(y0, x0, h, w) -> the guide maps (C_k, h, w) there, mirrored outside the scene."""


def halo(c: ModelConfig) -> int:
    """Pixels around a piece that the branches need to be exact inside: a multiple of both windows.

    The heads look ``map_radius`` pixels around, a convolution branch takes what its zero padding spoils, two pixels a stage, and
    a window is needed whole.
    """
    side = max(c.scan_window, c.attention_window)
    spoilt = 2 * c.stages if "cnn" in c.branches else 0
    return -(-(c.map_radius + spoilt) // side) * side


def guided(c: ModelConfig) -> bool:
    """Whether any branch takes guidance."""
    return any(getattr(c, f"guide_{kind}") != "none" for kind in c.branches)


def reach(config: Config) -> int:
    """Chebyshev distance from which a pixel's prediction may still be influenced, by the bands themselves or, in a guided network,
    by features. Maps of another model (``features.path``) count as if they saw nothing but their pixel."""
    c, patch = config.model, config.data.patch
    own = 0 if config.features.path or not guided(c) else receptive_radius(
        len(config.pretrain.widths), config.pretrain.blocks, config.features.levels
    )
    if c.mode == "patch":
        return patch // 2 + (own if config.features.mode == "dense" else 0)
    sides = {"cnn": 2 * c.stages, "mamba": c.scan_window - 1, "transformer": c.attention_window - 1}
    inner = c.map_radius + max(sides[kind] for kind in c.branches)
    bands = max([inner + 1, *(c.radii if c.statistics else ())])  # the stem sees one pixel further
    return max(bands, own + max([inner, *(c.guide_radii if c.statistics else ())])) if guided(c) else bands


def raw_reach(c: ModelConfig) -> int:
    """Pixels of raw bands that a piece needs around it: the branches' halo with the stem's frame, or the widest statistics."""
    return max([halo(c) + 1, *(c.radii if c.statistics else ())])


def guide_reach(c: ModelConfig) -> int:
    """The same for the guide maps."""
    return max([halo(c), *(c.guide_radii if c.statistics else ())])


def middle(x: Tensor, margin: int) -> Tensor:
    """The last two axes without ``margin`` pixels at each end."""
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]


def statistics(raw: Tensor, raw_margin: int, guides: Sequence[Tensor], guide_margin: int, c: ModelConfig) -> Tensor:
    """Value, and means and deviations at ``radii`` and ``guide_radii``, of bands and guides, for every pixel of a piece.

    Args:
        raw: (C, h + 2 raw_margin, w + 2 raw_margin). guides: (C_k, h + 2 guide_margin, w + 2 guide_margin) each.

    Returns (S, h, w), the bands' first.
    """
    parts = [box_statistics(middle(raw, raw_margin - max(c.radii, default=0))[None], c.radii)[0]]
    cut = guide_margin - max(c.guide_radii, default=0)
    parts += [box_statistics(middle(g, cut)[None], c.guide_radii)[0] for g in guides]
    return torch.cat(parts)


def statistics_at(prepared: Any, tile: Tile | None, c: ModelConfig, rc: Tensor, side: int) -> Tensor:
    """Statistics (n, S) of the pixels rc int64 (n, 2), by cells of ``side`` pixels that share the work."""
    raw_margin, guide_margin = max(c.radii, default=0), max(c.guide_radii, default=0)
    cells, group = torch.unique(rc // side, dim=0, return_inverse=True)
    out = None
    for i in range(len(cells)):
        mine = (group == i).nonzero().squeeze(1)
        low, high = rc[mine].amin(0), rc[mine].amax(0) + 1
        y, x, h, w = int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
        raw = prepared.window(y - raw_margin, x - raw_margin, h + 2 * raw_margin, w + 2 * raw_margin)
        around = (y - guide_margin, x - guide_margin, h + 2 * guide_margin, w + 2 * guide_margin)
        guides = [] if tile is None else [g.cpu() for g in tile(*around)]
        rows = statistics(raw, raw_margin, guides, guide_margin, c)[:, rc[mine, 0] - y, rc[mine, 1] - x].T
        if out is None:
            out = torch.empty(len(rc), rows.shape[1])
        out[mine] = rows
    return torch.empty(0, 0) if out is None else out


def tiles_of(features: FeatureSource | None) -> Tile | None:
    """How a source gives maps. Raises ValueError for one that has patches only."""
    if features is None:
        return None
    tile = getattr(features, "tile", None)
    if tile is None:
        raise ValueError(
            f"{type(features).__name__} has no tile(y0, x0, h, w), which the dense network asks for its maps; "
            'write one, or set model.mode = "patch"'
        )
    return tile
