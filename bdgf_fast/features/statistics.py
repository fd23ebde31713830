"""Control of the guidance: means and deviations of the raw bands over windows, in place of diffusion features.

The widest window sees about as far as the denoiser. If these guide as well, the gain is the context's and not the
diffusion model's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config
from ..data.prepared import PreparedScene
from .projection import ProjectedFeatures, training_side

SIDES = (37, 13, 5)
"""Windows in pixels, coarsest first like the denoiser's levels."""


class StatisticsFeatures(ProjectedFeatures):
    """One map a window, its bands' means and deviations; projected and scaled as the denoiser's features are."""

    def __init__(self, prepared: PreparedScene, config: Config, seed: int) -> None:
        super().__init__(prepared, config.features, seed)
        self._fit(training_side(prepared), config.data.patch)

    def _raw(self, y0: int, x0: int, h: int, w: int) -> list[tuple[Tensor, int, int, int, int, int]]:
        reach = max(SIDES) // 2
        window = self.prepared.window(y0 - reach, x0 - reach, h + 2 * reach, w + 2 * reach)[None]
        maps = []
        for side in SIDES:
            cut = reach - side // 2
            near = window[..., cut : window.shape[2] - cut, cut : window.shape[3] - cut]
            mean = F.avg_pool2d(near, side, 1)
            deviation = (F.avg_pool2d(near.square(), side, 1) - mean.square()).clamp(min=0).sqrt()
            maps.append((torch.cat([mean, deviation], 1), 1, y0, x0, h, w))
        return maps
