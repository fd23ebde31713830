"""causal_conv1d's Triton kernels: values and every gradient."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import _launch
from bdgf_fast.triton_kernels import causal_conv1d as kernels

from bdgf_fast import backends, ops, reference

OP = "causal_conv1d"


def tensors(batch, dim, length, width, bias=True):
    g = torch.Generator().manual_seed(0)
    found = {"x": torch.randn(batch, dim, length, generator=g), "weight": torch.randn(dim, width, generator=g)}
    return found | ({"bias": torch.randn(dim, generator=g)} if bias else {})


def compare(check_gradients, given, activation="silu"):
    check_gradients(
        lambda **t: ops.causal_conv1d(**t, activation=activation),
        lambda **t: reference.causal_conv1d(**t, activation=activation),
        given,
    )


@pytest.mark.parametrize(("activation", "bias"), [(None, True), ("silu", False), ("silu", True)])
@pytest.mark.parametrize(("shape", "width"), [((2, 5, 9), 4), ((1, 1, 1), 2), ((3, 17, 2), 3), ((9, 3, 33), 4)])
def test_shapes(check_gradients, shape, width, activation, bias):
    compare(check_gradients, tensors(*shape, width, bias), activation)


def test_dtypes(check_gradients, as_dtype):
    given = tensors(2, 20, 49, 4)
    compare(check_gradients, given | {"x": as_dtype(given["x"])})


def test_layouts(check_gradients):
    given = tensors(3, 18, 21, 4)
    x = given["x"]
    for laid in (x.transpose(1, 2).contiguous().transpose(1, 2), torch.cat([x, x], 1)[:, 18:], x[:1].expand_as(x)):
        compare(check_gradients, given | {"x": laid})
    compare(check_gradients, given | {"weight": given["weight"].t().contiguous().t()})


def test_many_tiles(check_gradients, monkeypatch):
    """Tiles of a few elements: several along every axis, and programs that take several each."""
    monkeypatch.setattr(kernels, "TILE", {"fwd": 64, "bwd": 32})
    monkeypatch.setattr(kernels, "STEPS", {"rows": 8, "channels_last": 4})
    compare(check_gradients, tensors(37, 11, 19, 4))


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("shape", [(9, 4, 13), (20, 6, 4), (13, 4, 5), (8, 2, 7), (6, 2, 16)])
def test_dense_rows(check_gradients, monkeypatch, shape, width):
    """Rows in packs of four, which rows share where their length is no multiple of four: the bits of the other kernels."""
    monkeypatch.setattr(kernels, "DENSE_PACKS", 16)
    monkeypatch.setattr(kernels, "DENSE_PACKS_BACKWARD", 8)
    given = tensors(*shape, width)
    launched = []

    def launch(kernel, *arguments, **options):
        launched.append(kernel)
        _launch.launch(kernel, *arguments, **options)

    def run():
        x = given["x"].clone().requires_grad_()
        out = ops.causal_conv1d(x, given["weight"], given["bias"], "silu")
        return out, torch.autograd.grad(out, x, torch.arange(1.0, out.numel() + 1).cos().view(shape))[0]

    monkeypatch.setattr(kernels, "launch", launch)
    out, grad = run()
    if width == 4:
        compare(check_gradients, given)
    assert set(launched) == {kernels.causal_conv1d_fwd_dense, kernels.causal_conv1d_bwd_dense}
    launched.clear()
    monkeypatch.setattr(kernels, "_dense", lambda *_: False)
    other_out, other_grad = run()
    assert launched == [kernels.causal_conv1d_fwd, kernels.causal_conv1d_bwd]
    assert torch.equal(out, other_out) and torch.equal(grad, other_grad)


def test_few_dense_samples_leave_the_backward_to_the_other_kernel(check_gradients):
    """Their sums would take more workspace than the tensors themselves."""
    compare(check_gradients, tensors(3, 4, 33, 4))


def test_division():
    """By factor and shift: the first and the last multiples of a divisor below 2^31, and their neighbours."""
    for d in (2, 3, 4, 5, 49, 128, 1000, 65537, 2**30, 2**31 - 1):
        factor, shift = kernels._divider(d)
        for n in {0, 1, d - 1, d, d + 1, (2**31 - 1) // d * d - 1, (2**31 - 1) // d * d, 2**31 - 1}:
            assert (n * (factor % 2**32) >> 32) >> shift == n // d


def test_float64_is_refused():
    with pytest.raises(ValueError, match="forced backend triton: .* float64 runs on the CPU"):
        ops.causal_conv1d(torch.zeros(1, 2, 3, dtype=torch.float64), torch.zeros(2, 4))
    assert backends.available(OP, "cpu")[-1] == "reference"


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors(0, 4, 5, 3).items()}
    ops.causal_conv1d(**given).sum().backward()
    assert not any(x.grad.any() for x in given.values())
