"""Vim's block in both directions against the composition written out, and the residual blocks around it."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import compat, nn, reference
from bdgf_fast.compat import blocks
from bdgf_fast.compat.mamba_inner import BiMambaInnerFn, MambaInnerFn, MambaInnerFnNoOutProj


def one_way(block, x, z, suffix, A, D, out=None):
    """A scan of x (batch, dim, L), gated by z, with the parameters of one direction; `out`: delta, B and C to take over."""
    conv, x_proj, dt_proj = (getattr(block, name + suffix) for name in ("conv1d", "x_proj", "dt_proj"))
    x = F.silu(conv(x)[..., : x.shape[-1]])
    step, b, c = x_proj(x.transpose(1, 2)).split([block.dt_rank, block.d_state, block.d_state], -1)
    delta = (step @ dt_proj.weight.t()).transpose(1, 2)
    return x, delta, b.transpose(1, 2), c.transpose(1, 2), dt_proj.bias


def written_out(block, hidden):
    x, z = block.in_proj(hidden).transpose(1, 2).chunk(2, 1)
    x1, delta, b, c, bias = one_way(block, x, z, "", block.A_log, block.D)
    y = reference.selective_scan(x1, delta, -block.A_log.exp(), b, c, block.D, z, bias, True)
    if block.bimamba_type == "v1":
        back = reference.selective_scan(x1, delta, -block.A_b_log.exp(), b, c, block.D, z, bias, True, reverse=True)
        y = y + back
    elif block.bimamba_type == "v2":
        x2, delta, b, c, bias = one_way(block, x.flip(-1), z.flip(-1), "_b", block.A_b_log, block.D_b)
        back = reference.selective_scan(x2, delta, -block.A_b_log.exp(), b, c, block.D_b, z.flip(-1), bias, True)
        y = (y + back.flip(-1)) / (2 if block.if_divide_out else 1)
    y = block.out_proj(y.transpose(1, 2))
    return y if block.init_layer_scale is None else y * block.gamma


OPTIONS = [
    {"bimamba_type": "none"},
    {"bimamba_type": None, "init_layer_scale": 0.3},
    {"bimamba_type": "v1", "bias": True},
    {"bimamba_type": "v2"},
    {"bimamba_type": "v2", "if_divide_out": True, "init_layer_scale": 0.5, "conv_bias": False},
    {"bimamba": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_both_directions_and_their_gradients(options, assert_close):
    torch.manual_seed(0)
    block, twin = compat.Mamba(12, 3, **options), compat.Mamba(12, 3, **options).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    twin.load_state_dict(block.state_dict())
    x = torch.randn(2, 7, 12, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    y, expected = block(x), written_out(twin, exact)
    assert_close(y, expected, scale=3.0)
    weight = torch.randn(y.shape)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(x.grad, exact.grad, scale=3.0)
    twins = dict(twin.named_parameters())
    for name, parameter in block.named_parameters():
        assert_close(parameter.grad, twins[name].grad, scale=3.0, floor=0.03 * exact.grad.abs().max().item())


def test_arguments_and_names_are_vims():
    found = list(inspect.signature(compat.Mamba).parameters)
    assert found == [*inspect.signature(nn.Mamba).parameters, "bimamba_type", "if_divide_out", "init_layer_scale", "bimamba"]
    keys = set(compat.Mamba(8, bimamba_type="v2", init_layer_scale=1.0).state_dict()) - set(nn.Mamba(8).state_dict())
    assert keys == {
        "A_b_log", "D_b", "conv1d_b.weight", "conv1d_b.bias", "x_proj_b.weight", "dt_proj_b.weight", "dt_proj_b.bias", "gamma",
    }  # fmt: skip
    assert set(compat.Mamba(8, bimamba_type="v1").state_dict()) - set(nn.Mamba(8).state_dict()) == {"A_b_log"}
    with pytest.raises(ValueError, match="bimamba_type is 'v3'; it takes one of 'none', None, 'v1', 'v2'"):
        compat.Mamba(8, bimamba_type="v3")


def test_functions_that_were_autograd_functions():
    names = ("MambaInnerFn", "mamba_inner_fn"), ("BiMambaInnerFn", "bimamba_inner_fn")
    assert [c.apply for c in (MambaInnerFn, BiMambaInnerFn)] == [getattr(compat, f) for _, f in names]
    assert MambaInnerFnNoOutProj.apply is compat.mamba_inner_fn_no_out_proj


@pytest.mark.parametrize("rms_norm", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mlp", [0, 16])
def test_a_stack_of_blocks(rms_norm, fused, mlp):
    torch.manual_seed(0)
    model = blocks.MixerModel(
        12, 2, mlp, 11, {"d_state": 3}, rms_norm=rms_norm, fused_add_norm=fused, residual_in_fp32=True, initializer_cfg={}
    )
    ids = torch.randint(11, (2, 5))
    expected, residual = model.embedding(ids), 0.0
    for layer in model.layers:
        for norm, inner in ((layer.norm, layer.mixer), *([(layer.norm2, layer.mlp)] if mlp else [])):
            residual = residual + expected
            expected = inner(norm(residual))
    torch.testing.assert_close(model(ids), model.norm_f(residual + expected))
    assert model.layers[1].layer_idx == model.layers[1].mixer.layer_idx == 1
    assert not model.layers[0].mixer.in_proj.bias and model.layers[0].mixer.dt_proj.bias.all()  # marked: not set to 0
    if mlp:
        assert model.layers[0].mlp.fc1.out_features == 2 * 128  # a multiple of 128, twice


def test_a_stack_decodes_token_by_token():
    torch.manual_seed(0)
    model = blocks.MixerModel(12, 2, vocab_size=11, ssm_cfg={"d_state": 3}).eval()
    ids, cache = torch.randint(11, (2, 5)), blocks.InferenceParams(5, 2)
    with torch.no_grad():
        found = []
        for i in range(5):
            cache.seqlen_offset = i
            found.append(model(ids[:, i : i + 1], inference_params=cache))
        torch.testing.assert_close(torch.cat(found, 1), model(ids), rtol=1e-4, atol=1e-5)
    cache.reset(7, 3)
    assert (cache.max_seqlen, cache.max_batch_size, cache.seqlen_offset) == (7, 3, 0)
    assert set(model.allocate_inference_cache(2, 5)) == {0, 1}


def test_the_first_releases_block_without_an_mlp():
    block = blocks.Block(8, lambda width: SimpleMixer(), norm_cls=torch.nn.LayerNorm, residual_in_fp32=True)
    x = torch.randn(1, 3, 8).bfloat16()
    block = block.bfloat16()
    y, residual = block(x)
    assert y.dtype is torch.bfloat16 and residual.dtype is torch.float32 and torch.equal(residual, x.float())


class SimpleMixer(torch.nn.Module):
    def forward(self, x, inference_params=None):
        return 2.0 * x


def test_what_there_is_not_says_so():
    with pytest.raises(ValueError, match="attn_layer_idx is"):
        blocks.create_block(8, attn_layer_idx=[1])
    with pytest.raises(ValueError, match="it takes 'Mamba1'|takes 'Mamba1'"):
        blocks.create_block(8, ssm_cfg={"layer": "Mamba2"})
    with pytest.raises(NotImplementedError, match="generates no text"):
        blocks.GenerationMixin().generate()


def test_weights_of_a_folder(tmp_path):
    module = compat.Mamba(8)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 8}))
    assert blocks.MambaConfig(**blocks.load_config_hf(str(tmp_path))).d_model == 8
    found = blocks.load_state_dict_hf(str(tmp_path), dtype=torch.float64)
    assert all(x.dtype is torch.float64 for x in found.values())
    compat.Mamba(8).load_state_dict(found)
    assert SimpleNamespace(**blocks.load_config_hf(str(tmp_path))).d_model == 8
