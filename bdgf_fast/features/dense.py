"""Stage 2: features of the frozen denoiser, streamed tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..data.prepared import PreparedScene
from ..diffusion.denoiser import Denoiser
from .patch import STREAM, PatchFeatures
from .projection import DenoiserFeatures, training_side
from .source import feature_margin


class DiffusionFeatures(DenoiserFeatures):
    """Decoder features of a frozen denoiser at a few timesteps, projected by PCA and divided by one common factor.

    x_t is made with fixed noise addressed by scene coordinates, so that a pixel's features depend neither on the tile
    that covers it nor on the order. Build with ``fit``; ``state``/``restore`` give and take JSON and tensors for a
    checkpoint.
    """

    @classmethod
    def fit(
        cls, denoiser: Denoiser, prepared: PreparedScene, config: Config, seed: int, region: np.ndarray | None = None
    ) -> DiffusionFeatures | PatchFeatures:
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
        self = MODES[config.features.mode](denoiser, prepared, config.features, seed)
        self._fit(training_side(prepared, region), config.data.patch)
        return self

    @classmethod
    def restore(
        cls, denoiser: Denoiser, prepared: PreparedScene, config: Config, state: dict[str, Any], tensors: dict[str, Tensor]
    ) -> DiffusionFeatures | PatchFeatures:
        """Inverse of ``state`` and ``tensors``, also for another scene of the same modalities."""
        projection = [tensors[f"projection.{i}"] for i in range(state["levels"])]
        bias = [tensors[f"bias.{i}"] for i in range(state["maps"])]
        return MODES[config.features.mode](denoiser, prepared, config.features, state["seed"], projection, bias)

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
        hidden = None
        if self.prepared.hidden_index is not None:
            hidden = torch.zeros(count, len(self.denoiser.groups), dtype=torch.bool, device=self.device)
            hidden[:, self.prepared.hidden_index] = True
        noisy = self._input(
            x,
            t,
            hidden=hidden,
            sample_ids=torch.arange(count, device=self.device),
            stream=STREAM,
            origin=origin,
            extent=(self.prepared.height, self.prepared.width),
        )
        maps = self.denoiser.unet.features(noisy, t, None if hidden is None else ~hidden, levels=self.config.levels)
        # stride of each map: the coarsest first
        return [
            (m.flatten(0, 1)[None], stride >> depth, top, left, bottom - top, right - left)
            for depth, m in enumerate(maps)
        ]


MODES: dict[str, type[DiffusionFeatures] | type[PatchFeatures]] = {"dense": DiffusionFeatures, "patch": PatchFeatures}
