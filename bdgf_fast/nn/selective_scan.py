"""Selective-scan blocks: ``Mamba`` (sequences) and ``SS2D`` (images), with the parameter names of the published
ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import selective_scan, selective_scan_2d
from .causal_conv1d import CausalConv1d


def _step_bias(*shape: int, low: float = 1e-3, high: float = 0.1, floor: float = 1e-4) -> Tensor:
    """Bias whose softplus is log-uniform in [low, high]: the step sizes a selective scan starts with (arXiv
    2312.00752)."""
    step = torch.exp(torch.rand(shape) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
    return step + torch.log(-torch.expm1(-step))


def _decay_log(channels: int, state: int) -> Tensor:
    """log of -A at the start: A = -(1 ... N) for every channel (S4D-real)."""
    return torch.log(torch.arange(1, state + 1, dtype=torch.float32)).repeat(channels, 1)


class Mamba(nn.Module):
    """The Mamba block, x (batch, L, d_model) -> (batch, L, d_model); arXiv 2312.00752, figure 3.

    Parameter names and shapes are those of ``mamba_ssm.Mamba``, so its ``state_dict`` loads.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dt_rank: int | str = "auto"
    ) -> None:
        super().__init__()
        inner = expand * d_model
        self.state, self.rank = d_state, math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = CausalConv1d(inner, d_conv, activation="silu")
        self.x_proj = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(_step_bias(inner))
        self.A_log = nn.Parameter(_decay_log(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u = self.conv1d(u)
        step, b, c = self.x_proj(u.transpose(1, 2)).split([self.rank, self.state, self.state], dim=-1)
        delta = F.linear(step, self.dt_proj.weight).transpose(1, 2)
        y = selective_scan(
            u,
            delta,
            -self.A_log.float().exp(),
            b.transpose(1, 2),
            c.transpose(1, 2),
            self.D.float(),
            z=z,
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
        )
        return self.out_proj(y.transpose(1, 2))


class SS2D(nn.Module):
    """The 2-D selective-scan block of VMamba (arXiv 2401.10166), x (batch, H, W, d_model) -> the same shape.

    Parameter names and shapes are VMamba's (for ``directions=4``), so its ``state_dict`` loads. The projections of all
    directions are one product over the pixels, because the operation takes every direction's inputs in pixel order.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 3,
        expand: int = 2,
        dt_rank: int | str = "auto",
        directions: int = 4,
    ) -> None:
        super().__init__()
        inner, k = expand * d_model, directions
        self.state, self.rank, self.directions = (
            d_state,
            math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank),
            k,
        )
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=(d_conv - 1) // 2, groups=inner)
        bound = inner**-0.5
        self.x_proj_weight = nn.Parameter(torch.empty(k, self.rank + 2 * d_state, inner).uniform_(-bound, bound))
        self.dt_projs_weight = nn.Parameter(
            torch.empty(k, inner, self.rank).uniform_(-(self.rank**-0.5), self.rank**-0.5)
        )
        self.dt_projs_bias = nn.Parameter(_step_bias(k, inner))
        self.A_logs = nn.Parameter(_decay_log(k * inner, d_state))
        self.Ds = nn.Parameter(torch.ones(k * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        k, inner = self.directions, self.dt_projs_bias.shape[1]
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2)))
        flat = u.flatten(2)
        packed = torch.matmul(self.x_proj_weight.flatten(0, 1), flat).view(batch, k, -1, height * width)
        step, b, c = packed.split([self.rank, self.state, self.state], dim=2)
        delta = torch.matmul(self.dt_projs_weight, step)
        y = selective_scan_2d(
            u,
            delta,
            -self.A_logs.float().exp().view(k, inner, -1),
            b,
            c,
            self.Ds.float().view(k, inner),
            delta_bias=self.dt_projs_bias.float(),
            delta_softplus=True,
            directions=k,
        )
        y = self.out_norm(y.permute(0, 2, 3, 1)) * F.silu(z)
        return self.out_proj(y)
