"""The norms with everything in front of them against float64, with every gradient, the weights' among them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast.compat import RMSNorm, layer_norm_fn, rms_norm_fn

WIDTH = 10


def norm(x, weight, bias, eps, rms):
    if not rms:
        x = x - x.mean(-1, keepdim=True)
    y = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight
    return y if bias is None else y + bias


def written_out(x, weight, bias=None, residual=None, x1=None, weight1=None, bias1=None, rowscale=None, rms=False, prenorm=True):
    total = x if rowscale is None else x * rowscale[..., None]
    total = total + (0 if x1 is None else x1) + (0 if residual is None else residual)
    found = [norm(total, weight, bias, 1e-5, rms)]
    if weight1 is not None:
        found.append(norm(total, weight1, bias1, 1e-5, rms))
    return (*found, total) if prenorm else tuple(found)


@pytest.mark.parametrize("rms", [True, False])
@pytest.mark.parametrize("extra", ["nothing", "residual", "second", "rowscale"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_their_gradients(rms, extra, dtype, check_gradients):
    g = torch.Generator().manual_seed(1)
    shapes = {"x": (3, 4, WIDTH), "weight": (WIDTH,), "bias": (WIDTH,)}
    shapes |= {
        "nothing": {},
        "residual": {"residual": (3, 4, WIDTH)},
        "second": {"x1": (3, 4, WIDTH), "weight1": (WIDTH,), "bias1": (WIDTH,), "residual": (3, 4, WIDTH)},
        "rowscale": {"rowscale": (3, 4)},
    }[extra]
    t = {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}
    if extra == "residual":
        t["residual"] = t["residual"].float()
    if extra == "nothing" and rms:
        t["bias"] = None
    for prenorm in (True, False):
        check_gradients(
            lambda p=prenorm, **t: layer_norm_fn(**t, eps=1e-5, prenorm=p, is_rms_norm=rms),
            lambda p=prenorm, **t: written_out(**t, rms=rms, prenorm=p),
            t,
        )


def test_dtypes_of_the_residual():
    x, weight = torch.randn(2, WIDTH).bfloat16(), torch.ones(WIDTH)
    y, total = rms_norm_fn(x, weight, None, prenorm=True)
    assert y.dtype is total.dtype is torch.bfloat16
    y, total = rms_norm_fn(x, weight, None, prenorm=True, residual_in_fp32=True)
    assert y.dtype is torch.bfloat16 and total.dtype is torch.float32
    y, total = rms_norm_fn(x, weight, None, residual=torch.randn(2, WIDTH), prenorm=True)
    assert y.dtype is torch.bfloat16 and total.dtype is torch.float32


def test_rms_norm_module(assert_close):
    module = RMSNorm(WIDTH, eps=1e-5)
    assert list(module.state_dict()) == ["weight"] and module.bias is None
    with torch.no_grad():
        module.weight.copy_(torch.randn(WIDTH))
    x, residual = torch.randn(5, WIDTH, requires_grad=True), torch.randn(5, WIDTH)
    y, total = module(x, residual, prenorm=True)
    (y.sin() + 0.5 * total).sum().backward()
    weight = module.weight.detach().double().requires_grad_()
    exact = x.detach().double().requires_grad_()
    expected, sum_ = written_out(exact, weight, residual=residual.double(), rms=True)
    (expected.sin() + 0.5 * sum_).sum().backward()
    assert_close(y, expected)
    assert_close(module.weight.grad, weight.grad)
    assert_close(x.grad, exact.grad)


def test_dropout():
    torch.manual_seed(0)
    x, x1 = torch.randn(400, WIDTH), torch.randn(400, WIDTH)
    y, total, mask, mask1 = layer_norm_fn(
        x, torch.ones(WIDTH), None, x1=x1, dropout_p=0.25, prenorm=True, return_dropout_mask=True
    )
    assert mask.dtype is torch.bool and abs(mask.float().mean() - 0.75) < 0.03 and (mask != mask1).any()
    torch.testing.assert_close(total, x * mask / 0.75 + x1 * mask1 / 0.75)
    torch.testing.assert_close(y, F.layer_norm(total, (WIDTH,), eps=1e-6))
    module = RMSNorm(WIDTH, dropout_p=0.5)
    assert not torch.equal(module(x), module(x))
    module.eval()
    torch.testing.assert_close(module(x), F.rms_norm(x, (WIDTH,), eps=1e-5))
    with pytest.raises(ValueError, match="rowscale is given with x1"):
        layer_norm_fn(x, torch.ones(WIDTH), None, x1=x1, rowscale=torch.ones(400))
