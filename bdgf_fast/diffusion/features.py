"""Stage 2: features of the frozen denoiser, streamed tile by tile.

``FeatureSource`` is what the later stages need; features of another model are plugged in by implementing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config, FeaturesConfig
from ..data.prepared import mirror
from .components import principal_axes
from .crops import generator
from .denoiser import Denoiser
from .unet import to_pixel_grid

STREAM = 2**31 + 2
"""Stream of the features' noise; training uses the step numbers."""


class FeatureSource(Protocol):
    """Guide maps on the pixel grid, coarsest level first. Whatever has these members can guide the network:

    ``train(prepared, source, config, seed=...)`` and ``predict_pixels(network, source, prepared, config, rc)`` ask for no
    more: ``tile`` for a dense network, ``patches`` and ``block`` for one over patches. Stage k of S takes map
    k * len(channels) // S. Maps should be centred and of variance near 1 (not whitened: the
    small directions are noise), by statistics of the training side. The same pixel must get the same features however it is
    asked for. A source with ``state()`` and ``tensors()`` has them stored in the network's checkpoint. Maps that are computed
    already need no class: see ``ArrayFeatures``; ``examples/own_features.py`` has both ways.
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


class DiffusionFeatures:
    """Decoder features of a frozen denoiser at a few timesteps, projected by PCA and divided by one common factor.

    x_t is made with fixed noise addressed by scene coordinates, so that a pixel's features depend neither on the tile
    that covers it nor on the order. Build with ``fit``; ``state``/``restore`` give and take JSON and tensors for a
    checkpoint.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prepared: Any,
        config: FeaturesConfig,
        seed: int,
        projection: list[Tensor],
        bias: list[Tensor],
    ) -> None:
        self.denoiser, self.prepared, self.config, self.seed = denoiser, prepared, config, seed
        self.projection, self.bias = projection, bias
        self.channels = tuple(len(b) for b in bias)
        self.device = next(denoiser.unet.parameters()).device

    # --- construction ---

    @classmethod
    def fit(
        cls, denoiser: Denoiser, prepared: Any, config: Config, seed: int, region: np.ndarray | None = None
    ) -> DiffusionFeatures:
        """Fit the projection on the training side, without labels.

        Args:
            region: bool (H, W) of pixels to fit on; default: the split's ``train_region`` (the whole scene where there
                is no split).

        One pass over the tiles with pixels of the region, at most ``features.fit_pixels``; O(pixels * channels^2).
        """
        if tuple(prepared.groups) != denoiser.groups:
            raise ValueError(
                f"the scene has {tuple(prepared.groups)} channels per modality, "
                f"the denoiser was made for {denoiser.groups}"
            )
        chosen = {"dense": DiffusionFeatures, "patch": PatchFeatures}[config.features.mode]
        self = chosen(denoiser, prepared, config.features, seed, [], [])
        if region is None:
            split = getattr(prepared, "split", None)
            region = np.ones((prepared.height, prepared.width), bool) if split is None else split.train_region
        self._fit(np.asarray(region, bool) & np.asarray(prepared.valid, bool), config.data.patch)
        return self

    @classmethod
    def restore(
        cls, denoiser: Denoiser, prepared: Any, config: Config, state: dict[str, Any], tensors: dict[str, Tensor]
    ) -> DiffusionFeatures:
        """Inverse of ``state`` and ``tensors``, also for another scene of the same modalities."""
        chosen = {"dense": DiffusionFeatures, "patch": PatchFeatures}[config.features.mode]
        projection = [tensors[f"projection.{i}"] for i in range(state["levels"])]
        bias = [tensors[f"bias.{i}"] for i in range(state["maps"])]
        return chosen(denoiser, prepared, config.features, state["seed"], projection, bias)

    def state(self) -> dict[str, Any]:
        return {"levels": len(self.projection), "maps": len(self.bias), "seed": self.seed}

    def tensors(self) -> dict[str, Tensor]:
        return {
            **{f"projection.{i}": p for i, p in enumerate(self.projection)},
            **{f"bias.{i}": b for i, b in enumerate(self.bias)},
        }

    def _fit(self, region: np.ndarray, patch: int) -> None:
        """Mean and covariance of the raw features over the region, then the leading eigenvectors."""
        joint = self.config.pca == "joint"
        widths: list[int] = []

        def groups() -> Iterator[Sequence[Tensor]]:
            for values in self._samples(region, patch):
                widths[:] = [v.shape[1] for v in values]
                yield [torch.cat(values, 1)] if joint else values

        found = principal_axes(groups(), self.config.channels)
        if joint:
            self.projection = [p.contiguous() for p in found[0][0].split(widths, 1)]
        else:
            self.projection = [axes for axes, _ in found]
        self.bias = [bias for _, bias in found]
        self.channels = tuple(len(b) for b in self.bias)

    def _samples(self, region: np.ndarray, patch: int):
        """Raw features of the region's pixels, tile after tile: per level (n, T * width)."""
        side, left = self.config.tile, self.config.fit_pixels
        cells = [
            (y, x)
            for y in range(0, region.shape[0], side)
            for x in range(0, region.shape[1], side)
            if region[y : y + side, x : x + side].any()
        ]
        for i in generator(self.seed, "features").permutation(len(cells)):
            if left <= 0:
                break
            y, x = cells[i]
            inside = torch.from_numpy(region[y : y + side, x : x + side].copy())
            h, w = inside.shape
            maps = self._raw(y, x, h, w)
            yield [
                crop(to_pixel_grid(m, s, th, tw), y - ty, x - tx, h, w)[0][:, inside].T for m, s, ty, tx, th, tw in maps
            ]
            left -= int(inside.sum())

    # --- dense mode ---

    @property
    def margin(self) -> int:
        """Halo of a tile in pixels: what the U-Net sees, so that no feature depends on the tile."""
        return feature_margin(self.denoiser.unet.receptive_radius(self.config.levels), len(self.denoiser.unet.widths))

    @torch.no_grad()
    def _raw(self, y0: int, x0: int, h: int, w: int) -> list[tuple[Tensor, int, int, int, int, int]]:
        """Decoder maps of a tile around rows y0..y0+h-1: per level (map (1, T * width, .., ..), stride, tile row,
        column, height, width).

        The tile's origin is a multiple of the coarsest stride and the tile ends at the scene's edge: its grid is the
        scene's.
        """
        stride, margin = 2 ** (len(self.denoiser.unet.widths) - 1), self.margin
        top, left = (max(0, (v - margin) // stride * stride) for v in (y0, x0))
        bottom, right = min(self.prepared.height, y0 + h + margin), min(self.prepared.width, x0 + w + margin)
        window = self.prepared.window(top, left, bottom - top, right - left).to(self.device)
        count = len(self.config.timesteps)
        x = window.expand(count, -1, -1, -1).contiguous()
        t = torch.tensor(self.config.timesteps, device=self.device)
        origin = torch.tensor([[top, left]] * count, device=self.device)
        noisy = self.denoiser.noisy(
            x,
            t,
            self.seed,
            sample_ids=torch.arange(count, device=self.device),
            stream=STREAM,
            origin=origin,
            extent=(self.prepared.height, self.prepared.width),
        )
        maps = self.denoiser.unet.features(noisy, t, levels=self.config.levels)
        # stride of each map: the coarsest first
        return [
            (m.flatten(0, 1)[None], stride >> depth, top, left, bottom - top, right - left)
            for depth, m in enumerate(maps)
        ]

    @torch.no_grad()
    def _project(self, maps: list[tuple[Tensor, int, int, int]]) -> list[Tensor]:
        """Projected maps (B, C_k, height, width) of raw ones (B, T * width, .., ..), stride, height, width. Linear
        maps commute with the interpolation, so the few projected channels are interpolated and not the many raw
        ones."""
        parts = [
            to_pixel_grid(F.conv2d(m, p.to(m)[:, :, None, None]), s, h, w)
            for (m, s, h, w), p in zip(maps, self.projection, strict=True)
        ]
        if self.config.pca == "joint":
            parts = [torch.stack(parts).sum(0)]
        return [part + b.to(part)[:, None, None] for part, b in zip(parts, self.bias, strict=True)]

    def tile(self, y0: int, x0: int, h: int, w: int) -> list[Tensor]:
        """Guide maps of rows y0..y0+h-1, columns x0..x0+w-1: float32 (C_k, h, w) each, mirrored where they leave the
        scene.

        Cost and memory: one U-Net pass per timestep over (h + 2 margin) x (w + 2 margin) pixels.
        """
        rows, columns = (
            mirror(torch.arange(y0, y0 + h), self.prepared.height),
            mirror(torch.arange(x0, x0 + w), self.prepared.width),
        )
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        raw = self._raw(top, left, height, width)
        maps = self._project([(m, s, th, tw) for m, s, _, _, th, tw in raw])
        dy, dx = top - raw[0][2], left - raw[0][3]
        rows, columns = (rows - top + dy).to(self.device), (columns - left + dx).to(self.device)
        return [m[0].index_select(1, rows).index_select(2, columns) for m in maps]

    def patches(self, rc: Tensor, size: int) -> list[Tensor]:
        """See ``FeatureSource``. Pixels that share a cell of ``features.tile`` pixels share one pass of the U-Net."""
        side = self.config.tile
        out = [torch.empty(len(rc), c, size, size) for c in self.channels]
        cells, group = torch.unique(rc // side, dim=0, return_inverse=True)
        for i in range(len(cells)):
            mine = (group == i).nonzero().squeeze(1)
            low, high = rc[mine].amin(0), rc[mine].amax(0) + 1
            height, width = (int(v) for v in high - low)
            block = self.block(int(low[0]), int(low[1]), height, width, size)
            for target, values in zip(out, block(rc[mine]), strict=True):
                target[mine] = values.cpu()
        return out

    def block(self, y0: int, x0: int, h: int, w: int, size: int) -> BlockFeatures:
        """See ``FeatureSource``: one pass of the U-Net, patches are cut from its maps."""
        before = size // 2
        maps = self.tile(y0 - before, x0 - before, h + size - 1, w + size - 1)
        corner = torch.tensor([y0, x0])
        return lambda rc: [windows(m, rc - corner, size) for m in maps]


class PatchFeatures(DiffusionFeatures):
    """Each patch through the U-Net by itself, as in earlier work; its noise belongs to the patch's centre pixel."""

    MAX_FIT = 4096

    @torch.no_grad()
    def _raw_patches(self, rc: Tensor, size: int) -> list[tuple[Tensor, int, int, int]]:
        count, n = len(self.config.timesteps), len(rc)
        x = self.prepared.patches(rc, size).to(self.device).repeat(count, 1, 1, 1)
        t = torch.tensor(self.config.timesteps, device=self.device).repeat_interleave(n)
        noisy = torch.cat(
            [
                self.denoiser.noisy(
                    x[k * n : (k + 1) * n],
                    t[k * n : (k + 1) * n],
                    self.seed,
                    sample_ids=(rc[:, 0] * self.prepared.width + rc[:, 1]).to(self.device),
                    stream=STREAM + k,
                )
                for k in range(count)
            ]
        )
        maps = self.denoiser.unet.features(noisy, t, levels=self.config.levels)
        stride = 2 ** (len(self.denoiser.unet.widths) - 1)
        return [
            (m.unflatten(0, (count, n)).transpose(0, 1).flatten(1, 2), stride >> depth, size, size)
            for depth, m in enumerate(maps)
        ]

    def _samples(self, region: np.ndarray, patch: int):
        rc = torch.from_numpy(np.argwhere(region))
        count = min(len(rc), self.config.fit_pixels // patch**2 + 1, self.MAX_FIT)
        rc = rc[torch.from_numpy(generator(self.seed, "features").permutation(len(rc))[:count].copy())]
        for part in rc.split(256):
            yield [
                to_pixel_grid(m, s, h, w).movedim(1, -1).flatten(0, 2) for m, s, h, w in self._raw_patches(part, patch)
            ]

    def tile(self, y0: int, x0: int, h: int, w: int) -> list[Tensor]:
        raise ValueError(
            'features.mode = "patch" has no map of the scene, only patches; use features.mode = "dense" for maps'
        )

    def patches(self, rc: Tensor, size: int) -> list[Tensor]:
        """See ``FeatureSource``. Cost: one U-Net pass per patch and timestep."""
        parts = [self._project(self._raw_patches(part, size)) for part in rc.split(256)]
        return (
            [torch.cat(level).cpu() for level in zip(*parts, strict=True)]
            if parts
            else [torch.empty(0, c, size, size) for c in self.channels]
        )

    def block(self, y0: int, x0: int, h: int, w: int, size: int) -> BlockFeatures:
        return lambda rc: self.patches(rc, size)


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
