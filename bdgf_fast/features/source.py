"""What a source of guide maps gives, and cuts of such maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..data.prepared import PreparedScene

Tile = Callable[[int, int, int, int], list[Tensor]]
"""(y0, x0, h, w) -> the guide maps (C_k, h, w) there, mirrored outside the scene."""


class FeatureSource(Protocol):
    """Guide maps on the pixel grid, coarsest level first. Whatever has these members can guide the network:

    ``train(prepared, source, config, seed=...)`` and ``predict_pixels(network, source, prepared, config, rc)`` ask for no
    more: ``tile`` for a dense network, ``patches`` and ``block`` for one over patches. Stage k of S takes map
    k * len(channels) // S. Maps should be centred and of variance near 1 (not whitened: the
    small directions are noise), by statistics of the training side. The same pixel must get the same features however it is
    asked for. A source with ``over(prepared)`` gives its maps of another view of the scene, in which a modality is hidden; one
    without is taken to give the same maps. One with ``state()`` and ``tensors()`` has them stored in the network's checkpoint.
    Maps that are computed already need no class: see ``ArrayFeatures``; ``examples/own_features.py`` has both ways.
    """

    channels: tuple[int, ...]
    """Channels of each map."""

    def tile(self, y0: int, x0: int, h: int, w: int) -> list[Tensor]:
        """Maps of rows y0..y0+h-1, columns x0..x0+w-1: per map float32 (C_k, h, w), mirrored where they leave the scene."""
        ...

    def patches(self, rc: Tensor, size: int) -> list[Tensor]:
        """Maps around the pixels rc int64 (n, 2): per map float32 (n, C_k, size, size), cut as
        ``PreparedScene.patches`` does."""
        ...

    def block(self, y0: int, x0: int, h: int, w: int, size: int) -> BlockFeatures:
        """Access to the patches of the pixels of one block of the scene."""
        ...


class BlockFeatures(Protocol):
    """Patches of pixels inside one block."""

    def __call__(self, rc: Tensor) -> list[Tensor]: ...


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


def hiding(prepared: PreparedScene, features: FeatureSource | None, name: str) -> tuple[PreparedScene, FeatureSource | None]:
    """A scene with the modality ``name`` hidden, and its guide maps."""
    view = prepared.hiding(name)
    over = getattr(features, "over", None)
    return view, features if over is None else over(view)


def feature_margin(radius: int, depth: int) -> int:
    """A receptive radius as a multiple of the coarsest stride of a U-Net of ``depth`` levels."""
    stride = 2 ** (depth - 1)
    return -(-radius // stride) * stride


def crop(x: Tensor, y0: int, x0: int, h: int, w: int) -> Tensor:
    """The last two axes cut to h x w from (y0, x0)."""
    return x[..., y0 : y0 + h, x0 : x0 + w]


def windows(x: Tensor, corners: Tensor, size: int) -> Tensor:
    """Squares of a map (C, H, W) with upper left corners (n, 2): (n, C, size, size) in channels-last memory."""
    reach = torch.arange(size, device=x.device)
    corners = corners.to(x.device)
    rows, columns = corners[:, :1] + reach, corners[:, 1:] + reach
    index = (rows[:, :, None] * x.shape[2] + columns[:, None, :]).reshape(-1)
    picked = x.flatten(1).T.contiguous().index_select(0, index)
    return picked.view(len(corners), size, size, x.shape[0]).permute(0, 3, 1, 2)
