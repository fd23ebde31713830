"""A trained denoiser: the U-Net with everything that is needed to use it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import q_sample
from .masking import channel_mask
from .schedule import Schedule
from .unet import DenoisingUNet

if TYPE_CHECKING:  # the schedulers are there without what the application installs
    from ..config import PretrainConfig


@dataclass
class Denoiser:
    """U-Net, noise schedule and prediction type. ``groups`` and ``names`` are the modalities it was made for."""

    unet: DenoisingUNet
    names: tuple[str, ...]
    timesteps: int
    schedule_name: str
    prediction: str
    mask_fill: str = "zero"
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule.from_name(self.schedule_name, self.timesteps)

    @classmethod
    def create(cls, groups: tuple[int, ...], names: tuple[str, ...], config: PretrainConfig) -> Denoiser:
        """A new, untrained one; the weights come from torch's global generator."""
        unet = DenoisingUNet(groups, config.widths, config.blocks)
        return cls(unet, tuple(names), config.timesteps, config.schedule, config.prediction, config.mask_fill)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.unet.groups

    def to(self, device: torch.device | str) -> Denoiser:
        self.unet.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """JSON-able facts from which ``restore`` builds the same denoiser around its weights."""
        return {
            "groups": list(self.groups),
            "names": list(self.names),
            "widths": list(self.unet.widths),
            "blocks": self.unet.blocks,
            "timesteps": self.timesteps,
            "schedule": self.schedule_name,
            "prediction": self.prediction,
            "mask_fill": self.mask_fill,
        }

    @classmethod
    def restore(cls, facts: dict[str, Any], weights: dict[str, Tensor]) -> Denoiser:
        """Inverse of ``describe`` with the U-Net's ``state_dict``."""
        unet = DenoisingUNet(tuple(facts["groups"]), facts["widths"], facts["blocks"])
        unet.load_state_dict(weights)
        return cls(
            unet, tuple(facts["names"]), facts["timesteps"], facts["schedule"], facts["prediction"], facts["mask_fill"]
        )

    def noisy(self, x0: Tensor, t: Tensor, seed: int, *, hidden: Tensor | None = None, **address: Any) -> Tensor:
        """x_t of x0 (B, C, H, W) at t (B,); ``hidden`` (B, M) bool modalities are filled, not noised. ``address``: the
        noise's ``sample_ids``, ``stream``, ``origin``, ``extent`` (see ``ops.q_sample``)."""
        mask = None if hidden is None else channel_mask(hidden, self.groups)
        return q_sample(x0, t, self.schedule, seed, channel_mask=mask, mask_mode=self.mask_fill, **address)

    def signal(self, x0: Tensor, t: Tensor) -> Tensor:
        """What of x_t comes of x0 (B, C, H, W) at t (B,): sqrt(abar_t) x0, without the noise."""
        return self.schedule.to(x0.device).sqrt_alphas_cumprod[t][:, None, None, None] * x0

    @torch.no_grad()
    def estimate_x0(self, noisy: Tensor, t: Tensor, hidden: Tensor | None = None) -> Tensor:
        """The estimate of x0 (B, C, H, W) for every modality, whatever the prediction type; a hidden one's is the
        output itself."""
        out = self.unet(noisy, t, None if hidden is None else ~hidden)
        if self.prediction == "sample":
            return out
        signal, noise = (
            table.to(out.device)[t][:, None, None, None]
            for table in (self.schedule.sqrt_alphas_cumprod, self.schedule.sqrt_one_minus_alphas_cumprod)
        )
        estimate = (noisy - noise * out) / signal if self.prediction == "epsilon" else signal * noisy - noise * out
        return (
            estimate
            if hidden is None
            else torch.where(channel_mask(hidden, self.groups)[:, :, None, None], out, estimate)
        )
