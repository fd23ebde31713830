"""A dual-branch denoiser with one modality a branch, in a small form.

Each modality has a U-Net of its own, pre-trained on it alone with the method's settings: nothing can be learned about how
the modalities go together, and nothing can be dominated. Their features are concatenated level by level and guide the same
group network on all bands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import Config
from ..data.prepared import PreparedScene
from ..diffusion.denoiser import Denoiser
from ..features.dense import DiffusionFeatures
from ..features.source import BlockFeatures, FeatureSource
from ..network.train import Network, train


class JoinedFeatures:
    """Feature sources with equally many maps, concatenated map by map."""

    def __init__(self, sources: Sequence[FeatureSource]) -> None:
        self.sources = list(sources)
        self.channels = tuple(sum(level) for level in zip(*(s.channels for s in sources), strict=True))

    def patches(self, rc: Tensor, size: int) -> list[Tensor]:
        return _joined([s.patches(rc, size) for s in self.sources])

    def tile(self, y0: int, x0: int, h: int, w: int) -> list[Tensor]:
        return _joined([s.tile(y0, x0, h, w) for s in self.sources], 0)

    def block(self, y0: int, x0: int, h: int, w: int, size: int) -> BlockFeatures:
        blocks = [s.block(y0, x0, h, w, size) for s in self.sources]
        return lambda rc: _joined([block(rc) for block in blocks])


def _joined(maps: Sequence[Sequence[Tensor]], axis: int = 1) -> list[Tensor]:
    return [torch.cat(level, axis) for level in zip(*maps, strict=True)]


def dual_denoiser(
    prepared: PreparedScene, config: Config, seed: int, *, denoiser: Callable[[str], Denoiser], **how: Any
) -> tuple[Network, JoinedFeatures]:
    """Fit the features of every modality's own denoiser, then train the group network on them.

    Args:
        denoiser: the trained denoiser of one modality, by its name.
        how: goes to ``train`` (checkpoint, resume, progress, device).

    ``features.channels`` is shared out among the modalities: the guides are as wide as the method's.
    """
    names = prepared.modality_names
    share = config.override(f"features.channels={-(-config.features.channels // len(names))}")
    features = JoinedFeatures([DiffusionFeatures.fit(denoiser(n), prepared.select([n]), share, seed) for n in names])
    return train(prepared, features, config, seed=seed, **how)[0], features
