"""Diffusion features of patches: each patch through the U-Net by itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..common.random_streams import generator
from ..diffusion.unet import to_pixel_grid
from .projection import DenoiserFeatures
from .source import BlockFeatures

STREAM = 2**31 + 2
"""Stream of the features' noise; training uses the step numbers."""


class PatchFeatures(DenoiserFeatures):
    """Each patch through the U-Net by itself, as in earlier work; its noise belongs to the patch's centre pixel."""

    MAX_FIT = 4096

    @torch.no_grad()
    def _raw_patches(self, rc: Tensor, size: int) -> list[tuple[Tensor, int, int, int]]:
        count, n = len(self.config.timesteps), len(rc)
        x = self.prepared.patches(rc, size).to(self.device).repeat(count, 1, 1, 1)
        t = torch.tensor(self.config.timesteps, device=self.device).repeat_interleave(n)
        noisy = torch.cat(
            [
                self._input(
                    x[k * n : (k + 1) * n],
                    t[k * n : (k + 1) * n],
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
