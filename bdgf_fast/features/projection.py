"""Principal components of maps, fitted in one pass over a scene, and guide maps that are projected to them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.random_streams import generator
from ..config import FeaturesConfig
from ..data.prepared import PreparedScene, mirror
from ..diffusion.denoiser import Denoiser
from ..diffusion.unet import to_pixel_grid
from .source import BlockFeatures, crop, windows


def principal_axes(samples: Iterable[Sequence[Tensor]], channels: int) -> list[tuple[Tensor, Tensor]]:
    """Principal components of several groups of variables, fitted on the same pixels and divided by one common factor.

    Args:
        samples: parts of the pixels, each with one (n, C_k) for every group k.
        channels: components kept of a group, at most.

    Returns for every group (weight (c, C_k), bias (c,)) with y = weight x + bias centred; the mean variance over all kept
    components is 1. float64 sums; O(pixels * channels^2). Raises ValueError for fewer than two pixels.
    """
    sums: list[list[Tensor]] = []
    count = 0
    for values in samples:
        parts = [[x.double().sum(0), x.double().T @ x.double()] for x in values]
        sums = parts if not sums else [[a + b for a, b in zip(old, new, strict=True)] for old, new in zip(sums, parts, strict=True)]
        count += len(values[0])
    if count < 2:
        raise ValueError("the features are fitted on the training side, which has fewer than 2 valid pixels")
    found, spread = [], []
    for total, outer in sums:
        mean = total / count
        values, vectors = torch.linalg.eigh(outer / count - mean[:, None] * mean)
        kept = min(channels, len(values))
        axes = vectors[:, -kept:].flip(1).T
        axes = axes * axes[torch.arange(kept), axes.abs().argmax(1)].sign()[:, None]  # eigenvectors have no sign of their own
        found.append((axes, -(axes @ mean)))
        spread.append(values[-kept:].clamp(min=0))
    factor = torch.cat(spread).mean().sqrt().clamp(min=1e-12)
    return [((axes / factor).float(), (bias / factor).float()) for axes, bias in found]


def training_side(prepared: PreparedScene, region: np.ndarray | None = None) -> np.ndarray:
    """Pixels bool (H, W) that statistics are fitted on: the valid ones of ``region``, by default of the split's ``train_region``
    (of the whole scene where there is no split)."""
    if region is None:
        split = getattr(prepared, "split", None)
        region = np.ones((prepared.height, prepared.width), bool) if split is None else split.train_region
    return np.asarray(region, bool) & np.asarray(prepared.valid, bool)


class ProjectedFeatures:
    """Maps of a scene, projected by PCA and divided by one common factor, given by tiles and patches.

    What the maps are, a subclass says in ``_raw``. The projection is fitted by ``_fit``; ``state`` and ``tensors`` give it as
    JSON and tensors for a checkpoint.
    """

    def __init__(
        self, prepared: PreparedScene, config: FeaturesConfig, seed: int, projection: Sequence[Tensor] = (),
        bias: Sequence[Tensor] = (),
    ) -> None:  # fmt: skip
        self.prepared, self.config, self.seed = prepared, config, seed
        self.projection, self.bias = list(projection), list(bias)
        self.channels: tuple[int, ...] = tuple(len(b) for b in self.bias)
        self.device = torch.device("cpu")

    def _raw(self, y0: int, x0: int, h: int, w: int) -> list[tuple[Tensor, int, int, int, int, int]]:
        """Raw maps that cover rows y0..y0+h-1, columns x0..x0+w-1: per level (map (1, C, .., ..), stride, and row, column, height
        and width in pixels of the place it covers)."""
        raise NotImplementedError

    def over(self, prepared: PreparedScene) -> Self:
        """The same features of another view of the scene, or of another scene prepared alike."""
        view = copy.copy(self)
        view.prepared = prepared
        return view

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
        """Raw features of the region's pixels, tile after tile: per level (n, C)."""
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

    @torch.no_grad()
    def _project(self, maps: list[tuple[Tensor, int, int, int]]) -> list[Tensor]:
        """Projected maps (B, C_k, height, width) of raw ones (B, C, .., ..), stride, height, width. Linear
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

        Diffusion features cost one U-Net pass per timestep over (h + 2 margin) x (w + 2 margin) pixels.
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
        """See ``FeatureSource``. Pixels that share a cell of ``features.tile`` pixels share the work."""
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
        """See ``FeatureSource``: patches are cut from the maps of the whole block."""
        before = size // 2
        maps = self.tile(y0 - before, x0 - before, h + size - 1, w + size - 1)
        corner = torch.tensor([y0, x0])
        return lambda rc: [windows(m, rc - corner, size) for m in maps]


class DenoiserFeatures(ProjectedFeatures):
    """Maps that come from a frozen denoiser, on its device."""

    def __init__(
        self, denoiser: Denoiser, prepared: PreparedScene, config: FeaturesConfig, seed: int, projection: Sequence[Tensor] = (),
        bias: Sequence[Tensor] = (),
    ) -> None:  # fmt: skip
        super().__init__(prepared, config, seed, projection, bias)
        self.denoiser = denoiser
        self.device = next(denoiser.unet.parameters()).device

    def _input(self, x0: Tensor, t: Tensor, **address: Any) -> Tensor:
        """What the denoiser is given of x0 (B, C, H, W) at t (B,), as ``features.noise`` says; ``address`` is that of the noise."""
        return self.denoiser.signal(x0, t) if self.config.noise == "none" else self.denoiser.noisy(x0, t, self.seed, **address)
