"""Selective-scan blocks: ``Mamba`` (sequences) and ``SS2D`` (images), with the arguments and parameter names of the
published ones, so that ``state_dict``s go both ways."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import _check as check
from ..ops import causal_conv1d, selective_scan, selective_scan_2d
from .recurrent_step import causal_conv1d_update, selective_state_update


def _step_bias(*shape: int, low: float = 1e-3, high: float = 0.1, floor: float = 1e-4) -> Tensor:
    """Bias whose softplus is log-uniform in [low, high]: the step sizes a selective scan starts with (arXiv
    2312.00752)."""
    step = torch.exp(torch.rand(shape) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
    return step + torch.log(-torch.expm1(-step))


def _decay_log(channels: int, state: int) -> Tensor:
    """log of -A at the start: A = -(1 ... N) for every channel (S4D-real)."""
    return torch.log(torch.arange(1, state + 1, dtype=torch.float32)).repeat(channels, 1)


def _step_weight(*shape: int, scale: float, init: str) -> Tensor:
    """The projection of the step sizes from their `shape[-1]` ranks, which keeps their variance."""
    bound = shape[-1] ** -0.5 * scale
    if init not in ("random", "constant"):
        raise ValueError(f"dt_init is {init!r}; it takes 'random' or 'constant'")
    return torch.full(shape, bound) if init == "constant" else torch.empty(shape).uniform_(-bound, bound)


def _exclude_from_decay(*parameters: nn.Parameter) -> None:
    """The mark by which recipes for these models spare parameters from weight decay.

    On parameters that a module has taken: what stands in for them until then (accelerate's init_empty_weights makes new ones)
    knows no marks.
    """
    for parameter in parameters:
        parameter._no_weight_decay = True  # type: ignore[attr-defined]  # a mark


def _real(x: Tensor) -> Tensor:
    """In the dtype of the scan's arithmetic: float32, or float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Mamba(nn.Module):
    """The Mamba block, (batch, L, d_model) -> (batch, L, d_model); arXiv 2312.00752, figure 3.

    Arguments, attributes and ``state_dict`` are those of ``mamba_ssm.Mamba``. ``use_fast_path`` is accepted and changes
    nothing, because there is one path. To decode token by token, pass ``inference_params``, any object with
    ``key_value_memory_dict`` and ``seqlen_offset``, to a block that has a ``layer_idx``; or call ``step``.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        self.activation, self.act = "silu", nn.SiLU()
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **place)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias, **place)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False, **place)
        self.dt_proj = nn.Linear(self.dt_rank, inner, **place)
        with torch.no_grad():
            self.dt_proj.weight.copy_(_step_weight(inner, self.dt_rank, scale=dt_scale, init=dt_init))
            self.dt_proj.bias.copy_(_step_bias(inner, low=dt_min, high=dt_max, floor=dt_init_floor))
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]  # a mark
        self.A_log = nn.Parameter(_decay_log(inner, d_state).to(device))
        self.D = nn.Parameter(torch.ones(inner, device=device))
        _exclude_from_decay(self.A_log, self.D)
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **place)

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        check.features_last("hidden_states", hidden_states, 3, self.d_model, "(batch, L, d_model)")
        state = None
        if inference_params is not None:
            conv_state, state = self._get_states_from_cache(inference_params, hidden_states.shape[0])
            if inference_params.seqlen_offset > 0:
                return self.step(hidden_states, conv_state, state)[0]
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)
        if state is not None:
            conv_state.copy_(F.pad(x, (self.d_conv - x.shape[-1], 0)))  # the newest steps; zeros before the first
        if 2 <= self.d_conv <= 4:
            x = causal_conv1d(x, self.conv1d.weight[:, 0], self.conv1d.bias, self.activation)
        else:
            x = self.act(self.conv1d(x)[..., : x.shape[-1]])
        dt, b, c = self.x_proj(x.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = selective_scan(
            x,
            F.linear(dt, self.dt_proj.weight).transpose(1, 2),
            -_real(self.A_log).exp(),
            b.transpose(1, 2),
            c.transpose(1, 2),
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=True,
            return_last_state=state is not None,
        )
        if isinstance(y, tuple):
            y, last = y
            assert state is not None
            state.copy_(last)
        return self.out_proj(y.transpose(1, 2))

    def step(self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One token, (batch, 1, d_model) -> (batch, 1, d_model); both states are updated in place, and also returned."""
        if hidden_states.shape[1] != 1:
            raise ValueError(f"hidden_states has {hidden_states.shape[1]} tokens; a step takes (batch, 1, d_model)")
        if not 2 <= self.d_conv <= 4:
            raise ValueError(f"d_conv is {self.d_conv}; decoding token by token takes 2 to 4")
        x, z = self.in_proj(hidden_states[:, 0]).chunk(2, dim=-1)
        x = causal_conv1d_update(x, conv_state, self.conv1d.weight[:, 0], self.conv1d.bias, self.activation)
        dt, b, c = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dt, decay = F.linear(dt, self.dt_proj.weight), -_real(self.A_log).exp()
        y = selective_state_update(ssm_state, x, dt, decay, b, c, self.D, z, self.dt_proj.bias, dt_softplus=True)
        return self.out_proj(y).unsqueeze(1), conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The states before the first token: (batch, d_inner, d_conv) and (batch, d_inner, d_state), zero; their size does
        not depend on max_seqlen."""
        return (
            self.conv1d.weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype),
            self.dt_proj.weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype),
        )

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        if self.layer_idx is None:
            raise ValueError("layer_idx is None; a block needs one to find its states in inference_params")
        cache = inference_params.key_value_memory_dict
        if self.layer_idx not in cache:
            cache[self.layer_idx] = self.allocate_inference_cache(batch_size, 0)
        elif initialize_states:
            for state in cache[self.layer_idx]:
                state.zero_()
        return cache[self.layer_idx]


class SS2D(nn.Module):
    """The 2-D selective-scan block of VMamba (arXiv 2401.10166), (batch, H, W, d_model) -> the same shape.

    Arguments and ``state_dict`` are those of VMamba's SS2D in its published form (four directions, gate, LayerNorm);
    ``ssm_ratio`` is its later name for ``expand``. ``directions`` 1 and 2 are our additions. The projections of all
    directions are one product over the pixels, because the operation takes every direction's inputs in pixel order.
    """

    def __init__(
        self,
        d_model: int = 96,
        d_state: int = 16,
        d_conv: int = 3,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        dropout: float = 0.0,
        conv_bias: bool = True,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        ssm_ratio: float | None = None,
        directions: int = 4,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        inner, k = int((expand if ssm_ratio is None else ssm_ratio) * d_model), directions
        self.d_model, self.d_state, self.d_conv, self.d_inner = d_model, d_state, d_conv, inner
        self.dt_rank, self.directions = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank), k
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **place)
        if d_conv > 1:
            padding = (d_conv - 1) // 2
            self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=padding, groups=inner, bias=conv_bias, **place)
        bound = inner**-0.5
        packed = torch.empty(k, self.dt_rank + 2 * d_state, inner).uniform_(-bound, bound)
        weight = _step_weight(k, inner, self.dt_rank, scale=dt_scale, init=dt_init)
        step_bias = _step_bias(k, inner, low=dt_min, high=dt_max, floor=dt_init_floor)
        self.x_proj_weight = nn.Parameter(packed.to(**place))
        self.dt_projs_weight = nn.Parameter(weight.to(**place))
        self.dt_projs_bias = nn.Parameter(step_bias.to(**place))
        self.A_logs = nn.Parameter(_decay_log(k * inner, d_state).to(device))
        self.Ds = nn.Parameter(torch.ones(k * inner, device=device))
        _exclude_from_decay(self.A_logs, self.Ds)
        self.out_norm = nn.LayerNorm(inner, **place)
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **place)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        check.features_last("x", x, 4, self.d_model, "(batch, H, W, d_model)")
        batch, height, width, _ = x.shape
        k, inner = self.directions, self.d_inner
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = u.permute(0, 3, 1, 2)
        u = F.silu(self.conv2d(u) if self.d_conv > 1 else u)
        packed = torch.matmul(self.x_proj_weight.flatten(0, 1), u.flatten(2)).view(batch, k, -1, height * width)
        step, b, c = packed.split([self.dt_rank, self.d_state, self.d_state], dim=2)
        y = selective_scan_2d(
            u,
            torch.matmul(self.dt_projs_weight, step),
            -_real(self.A_logs).exp().view(k, inner, -1),
            b,
            c,
            self.Ds.view(k, inner),
            delta_bias=self.dt_projs_bias,
            delta_softplus=True,
            directions=k,
        )
        y = self.out_norm(y.permute(0, 2, 3, 1)) * F.silu(z)
        return self.dropout(self.out_proj(y))
