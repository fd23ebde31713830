"""group_channel_attention on the native CPU kernels, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from levels import LEVELS, TOLERANCE, check_gradients, level, threads

from bdgf_fast import backends, ops, reference


def rows(batch, channels, length, layout="plain", dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    if layout == "plain":
        x = torch.randn(batch, channels, length, generator=g)
    elif layout == "tokens":  # (batch, L, C) seen as (batch, C, L)
        x = torch.randn(batch, length, channels, generator=g).transpose(1, 2)
    else:
        x = torch.randn(channels, batch, 2 * length, generator=g).transpose(0, 1)[:, :, ::2]
    return x.to(dtype)


def compare(tensors, temperature, groups, *, dtype=None):
    def native_call(q, k, v, t):
        return ops.group_channel_attention(q, k, v, t, groups=groups)

    def exact(q, k, v, t):
        return reference.group_channel_attention(q, k, v, t, groups=groups)

    with backends.use_backend("cpu"):
        check_gradients(native_call, exact, [*tensors, temperature], tensors[0].dtype)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["plain", "tokens", "strided"])
def test_layouts_and_dtypes(isa, dtype, layout):
    tau = torch.tensor([0.7, 3.0, -1.5])
    with level(isa):
        compare([rows(2, 15, 49, layout, dtype, i) for i in range(3)], tau, 3)
        compare([rows(2, 24, 31, one, dtype, i) for i, one in enumerate(("plain", layout, "tokens"))], tau, 3)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 8, 2, 2), (3, 64, 121, 8), (1, 33, 40, 1), (2, 34, 70, 2), (1, 6, 5000, 1)], ids=str
)
def test_shapes(isa, shape):
    batch, channels, length, groups = shape
    with level(isa):
        compare([rows(batch, channels, length, seed=i) for i in range(3)], torch.rand(groups) + 1, groups)


@pytest.mark.parametrize("shape", [(1, 256, 121, 1), (1, 512, 600, 2), (2, 128, 1030, 1)], ids=str)
def test_wide_groups_take_several_runs_of_steps(shape):
    batch, channels, length, groups = shape
    compare([rows(batch, channels, length, seed=i) for i in range(3)], torch.tensor(5.0), groups)


def test_a_group_too_wide_goes_to_the_reference():
    tensors = [rows(1, 257, 4, seed=i) for i in range(3)]
    want = reference.group_channel_attention(*tensors, 1.0, groups=1)
    torch.testing.assert_close(ops.group_channel_attention(*tensors, 1.0, groups=1), want)
    with backends.use_backend("cpu"), pytest.raises(ValueError, match="256"):
        ops.group_channel_attention(*tensors, 1.0, groups=1)


def test_rows_of_zeros_are_clamped():
    tensors = [rows(2, 8, 20, seed=i) for i in range(3)]
    tensors[0][0, 3], tensors[1][1, 5] = 0, 0
    # The float64 gradient of a clamped row is 1e12 times too large to compare with the others: they are compared alone.
    q, k, v = (x.clone().requires_grad_() for x in tensors)
    with backends.use_backend("cpu"):
        out = ops.group_channel_attention(q, k, v, 2.0, groups=2)
        found = torch.autograd.grad(out, (q, k, v), torch.ones_like(out) + v.detach())
    exact = [x.double().requires_grad_() for x in tensors]
    want = reference.group_channel_attention(*exact, 2.0, groups=2)
    wanted = torch.autograd.grad(want, exact, torch.ones_like(want) + exact[2].detach())
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-5)
    for g, w, x in zip(found, wanted, tensors, strict=True):
        zero = (x == 0).all(-1)
        torch.testing.assert_close(g[~zero].double(), w[~zero], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(g[zero].double(), w[zero], rtol=1e-3, atol=1e-5 * 1e12)


def test_threads_do_not_change_a_bit():
    tensors = [rows(5, 24, 121, seed=i).requires_grad_() for i in range(3)]
    tau = torch.rand(4).requires_grad_()
    results = []
    for count in (1, 2, 3, 8):
        with threads(count), backends.use_backend("cpu"):
            out = ops.group_channel_attention(*tensors, tau, groups=4)
            results.append([out, *torch.autograd.grad(out, (*tensors, tau), out.detach())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck():  # one level: float64 is plain loops
    tensors = [torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    tau = torch.rand(2, dtype=torch.float64, requires_grad=True)
    with backends.use_backend("cpu"):
        assert torch.autograd.gradcheck(lambda *x: ops.group_channel_attention(*x, groups=2), (*tensors, tau))
        got = ops.group_channel_attention(*tensors, tau, groups=2)
        torch.testing.assert_close(got, reference.group_channel_attention(*tensors, tau, groups=2))


def test_many_and_no_samples():
    compare([rows(66000, 2, 3, seed=i) for i in range(3)], torch.tensor([1.0, 2.0]), 2)
    x = torch.zeros(0, 4, 3, requires_grad=True)
    tau = torch.ones(2, requires_grad=True)
    with backends.use_backend("cpu"):
        out = ops.group_channel_attention(x, x, x, tau, groups=2)
    assert out.shape == x.shape and torch.autograd.grad(out.sum(), tau)[0].count_nonzero() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinity_and_nan_pass_through(value):
    for which in range(3):
        tensors = [rows(2, 8, 20, seed=i) for i in range(3)]
        tensors[which][0, 3, 5] = value
        want = reference.group_channel_attention(*(x.double() for x in tensors), 2.0, groups=2)
        with backends.use_backend("cpu"):
            got = ops.group_channel_attention(*tensors, 2.0, groups=2)
        assert torch.equal(got.isfinite(), want.isfinite())
