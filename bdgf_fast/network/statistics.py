"""Pieces of a scene for the dense network: how far it sees, and the statistics of bands and guides in its heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..config import Config, ModelConfig
from ..data.prepared import PreparedScene
from ..features.source import Tile
from ..ops import box_statistics
from .context import Context
from .reach import middle, statistics_reach


def statistics(
    raw: Tensor, raw_margin: int, guides: Sequence[Tensor], guide_margin: int, c: ModelConfig, context: Context | None, at: Tensor
) -> Tensor:
    """Statistics of pixels of a piece: value, mean and deviation of the bands at ``radii``, of the context's maps and of the guides
    at ``guide_radii``.

    Args:
        raw: (C, h + 2 raw_margin, w + 2 raw_margin). guides: (C_k, h + 2 guide_margin, w + 2 guide_margin) each.
        at: int64 (n,), the pixels as row * w + column.

    Returns (n, S), those of the bands and their context first.
    """
    around = max(c.guide_radii, default=0)
    sources = [(middle(raw, raw_margin - max(c.radii, default=0)), c.radii)]
    if context is not None:
        sources.append((context(middle(raw, raw_margin - around - max(context.radii))), c.guide_radii))
    sources += [(middle(g, guide_margin - around), c.guide_radii) for g in guides]
    sizes = [len(x) * (1 + 2 * len(radii)) for x, radii in sources]
    out = torch.empty(len(at), sum(sizes), device=raw.device)
    for (x, radii), part in zip(sources, out.split(sizes, 1), strict=True):
        part.copy_(pick(box_statistics(x[None], radii)[0], at))
    return out


def pick(maps: Tensor, at: Tensor) -> Tensor:
    """Values (n, C) of maps (C, h, w) at the pixels ``at`` = row * w + column; no copy where these are all pixels in order."""
    flat = maps.flatten(1)
    if len(at) == flat.shape[1] and bool((at.diff() == 1).all()):
        return flat.T
    return flat.index_select(1, at).T


def statistics_at(
    prepared: PreparedScene, tile: Tile | None, c: ModelConfig, rc: Tensor, side: int, context: Context | None = None
) -> Tensor:
    """Statistics (n, S) of the pixels rc int64 (n, 2), by cells of ``side`` pixels that share the work; on the context's device."""
    raw_margin, guide_margin = statistics_reach(c), max(c.guide_radii, default=0)
    device = torch.device("cpu") if context is None else context.weight.device
    cells, group = torch.unique(rc // side, dim=0, return_inverse=True)
    out = None
    for i in range(len(cells)):
        mine = (group == i).nonzero().squeeze(1)
        low, high = rc[mine].amin(0), rc[mine].amax(0) + 1
        y, x, h, w = int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
        raw = prepared.window(y - raw_margin, x - raw_margin, h + 2 * raw_margin, w + 2 * raw_margin).to(device)
        around = (y - guide_margin, x - guide_margin, h + 2 * guide_margin, w + 2 * guide_margin)
        guides = [] if tile is None else [g.to(device) for g in tile(*around)]
        at = ((rc[mine, 0] - y) * w + rc[mine, 1] - x).to(device)
        rows = statistics(raw, raw_margin, guides, guide_margin, c, context, at)
        if out is None:
            out = torch.empty(len(rc), rows.shape[1], device=device)
        out[mine.to(device)] = rows
    return torch.empty(0, 0) if out is None else out


def fit_context(context: Context, prepared: PreparedScene, config: Config) -> None:
    """Fit the context's axes on the training side, without labels: at most ``features.fit_pixels`` of it, by whole tiles."""
    split, side, left, reach = prepared.split, config.features.tile, config.features.fit_pixels, max(context.radii)
    region = torch.as_tensor(prepared.valid).clone()
    if split is not None:
        region &= torch.from_numpy(split.train_region)

    def samples() -> Iterator[Tensor]:
        nonlocal left
        for y in range(0, prepared.height, side):
            for x in range(0, prepared.width, side):
                inside = region[y : y + side, x : x + side]
                if left <= 0 or not inside.any():
                    continue
                h, w = inside.shape
                yield context.raw(prepared.window(y - reach, x - reach, h + 2 * reach, w + 2 * reach))[:, :, inside]
                left -= int(inside.sum())

    context.fit(samples())
