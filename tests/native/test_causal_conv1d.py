"""causal_conv1d on the native CPU kernels, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from levels import LEVELS, TOLERANCE, check_gradients, level, threads

from bdgf_fast import backends, ops, reference


def sequence(batch, dim, length, layout="plain", dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    if layout == "plain":
        x = torch.randn(batch, dim, length, generator=g)
    elif layout == "tokens":
        x = torch.randn(batch, length, dim, generator=g).transpose(1, 2)
    else:
        x = torch.randn(batch, 2 * dim, 3 * length, generator=g)[:, ::2, ::3]
    return x.to(dtype)


def compare(x, width, activation, bias=True):
    g = torch.Generator().manual_seed(1)
    tensors = [x, torch.randn(x.shape[1], width, generator=g)]
    tensors += [torch.randn(x.shape[1], generator=g)] if bias else []

    def native_call(x, weight, bias=None):
        return ops.causal_conv1d(x, weight, bias, activation)

    def exact(x, weight, bias=None):
        return reference.causal_conv1d(x, weight, bias, activation)

    with backends.use_backend("cpu"):
        check_gradients(native_call, exact, tensors, x.dtype)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["plain", "tokens", "strided"])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_layouts_dtypes_and_widths(isa, dtype, layout, width, activation):
    with level(isa):
        compare(sequence(2, 19, 37, layout, dtype), width, activation, bias=width != 3)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("layout", ["plain", "tokens"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 15, 16, 17, 49, 121, 2047, 2048, 2049, 4100])
def test_lengths(isa, layout, length):
    with level(isa):
        compare(sequence(2, 3, length, layout), 4, "silu")


@pytest.mark.parametrize("layout", ["plain", "tokens"])
def test_many_rows(layout):
    compare(sequence(70000, 3, 4, layout), 4, "silu")


def test_empty_batch():
    x, weight = torch.zeros(0, 4, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    with backends.use_backend("cpu"):
        out = ops.causal_conv1d(x, weight)
    assert out.shape == x.shape and torch.autograd.grad(out.sum(), weight)[0].count_nonzero() == 0


@pytest.mark.parametrize("layout", ["plain", "tokens"])
def test_threads_do_not_change_a_bit(layout):
    x = sequence(5, 70, 33, layout).requires_grad_()
    weight, bias = torch.randn(70, 4).requires_grad_(), torch.randn(70).requires_grad_()
    results = []
    for count in (1, 2, 3, 8):
        with threads(count), backends.use_backend("cpu"):
            out = ops.causal_conv1d(x, weight, bias, "silu")
            results.append([out, *torch.autograd.grad(out, (x, weight, bias), out.detach())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("activation", [None, "silu"])
def test_gradcheck(activation):  # one level: float64 is plain loops
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 6), (3, 4), (3,))]
    with backends.use_backend("cpu"):
        assert torch.autograd.gradcheck(lambda *t: ops.causal_conv1d(*t, activation), tensors)
        torch.testing.assert_close(ops.causal_conv1d(*tensors, activation), reference.causal_conv1d(*tensors, activation))


@pytest.mark.parametrize("layout", ["plain", "tokens"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_infinity_and_nan_reach_only_what_follows(layout, value):
    x = sequence(2, 18, 30, layout)
    x[1, 5, 11] = value
    weight = torch.rand(18, 4) + 0.1
    want = reference.causal_conv1d(x.double(), weight.double(), None, "silu")
    with backends.use_backend("cpu"):
        got = ops.causal_conv1d(x, weight, None, "silu")
    assert torch.equal(got.isfinite(), want.isfinite())


def test_parameters_of_any_layout():
    x, weight, bias = sequence(2, 6, 9), torch.randn(4, 6).t(), torch.randn(12)[::2]
    with backends.use_backend("cpu"):
        check_gradients(lambda *t: ops.causal_conv1d(*t), lambda *t: reference.causal_conv1d(*t), [x, weight, bias], x.dtype)
