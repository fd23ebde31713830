"""Noise schedules: tables of abar, computed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..reference.tables import sqrt_tables


class Schedule:
    """The cumulative products abar_t = prod_{s <= t} (1 - beta_s) of a diffusion process, and the tables made of them.

    Args:
        alphas_cumprod: abar (T,), each in [0, 1].

    Attributes:
        alphas_cumprod: (T,) float64.
        sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod: (T,) float32, rounded once from float64.

    Schedules are constants: `to` keeps one copy per device, so that a training step never copies a table twice.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        if not isinstance(alphas_cumprod, Tensor) or alphas_cumprod.dim() != 1 or alphas_cumprod.numel() == 0:
            shape = tuple(alphas_cumprod.shape) if isinstance(alphas_cumprod, Tensor) else type(alphas_cumprod).__name__
            raise ValueError(f"alphas_cumprod is {shape}; it takes a tensor of shape (T,) with T at least 1")
        self.alphas_cumprod = alphas_cumprod.detach().double()
        self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod = sqrt_tables(self.alphas_cumprod)
        self._copies: dict[torch.device, Schedule] = {}

    @classmethod
    def from_betas(cls, betas: Tensor) -> Schedule:
        """From beta (T,), each in [0, 1)."""
        return cls(torch.cumprod(1.0 - betas.double(), 0))

    @classmethod
    def linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Betas evenly spaced (Ho et al., arXiv 2006.11239, section 4)."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Square roots of the betas evenly spaced, as latent diffusion models do."""
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float64)
        return cls.from_betas(roots.square())

    @classmethod
    def cosine(cls, timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """abar ~ cos^2 of the time (Nichol and Dhariwal, arXiv 2102.09672, eq. 17), betas capped."""
        time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        level = torch.cos((time + offset) / (1.0 + offset) * math.pi / 2.0).square()
        return cls.from_betas((1.0 - level[1:] / level[:-1]).clamp(max=max_beta))

    @classmethod
    def from_name(cls, name: str, timesteps: int = 1000, **options: float) -> Schedule:
        """`linear`, `scaled_linear` or `cosine`, with that one's options."""
        makers = {"linear": cls.linear, "scaled_linear": cls.scaled_linear, "cosine": cls.cosine}
        if name not in makers:
            raise ValueError(f"schedule {name!r} is unknown; there are {', '.join(makers)}")
        return makers[name](timesteps, **options)

    def __len__(self) -> int:
        return self.alphas_cumprod.shape[0]

    def __repr__(self) -> str:
        first, last = self.alphas_cumprod[0].item(), self.alphas_cumprod[-1].item()
        return f"Schedule({len(self)} steps, abar {first:.6g} to {last:.6g})"

    @property
    def device(self) -> torch.device:
        """Where the tables lie."""
        return self.alphas_cumprod.device

    def to(self, device: torch.device | str) -> Schedule:
        """This schedule with its tables on `device`; the same object on every call."""
        device = torch.device(device)
        if device == self.device:
            return self
        if device not in self._copies:
            self._copies[device] = Schedule(self.alphas_cumprod.to(device))
        return self._copies[device]

    def sampling_timesteps(self, steps: int) -> Tensor:
        """`steps` timesteps (int64, falling) at leading spacing: multiples of T // steps."""
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps is {steps}; a schedule of {len(self)} takes 1 to {len(self)}")
        return torch.arange(steps - 1, -1, -1, device=self.device) * (len(self) // steps)
