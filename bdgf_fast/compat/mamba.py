"""mamba_ssm's block with what Vim and VideoMamba added to it: a second direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as blocks
from ..nn.selective_scan import _decay_log, _exclude_from_decay, _real
from ..ops import _check as check
from .mamba_inner import _project, bimamba_inner_fn, mamba_inner_fn_no_out_proj


class Mamba(blocks.Mamba):
    """`bdgf_fast.nn.Mamba`, which may read the sequence from both ends.

    Args:
        bimamba_type: "none"; "v1": a second scan, backwards, with a decay of its own (`A_b_log`); "v2": a second convolution,
            projection and scan on the reversed sequence (names ending in `_b`; arXiv 2401.09417). Token by token, only the
            forward direction is decoded.
        if_divide_out: halve the sum of the two directions ("v2").
        init_layer_scale: start value of a learned factor per channel on the output (`gamma`); None for none.
        bimamba: VideoMamba's name for "v2".

    Other arguments as for `bdgf_fast.nn.Mamba`; ``state_dict`` keys are the published ones.
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
        bimamba_type: str | None = "none",
        if_divide_out: bool = False,
        init_layer_scale: float | None = None,
        *,
        bimamba: bool = False,
    ) -> None:
        super().__init__(
            d_model, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_init, dt_scale, dt_init_floor, conv_bias, bias,
            use_fast_path, layer_idx, device, dtype,
        )  # fmt: skip
        check.choice("bimamba_type", bimamba_type, ("none", None, "v1", "v2"))
        self.bimamba_type = "v2" if check.flag("bimamba", bimamba) else bimamba_type or "none"
        self.if_divide_out, self.init_layer_scale = check.flag("if_divide_out", if_divide_out), init_layer_scale
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        inner = self.d_inner
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(init_layer_scale * torch.ones(d_model, device=device))
        if self.bimamba_type != "none":
            self.A_b_log = nn.Parameter(_decay_log(inner, d_state).to(device))
            _exclude_from_decay(self.A_b_log)
        if self.bimamba_type == "v2":
            self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias, **place)
            self.x_proj_b = nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False, **place)
            self.dt_proj_b = nn.Linear(self.dt_rank, inner, **place)
            self.D_b = nn.Parameter(torch.ones(inner, device=device))
            _exclude_from_decay(self.D_b)

    def forward(self, hidden_states: Tensor, inference_params: Any = None, **kwargs: Any) -> Tensor:
        if inference_params is not None or self.bimamba_type == "none":
            y = super().forward(hidden_states, inference_params)
        else:
            check.features_last("hidden_states", hidden_states, 3, self.d_model, "(batch, L, d_model)")
            y = self._both_ways(self.in_proj(hidden_states).transpose(1, 2))
        return y if self.init_layer_scale is None else y * self.gamma

    def _both_ways(self, xz: Tensor) -> Tensor:
        forth = (self.conv1d.weight, self.conv1d.bias, self.x_proj.weight, self.dt_proj.weight)
        decay, decay_back = -_real(self.A_log).exp(), -_real(self.A_b_log).exp()
        out = (self.out_proj.weight, self.out_proj.bias)
        if self.bimamba_type == "v1":
            return bimamba_inner_fn(xz, *forth, *out, decay, decay_back, D=self.D, delta_bias=self.dt_proj.bias)
        back = (self.conv1d_b.weight, self.conv1d_b.bias, self.x_proj_b.weight, self.dt_proj_b.weight)
        y = mamba_inner_fn_no_out_proj(xz, *forth, decay, D=self.D, delta_bias=self.dt_proj.bias)
        turned = mamba_inner_fn_no_out_proj(xz.flip(-1), *back, decay_back, D=self.D_b, delta_bias=self.dt_proj_b.bias)
        y = y + turned.flip(-1)
        return _project(y / 2 if self.if_divide_out else y, *out)
