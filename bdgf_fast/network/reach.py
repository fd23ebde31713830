"""How far the network sees: margins of a piece, and the distance over which a pixel is influenced."""

from __future__ import annotations

from torch import Tensor

from ..config import Config, ModelConfig
from ..diffusion.unet import receptive_radius


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
    bands = max(inner + 1, statistics_reach(c) if c.statistics else 0)  # the stem sees one pixel further
    return max(bands, own + max([inner, *(c.guide_radii if c.statistics else ())])) if guided(c) else bands


def statistics_reach(c: ModelConfig) -> int:
    """Pixels of raw bands around a pixel that its statistics take, whether the network sees them or a baseline alone."""
    around = max(c.guide_radii, default=0)
    return max([*c.radii, *(radius + around for radius in c.context), 0])


def raw_reach(c: ModelConfig) -> int:
    """Pixels of raw bands that a piece needs around it: the branches' halo with the stem's frame, or the widest statistics."""
    return max(halo(c) + 1, statistics_reach(c) if c.statistics else 0)


def guide_reach(c: ModelConfig) -> int:
    """The same for the guide maps."""
    return max([halo(c), *(c.guide_radii if c.statistics else ())])


def middle(x: Tensor, margin: int) -> Tensor:
    """The last two axes without ``margin`` pixels at each end."""
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]
