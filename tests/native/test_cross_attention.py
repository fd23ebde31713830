"""cross_attention on the native CPU kernels: against the float64 reference, every gradient, level, layout and mask."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from levels import LEVELS, TOLERANCE, close, level, threads

from bdgf_fast import backends, ops, reference


def tensor(*shape, dtype=torch.float32, layout="plain", seed=0):
    g = torch.Generator().manual_seed(seed)
    batch, heads, length, depth = shape
    if layout == "plain":
        x = torch.randn(shape, generator=g)
    elif layout == "tokens":  # (batch, L, heads, d) seen as (batch, heads, L, d)
        x = torch.randn(batch, length, heads, depth, generator=g).transpose(1, 2)
    elif layout == "channels":  # (batch, heads * d, L) seen as (batch, heads, L, d)
        x = torch.randn(batch, heads, depth, length, generator=g).transpose(2, 3)
    else:  # "strided"
        x = torch.randn(batch, heads, 2 * length, 3 * depth, generator=g)[:, :, ::2, ::3]
    return x.to(dtype)


def compare(q, k, v, bias=None, *, gradients=True, **options):
    """The kernel against the float64 reference: out and every gradient."""
    leaves = [x.detach().requires_grad_(gradients) for x in (q, k, v)]
    bias_leaf = None if bias is None else bias.detach().requires_grad_(gradients)
    exact = [x.detach().double().requires_grad_(gradients) for x in (q, k, v)]
    bias_exact = None if bias is None else bias.detach().double().requires_grad_(gradients)
    with backends.use_backend("cpu"):
        out = ops.cross_attention(*leaves, attn_bias=bias_leaf, **options)
    want = reference.cross_attention(*exact, attn_bias=bias_exact, **options)
    assert out.dtype == q.dtype and out.shape == q.shape
    close(out, want, q.dtype)
    if not gradients:
        return
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(q.dtype)
    if bias is not None:
        leaves, exact = [*leaves, bias_leaf], [*exact, bias_exact]
    got = torch.autograd.grad(out, leaves, weight)
    wanted = torch.autograd.grad(want, exact, weight.double())
    # A row with one key left has a gradient of 0, made of terms as large as the others'.
    floor = max(0.1, 3e-2 * max(w.abs().max().item() for w in wanted))
    for g, w in zip(got, wanted, strict=True):
        close(g, w, q.dtype, floor)


LENGTHS = [(1, 1), (1, 7), (5, 1), (16, 16), (17, 33), (32, 31), (49, 49), (121, 121), (64, 130), (9, 257)]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_lengths(isa, lengths):
    rows, columns = lengths
    with level(isa):
        compare(tensor(2, 3, rows, 16), tensor(2, 3, columns, 16, seed=1), tensor(2, 3, columns, 16, seed=2))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("depth", [4, 5, 8, 15, 16, 17, 24, 32, 40, 64, 100, 128])
def test_depths(isa, depth):
    with level(isa):
        compare(tensor(1, 2, 37, depth), tensor(1, 2, 21, depth, seed=1), tensor(1, 2, 21, depth, seed=2), scale=0.3)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["plain", "tokens", "channels", "strided"])
def test_layouts_and_dtypes(isa, dtype, layout):
    with level(isa):
        q, k, v = (tensor(2, 2, n, 24, dtype=dtype, layout=layout, seed=n) for n in (49, 35, 35))
        compare(q, k, v)


BIASES = [(1, 1, 1), (2, 1, 1), (1, 3, 1), (1, 1, 45), (2, 3, 45), (1, 3, 45), (2, 1, 45), (2, 3, 1)]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("form", BIASES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_bias(isa, form, masked):
    q, k, v = tensor(2, 3, 45, 8), tensor(2, 3, 77, 8, seed=1), tensor(2, 3, 77, 8, seed=2)
    bias = torch.randn(*form, 77, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(2, 77, generator=torch.Generator().manual_seed(4)) > 0.4 if masked else None
    with level(isa):
        compare(q, k, v, bias, key_mask=mask)
        if not masked:
            strided = torch.randn(77, form[2], form[1], form[0]).permute(3, 2, 1, 0)
            compare(q.bfloat16(), k.bfloat16(), v.bfloat16(), strided.bfloat16())


def test_infinite_bias_hides_keys_and_rows():
    q, k, v = tensor(2, 2, 20, 16), tensor(2, 2, 30, 16, seed=1), tensor(2, 2, 30, 16, seed=2)
    bias = torch.zeros(1, 1, 20, 30)
    bias[..., 5:] = -math.inf
    bias[..., 3, :] = -math.inf  # a row without a key
    compare(q, k, v, bias)


@pytest.mark.parametrize("isa", LEVELS)
def test_key_mask(isa):
    q, k, v = tensor(4, 2, 40, 16), tensor(4, 2, 50, 16, seed=1), tensor(4, 2, 50, 16, seed=2)
    mask = torch.rand(4, 50, generator=torch.Generator().manual_seed(5)) > 0.5
    mask[1] = False  # a sample without a key
    mask[2] = True
    with level(isa):
        compare(q, k, v, key_mask=mask)
        compare(q, k, v, key_mask=mask.t().contiguous().t())
        leaves = [x.requires_grad_() for x in (q, k, v)]
        with backends.use_backend("cpu"):
            out = ops.cross_attention(*leaves, key_mask=mask)
        assert out[1].count_nonzero() == 0
        assert all(g[1].count_nonzero() == 0 for g in torch.autograd.grad(out.sum(), leaves))


def test_what_a_mask_hides_does_not_matter():
    q, k, v = tensor(1, 2, 20, 16), tensor(1, 2, 30, 16, seed=1), tensor(1, 2, 30, 16, seed=2)
    mask = torch.ones(1, 30, dtype=torch.bool)
    mask[:, 11] = False
    with backends.use_backend("cpu"):
        clean = ops.cross_attention(q, k, v, key_mask=mask)
        k[:, :, 11], v[:, :, 11] = math.nan, math.inf
        assert torch.equal(clean, ops.cross_attention(q, k, v, key_mask=mask))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("columns", [2, 48, 49, 259])
def test_dropout(isa, columns):
    q, k, v = tensor(2, 3, 35, 16), tensor(2, 3, columns, 16, seed=1), tensor(2, 3, columns, 16, seed=2)
    with level(isa):
        compare(q, k, v, dropout_p=0.3, seed=77)
        compare(q, k, v, dropout_p=0.3, seed=torch.tensor(-5))
        g = torch.Generator().manual_seed(6)
        bias = torch.randn(1, 3, 35, columns, generator=g)
        mask = torch.rand(2, columns, generator=g) > 0.3
        compare(q, k, v, bias, dropout_p=0.9, seed=2**63 + 1, key_mask=mask)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_long_keys_take_several_passes(isa, dtype):
    """More keys than fit the workspace: delta, dQ and dK, dV in sweeps of their own."""
    length = 2100 if dtype is torch.float32 else 1500
    q, k, v = (tensor(1, 1, n, 32, dtype=dtype, seed=n) for n in (19, length, length))
    bias = torch.randn(1, 1, 1, length)
    with level(isa):
        compare(q, k, v, bias, dropout_p=0.2, seed=1)
        if isa != "scalar":
            compare(q, k, v, key_mask=torch.rand(1, length) > 0.2)


def test_threads_do_not_change_a_bit():
    q, k, v = (tensor(3, 4, 49, 16, layout="tokens", seed=i).requires_grad_() for i in range(3))
    bias = torch.randn(1, 4, 49, 49).requires_grad_()
    results = []
    for count in (1, 2, 3, 7):
        with threads(count), backends.use_backend("cpu"):
            out = ops.cross_attention(q, k, v, attn_bias=bias, dropout_p=0.1, seed=3)
            results.append([out, *torch.autograd.grad(out, (q, k, v, bias), torch.ones_like(out))])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("isa", LEVELS)
def test_infinity_and_nan_pass_through(isa):
    with level(isa):
        for value in (math.nan, math.inf, -math.inf):
            for which in range(3):
                tensors = [tensor(1, 1, n, 8, seed=n) for n in (20, 23, 23)]
                tensors[which][0, 0, 4, 3] = value
                got = reference.cross_attention(*(x.double() for x in tensors))
                with backends.use_backend("cpu"):
                    out = ops.cross_attention(*tensors)
                assert torch.equal(torch.isfinite(out), torch.isfinite(got))


def test_large_scores():
    """Of several hundred: further up the rounding of float32 scores alone exceeds the tolerance, in torch's functions as well."""
    compare(tensor(1, 2, 20, 16) * 15, tensor(1, 2, 300, 16, seed=1) * 15, tensor(1, 2, 300, 16, seed=2), gradients=False)


def test_negative_scale():
    compare(tensor(1, 2, 20, 16), tensor(1, 2, 300, 16, seed=1), tensor(1, 2, 300, 16, seed=2), scale=-0.5)


def test_empty_batch_and_many_rows():
    for shape in ((0, 2, 5, 8), (2, 0, 5, 8)):
        q = torch.zeros(shape, requires_grad=True)
        bias = torch.randn(1, 1, 5, 5, requires_grad=True)
        with backends.use_backend("cpu"):
            out = ops.cross_attention(q, q, q, attn_bias=bias)
        assert out.shape == shape
        assert torch.autograd.grad(out.sum(), bias)[0].count_nonzero() == 0
    compare(tensor(70000, 1, 1, 4), tensor(70000, 1, 2, 4, seed=1), tensor(70000, 1, 2, 4, seed=2))


def test_gradcheck():  # one level: float64 is plain loops
    q, k, v = (torch.randn(2, 2, n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 5, 5))
    bias = torch.randn(1, 2, 1, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True, True, True], [False] * 5])

    def call(q, k, v, bias):
        return ops.cross_attention(q, k, v, attn_bias=bias, key_mask=mask, dropout_p=0.2, seed=4)

    with backends.use_backend("cpu"):
        assert torch.autograd.gradcheck(call, (q, k, v, bias))
        compare_double(q, k, v, bias, mask)


def compare_double(q, k, v, bias, mask):
    got = ops.cross_attention(q, k, v, attn_bias=bias, key_mask=mask, dropout_p=0.2, seed=4)
    want = reference.cross_attention(q, k, v, attn_bias=bias, key_mask=mask, dropout_p=0.2, seed=4)
    torch.testing.assert_close(got, want)


def test_only_the_gradients_that_are_needed():
    full = [tensor(2, 2, 20, 8, seed=i).requires_grad_() for i in range(3)]
    with backends.use_backend("cpu"):
        expected = torch.autograd.grad(ops.cross_attention(*full).sum(), full)
        for which in range(3):
            some = [x.detach().requires_grad_(i == which) for i, x in enumerate(full)]
            got = torch.autograd.grad(ops.cross_attention(*some).sum(), some[which])[0]
            assert torch.equal(got, expected[which])


def test_the_measured_table_sends_shapes_to_torch(monkeypatch):
    from bdgf_fast.ops import _cross_attention_table as table

    monkeypatch.setattr(sys.modules["bdgf_fast.ops.cross_attention"], "_LEVEL", "somewhere")
    entries = {(49, 8): 2.0, (49, 64): 1.0, (256, 8): 0.94, (256, 64): 0.5}
    monkeypatch.setitem(table.TABLE, ("somewhere", "float32", False), entries)

    def chosen(length, depth, dtype=torch.float32, **facts):
        facts = {"columns": length, "depth": depth, "needs_grad": False} | facts
        return backends.choose("cross_attention", "cpu", dtype, **facts)

    assert chosen(49, 8)[0] == chosen(100, 64)[0] == "cpu"  # nearer to 49 than to 256, by ratio
    name, why = chosen(120, 30)
    assert name == "torch" and "measured faster near this size (it takes 0.50" in why
    assert chosen(256, 8)[0] == chosen(5000, 8)[0] == "torch"
    for facts in ({"needs_grad": True}, {"dtype": torch.bfloat16}, {"dropout": True}, {"mask": True, "bias": True}):
        assert chosen(256, 64, **facts)[0] == "cpu", facts
    q = tensor(1, 2, 256, 64)
    torch.testing.assert_close(ops.cross_attention(q, q, q), reference.cross_attention(q, q, q), rtol=1e-4, atol=1e-5)
    with backends.use_backend("cpu"):
        assert chosen(256, 64)[0] == "cpu"


def test_the_committed_table_is_complete():
    from bdgf_fast.ops._cross_attention_table import TABLE

    sizes = {(n, d) for n in (49, 121, 256, 1024) for d in (8, 16, 32, 64)}
    levels, bits = ("avx2", "avx512", "avx512 amx"), ("float32", "16 bit")
    keys = set(itertools.product(levels, bits, (False, True)))
    assert set(TABLE) == keys and all(set(rows) == sizes for rows in TABLE.values())
