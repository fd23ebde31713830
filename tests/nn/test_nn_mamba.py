"""Mamba and SS2D: the published arguments, the start values, and decoding token by token."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from bdgf_fast.nn import SS2D, Mamba

PUBLISHED = {
    Mamba: "d_model d_state=16 d_conv=4 expand=2 dt_rank='auto' dt_min=0.001 dt_max=0.1 dt_init='random' dt_scale=1.0 "
    "dt_init_floor=0.0001 conv_bias=True bias=False use_fast_path=True layer_idx=None device=None dtype=None",
    SS2D: "d_model=96 d_state=16 d_conv=3 expand=2 dt_rank='auto' dt_min=0.001 dt_max=0.1 dt_init='random' dt_scale=1.0 "
    "dt_init_floor=0.0001 dropout=0.0 conv_bias=True bias=False device=None dtype=None",
}


@pytest.mark.parametrize("block", PUBLISHED)
def test_arguments_are_the_published_ones(block):
    found = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in inspect.signature(block).parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]
    assert found == PUBLISHED[block].split()


def test_start_values():
    block = Mamba(32, dt_min=0.01, dt_max=0.05, dt_init="constant", dt_scale=2.0, dt_rank=4, dtype=torch.bfloat16)
    step = torch.nn.functional.softplus(block.dt_proj.bias.float())
    assert step.min() > 0.0095 and step.max() < 0.0525
    assert (block.dt_proj.weight == 1.0).all()  # 2 / sqrt(4)
    assert block.in_proj.weight.dtype is torch.bfloat16
    assert block.A_log.dtype is block.D.dtype is torch.float32
    assert block.A_log._no_weight_decay and block.D._no_weight_decay and block.dt_proj.bias._no_reinit
    torch.testing.assert_close(block.A_log.exp()[5], torch.arange(1.0, 17.0))
    assert block(torch.randn(2, 5, 32, dtype=torch.bfloat16)).dtype is torch.bfloat16
    with pytest.raises(ValueError, match="dt_init is 'none'"):
        Mamba(8, dt_init="none")


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("prompt", [1, 2, 6])
def test_decoding_is_the_forward(width, prompt):
    torch.manual_seed(prompt)
    block = Mamba(20, 6, width, layer_idx=3, bias=True).eval()
    x = torch.randn(2, 9, 20)
    cache = SimpleNamespace(key_value_memory_dict={}, seqlen_offset=0)
    with torch.no_grad():
        expected = block(x)
        found = [block(x[:, :prompt], inference_params=cache)]
        for i in range(prompt, 9):
            cache.seqlen_offset = i
            found.append(block(x[:, i : i + 1], inference_params=cache))
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-6)
    conv_state, state = cache.key_value_memory_dict[3]
    assert conv_state.shape == (2, 40, width) and state.shape == (2, 40, 6)


def test_steps_from_an_allocated_cache():
    torch.manual_seed(0)
    block = Mamba(16, 4, expand=1.5).eval()
    x = torch.randn(3, 5, 16)
    states = block.allocate_inference_cache(3, 100)
    assert [tuple(s.shape) for s in states] == [(3, 24, 4), (3, 24, 4)]
    assert block.allocate_inference_cache(3, 100, dtype=torch.bfloat16)[1].dtype is torch.bfloat16
    with torch.no_grad():
        found = []
        for i in range(5):
            y, *after = block.step(x[:, i : i + 1], *states)
            assert after[0] is states[0] and after[1] is states[1]
            found.append(y)
        torch.testing.assert_close(torch.cat(found, 1), block(x), rtol=1e-4, atol=1e-6)


def test_errors_name_the_argument():
    block = Mamba(16)
    with pytest.raises(ValueError, match="layer_idx is None"):
        block(torch.randn(1, 2, 16), inference_params=SimpleNamespace(key_value_memory_dict={}, seqlen_offset=0))
    with pytest.raises(ValueError, match="hidden_states has 2 tokens"):
        block.step(torch.randn(1, 2, 16), *block.allocate_inference_cache(1, 1))
    for shape in ((2, 5, 8), (5, 16)):
        with pytest.raises(ValueError, match=r"hidden_states has shape .*; it takes \(batch, L, d_model\)"):
            block(torch.randn(shape))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 3, 8\); it takes \(batch, H, W, d_model\) = \(2, 3, 3, 16\)"):
        SS2D(16)(torch.randn(2, 3, 3, 8))
    wide = Mamba(16, d_conv=5)
    with pytest.raises(ValueError, match="d_conv is 5"):
        wide.step(torch.randn(1, 1, 16), *wide.allocate_inference_cache(1, 1))


@pytest.mark.parametrize(("block", "shape"), [(Mamba, (1, 3, 4)), (SS2D, (1, 2, 2, 4))])
def test_float64_is_float64_inside(block, shape):
    torch.manual_seed(0)
    module = block(4, 2).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*module.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,)), (x, *parameters)
    )


def test_decoding_in_float64():
    torch.manual_seed(0)
    block = Mamba(8, 3).double().eval()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    states = block.allocate_inference_cache(2, 0)
    with torch.no_grad():
        found = torch.cat([block.step(x[:, i : i + 1], *states)[0] for i in range(4)], 1)
        torch.testing.assert_close(found, block(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [Mamba, SS2D])
def test_parameters_may_be_replaced_when_a_module_takes_them(block, monkeypatch):
    """As under accelerate's init_empty_weights, which makes each parameter anew from the attributes that it has."""
    register = torch.nn.Module.register_parameter

    def replacing(module, name, parameter):
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = type(parameter)(parameter.to("meta"), **parameter.__dict__)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", replacing)
    module = block(16)
    decay, skip = (module.A_log, module.D) if block is Mamba else (module.A_logs, module.Ds)
    assert all(p.device.type == "meta" for p in module.parameters()) and decay._no_weight_decay and skip._no_weight_decay


@pytest.mark.parametrize(("block", "shape"), [(Mamba, (2, 3, 16)), (SS2D, (2, 3, 4, 16))])
def test_blocks_without_values(block, shape):
    with torch.device("meta"):
        module, x = block(16), torch.empty(shape, requires_grad=True)
        module(x).sum().backward()
    assert x.grad.shape == shape and all(p.grad.shape == p.shape for p in module.parameters())


def test_autocast():
    torch.manual_seed(0)
    for block, x in ((Mamba(16, 4), torch.randn(2, 7, 16)), (SS2D(16, 4), torch.randn(2, 3, 4, 16))):
        expected = block(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = block(x)
        assert y.dtype is torch.bfloat16
        torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.03 * expected.abs().max().item())
