"""What models around mamba_ssm's block import beside it: residual blocks, a stack of them, and its helpers."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layer_norm import RMSNorm, layer_norm_fn
from .mamba import Mamba


class GatedMLP(nn.Module):
    """fc2(y * activation(gate)) with (y, gate) = fc1(x); the hidden width is rounded up to a multiple of `multiple_of`."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        bias: bool = False,
        multiple_of: int = 128,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = int(8 * in_features / 3) if hidden_features is None else hidden_features
        hidden = math.ceil(hidden / multiple_of) * multiple_of
        self.activation = activation
        self.fc1 = nn.Linear(in_features, 2 * hidden, bias=bias, **place)
        self.fc2 = nn.Linear(hidden, in_features if out_features is None else out_features, bias=bias, **place)

    def forward(self, x: Tensor) -> Tensor:
        y, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(y * self.activation(gate))


class Block(nn.Module):
    """A mixer behind an addition and a norm, then an MLP likewise: (hidden_states, residual) go in and come out.

    ``mixer_cls``, ``mlp_cls`` and ``norm_cls`` are called with the width; ``nn.Identity`` as ``mlp_cls`` is none.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module] = nn.Identity,
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.norm, self.mixer = norm_cls(dim), mixer_cls(dim)
        self.mlp = None
        if mlp_cls is not nn.Identity:
            self.norm2, self.mlp = norm_cls(dim), mlp_cls(dim)

    def forward(self, hidden_states: Tensor, residual: Tensor | None = None, inference_params: Any = None, **mixer_kwargs: Any):
        hidden_states, residual = self._add_and_norm(hidden_states, residual, self.norm)
        hidden_states = self.mixer(hidden_states, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            hidden_states, residual = self._add_and_norm(hidden_states, residual, self.norm2)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def _add_and_norm(self, x: Tensor, residual: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        if self.fused_add_norm:
            return layer_norm_fn(
                x, norm.weight, norm.bias, residual=residual, prenorm=True, residual_in_fp32=self.residual_in_fp32, eps=norm.eps,
                is_rms_norm=isinstance(norm, RMSNorm),
            )  # fmt: skip
        total = x if residual is None else x + residual
        y = norm(total.to(norm.weight.dtype))
        return y, total.float() if self.residual_in_fp32 else total

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        return self.mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)  # type: ignore[operator]


def create_block(
    d_model: int,
    d_intermediate: int = 0,
    ssm_cfg: Mapping[str, Any] | None = None,
    attn_layer_idx: Any = None,
    attn_cfg: Any = None,
    norm_epsilon: float = 1e-5,
    rms_norm: bool = False,
    residual_in_fp32: bool = False,
    fused_add_norm: bool = False,
    layer_idx: int | None = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> Block:
    """A `Block` around a `Mamba`, with a `GatedMLP` of width d_intermediate where that is above 0. It has no attention layers."""
    if attn_layer_idx:
        raise ValueError(f"attn_layer_idx is {attn_layer_idx!r}; the stand-in takes None or [], because it has no attention layers")
    options = dict(ssm_cfg or {})
    layer = options.pop("layer", "Mamba1")
    if layer != "Mamba1":
        raise ValueError(f"ssm_cfg['layer'] is {layer!r}; the stand-in takes 'Mamba1'")
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    mlp: Any = nn.Identity
    if d_intermediate > 0:
        mlp = functools.partial(GatedMLP, hidden_features=d_intermediate, out_features=d_model, **place)
    block = Block(
        d_model,
        functools.partial(Mamba, layer_idx=layer_idx, **options, **place),
        mlp,
        functools.partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **place),
        fused_add_norm,
        residual_in_fp32,
    )
    block.layer_idx = layer_idx  # type: ignore[assignment]  # a number among the modules
    return block


def init_weights(
    module: nn.Module,
    n_layer: int,
    initializer_range: float = 0.02,
    rescale_prenorm_residual: bool = True,
    n_residuals_per_layer: int = 1,
) -> None:
    """For `nn.Module.apply`: biases 0 but for marked ones, embeddings normal, and what writes to the residual divided by the root
    of the number of residuals (GPT-2)."""
    if isinstance(module, nn.Linear) and module.bias is not None and not getattr(module.bias, "_no_reinit", False):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    if rescale_prenorm_residual:
        for name, parameter in module.named_parameters():
            if name in ("out_proj.weight", "fc2.weight"):
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
                with torch.no_grad():
                    parameter.div_(math.sqrt(n_residuals_per_layer * n_layer))


class MixerModel(nn.Module):
    """An embedding, `n_layer` blocks of `create_block` and a norm: ids (batch, L) -> (batch, L, d_model)."""

    def __init__(
        self,
        d_model: int,
        n_layer: int,
        d_intermediate: int = 0,
        vocab_size: int = 0,
        ssm_cfg: Mapping[str, Any] | None = None,
        attn_layer_idx: Any = None,
        attn_cfg: Any = None,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = False,
        initializer_cfg: Mapping[str, Any] | None = None,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.embedding = nn.Embedding(vocab_size, d_model, **place)
        options = (ssm_cfg, attn_layer_idx, attn_cfg, norm_epsilon, rms_norm, residual_in_fp32, fused_add_norm)
        self.layers = nn.ModuleList(create_block(d_model, d_intermediate, *options, i, **place) for i in range(n_layer))
        self.norm_f: Any = (RMSNorm if rms_norm else nn.LayerNorm)(d_model, eps=norm_epsilon, **place)
        residuals = 1 if d_intermediate == 0 else 2
        self.apply(functools.partial(init_weights, n_layer=n_layer, **(initializer_cfg or {}), n_residuals_per_layer=residuals))

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any) -> dict:
        return {i: layer.allocate_inference_cache(batch_size, max_seqlen, dtype, **kwargs) for i, layer in enumerate(self.layers)}  # type: ignore[operator]

    def forward(self, input_ids: Tensor, inference_params: Any = None, **mixer_kwargs: Any) -> Tensor:
        hidden_states, residual = self.embedding(input_ids), None
        for layer in self.layers:
            hidden_states, residual = layer(hidden_states, residual, inference_params=inference_params, **mixer_kwargs)
        total = hidden_states if residual is None else hidden_states + residual
        return self.norm_f(total.to(self.norm_f.weight.dtype))


@dataclass
class MambaConfig:
    """The options of a language model, as its config.json holds them."""

    d_model: int = 2560
    d_intermediate: int = 0
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict = field(default_factory=dict)
    attn_layer_idx: list = field(default_factory=list)
    attn_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


@dataclass
class InferenceParams:
    """What decoding token by token carries from step to step."""

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Back to the first step; the states stay where they are."""
        self.max_seqlen, self.max_batch_size, self.seqlen_offset = max_seqlen, max_batch_size, 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


class GenerationMixin:
    """A base class of models that never generate text, such as Vim."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the stand-in for mamba_ssm generates no text: install mamba_ssm, or use transformers' Mamba")


def load_config_hf(model_name: str) -> dict[str, Any]:
    """config.json of a folder, or of a model that transformers finds by name."""
    return json.loads(Path(_file(model_name, "config.json")).read_text())


def load_state_dict_hf(model_name: str, device: Any = None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """pytorch_model.bin likewise."""
    found = torch.load(_file(model_name, "pytorch_model.bin"), map_location="cpu", weights_only=True)
    return {name: x.to(device=device, dtype=dtype) for name, x in found.items()}


def _file(model_name: str, name: str) -> str:
    if (Path(model_name) / name).is_file():
        return str(Path(model_name) / name)
    from transformers.utils.hub import cached_file

    found = cached_file(model_name, name)  # raises where there is none
    assert found is not None
    return found
