"""Modality masking for pre-training: which modalities a sample hides from the denoiser.

The abstract of the BDGF paper asks for "adaptive modality masking"; its rule is not at hand. The adaptive rule here is
ours: a modality is hidden in proportion to the influence it has on the decoder's features, so that the dominant one
gives way to the others. ``none`` and ``fixed`` stay selectable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .unet import DenoisingUNet

if TYPE_CHECKING:  # the schedulers are there without what the application installs
    from ..config import PretrainConfig


class MaskingPolicy:
    """Hide modality m of a sample with probability ``rates()[m]``; at least one modality always stays visible.

    The base class hides nothing. ``draw`` takes its randomness from outside, so a policy's whole state is what
    ``state()``
    returns: a flat dictionary of JSON values.
    """

    wants_influence = False

    def __init__(self, modalities: int) -> None:
        self.modalities = modalities

    def rates(self) -> Tensor:
        """Probabilities (M,) float64, before the rule that one modality stays."""
        return torch.zeros(self.modalities, dtype=torch.float64)

    def draw(self, uniform: Tensor) -> Tensor:
        """``uniform`` (B, M + 1) in [0, 1) -> hidden (B, M) bool; the last column picks who stays if all were
        hidden."""
        hidden = uniform[:, :-1] < self.rates().to(uniform.dtype)
        stays = (uniform[:, -1] * self.modalities).long().clamp(max=self.modalities - 1)
        keep = torch.nn.functional.one_hot(stays, self.modalities).bool()
        return hidden & ~(hidden.all(1, keepdim=True) & keep)

    def update(self, influence: Tensor) -> None:
        """Take in one measurement of the influence (M,)."""

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state()`` gave."""


class FixedMasking(MaskingPolicy):
    """Every modality at the same rate."""

    def __init__(self, modalities: int, rate: float) -> None:
        super().__init__(modalities)
        self.rate = rate

    def rates(self) -> Tensor:
        return torch.full((self.modalities,), self.rate, dtype=torch.float64)


class AdaptiveMasking(MaskingPolicy):
    """p_m = clip(rate * M * I_m / sum I, low, high) with I the moving average of the influence, uniform at the
    start."""

    wants_influence = True

    def __init__(self, modalities: int, rate: float, low: float, high: float, decay: float) -> None:
        super().__init__(modalities)
        self.rate, self.low, self.high, self.decay = rate, low, high, decay
        self.influence = torch.full((modalities,), 1 / modalities, dtype=torch.float64)

    def rates(self) -> Tensor:
        share = self.influence / self.influence.sum().clamp(min=1e-12)
        return (self.rate * self.modalities * share).clamp(self.low, self.high)

    def update(self, influence: Tensor) -> None:
        share = influence.double() / influence.double().sum().clamp(min=1e-12)
        self.influence = self.decay * self.influence + (1 - self.decay) * share

    def state(self) -> dict[str, Any]:
        return {"influence": self.influence.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        self.influence = torch.tensor(state["influence"], dtype=torch.float64)


def make_policy(config: PretrainConfig, modalities: int) -> MaskingPolicy:
    """The policy of a configuration. One modality alone is never hidden, whatever is asked for."""
    if modalities == 1 or config.masking == "none":
        return MaskingPolicy(modalities)
    if config.masking == "fixed":
        return FixedMasking(modalities, config.mask_rate)
    return AdaptiveMasking(modalities, config.mask_rate, config.mask_low, config.mask_high, config.mask_ema)


def channel_mask(hidden: Tensor, groups: tuple[int, ...]) -> Tensor:
    """hidden (B, M) bool -> (B, C) bool, every channel of a hidden modality True."""
    return hidden.repeat_interleave(torch.tensor(groups, device=hidden.device), dim=1)


@torch.no_grad()
def measure_influence(model: DenoisingUNet, noisy: Tensor, t: Tensor, groups: tuple[int, ...]) -> Tensor:
    """Influence I (M,) float64: relative change of the decoder's features when one modality alone is taken from another
    sample, ||f' - f|| / ||f||, averaged over the decoder's levels.

    Args:
        noisy: x_t (B, C, H, W) with B >= 2, nothing hidden; sample i borrows from sample i - 1.

    Cost: M + 1 forward passes without gradient.
    """
    base = model.features(noisy, t)
    other = noisy.roll(1, 0)
    sizes = [f.double().norm().clamp(min=1e-12) for f in base]
    result, start = [], 0
    for size in groups:
        mixed = noisy.clone()
        mixed[:, start : start + size] = other[:, start : start + size]
        maps = model.features(mixed, t)
        changes = [(a - b).double().norm() / s for a, b, s in zip(maps, base, sizes, strict=True)]
        result.append(torch.stack(changes).mean())
        start += size
    return torch.stack(result)
