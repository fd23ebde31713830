"""cross_attention on every backend against the float64 reference."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import ops, reference

cross_attention = importlib.import_module("bdgf_fast.ops.cross_attention")  # the function has the module's name
OP = "cross_attention"
KERNELS = ("cpu", "triton", "cuda")


def tensors(rows, columns, depth, *, batch=2, heads=3, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    lengths = {"query": rows, "key": columns, "value": columns}
    return {k: torch.randn(batch, heads, n, depth, generator=g).to(device, dtype) for k, n in lengths.items()}


def compare(check_gradients, given, **options):
    there = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    check_gradients(lambda **t: ops.cross_attention(**t, **options), lambda **t: reference.cross_attention(**t, **there), given)


def needs_masks(target):
    """Torch itself is not asked for a mask where it may answer with NaN."""
    if target.backend == "torch" and (obstacle := cross_attention._library_obstacle({"mask": True})):
        pytest.skip(obstacle)


@pytest.mark.parametrize("depth", [4, 5, 8, 16, 24, 32, 64, 128])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (7, 1), (33, 49), (49, 49), (16, 130)])
def test_shapes(target, check_gradients, rows, columns, depth):
    compare(check_gradients, tensors(rows, columns, depth, device=target.device))


@pytest.mark.parametrize(("rows", "columns"), [(121, 121), (129, 257), (256, 256), (300, 20), (20, 1025)])
def test_longer(target, check_gradients, rows, columns):
    compare(check_gradients, tensors(rows, columns, 16, batch=1, heads=2, device=target.device))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3])
def test_scale(target, check_gradients, scale):
    compare(check_gradients, tensors(9, 11, 8, device=target.device), scale=scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [9, 49, 121])
def test_sixteen_bit(target, check_gradients, length, dtype):
    needs_masks(target)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)).to(target.device) > 0.3
    compare(check_gradients, tensors(length, length, 16, dtype=dtype, device=target.device), key_mask=mask)


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (49, 49), (33, 130)])
def test_key_mask(target, check_gradients, rows, columns):
    needs_masks(target)
    mask = torch.rand(3, columns, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[0] = True
    mask[1] = False
    mask[2, 0] = True
    compare(check_gradients, tensors(rows, columns, 8, batch=3, device=target.device), key_mask=mask.to(target.device))


@pytest.mark.parametrize("shape", [(1, 1, 1, 13), (3, 1, 1, 13), (1, 2, 9, 13), (3, 2, 9, 13), (1, 1, 9, 13), (3, 1, 9, 13)])
def test_bias_and_its_gradient(target, check_gradients, shape):
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(target.device)
    given = tensors(9, 13, 8, batch=3, heads=2, device=target.device) | {"attn_bias": bias}
    compare(check_gradients, given)
    mask = torch.rand(3, 13, generator=torch.Generator().manual_seed(2)).to(target.device) > 0.4
    if target.backend != "torch":
        compare(check_gradients, given, key_mask=mask)
        compare(check_gradients, given, key_mask=mask, dropout_p=0.25, seed=3)


def test_minus_infinity_in_the_bias_masks(target, check_gradients):
    bias = torch.zeros(1, 1, 6, 5, device=target.device)
    bias[..., 2, 3] = bias[..., 4, :] = -math.inf
    compare(check_gradients, tensors(6, 5, 8, device=target.device) | {"attn_bias": bias})


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (49, 49), (20, 130)])
def test_dropout(target, check_gradients, rows, columns, p):
    if target.backend == "torch":
        pytest.skip("torch's dropout draws from its own generator")
    given = tensors(rows, columns, 8, device=target.device)
    compare(check_gradients, given, dropout_p=p, seed=2**63 + 5)
    seed = torch.tensor(77, device=target.device)
    assert torch.equal(ops.cross_attention(**given, dropout_p=p, seed=seed), ops.cross_attention(**given, dropout_p=p, seed=77))
    assert not torch.equal(ops.cross_attention(**given, dropout_p=p, seed=78), ops.cross_attention(**given, dropout_p=p, seed=77))


def test_dropout_hides_nothing_that_is_not_finite(target):
    """A row with a NaN among its scores is NaN, also where the key is dropped, as with torch."""
    if target.backend == "torch":
        pytest.skip("torch's dropout draws from its own generator")
    given = tensors(3, 5, 8, device=target.device)
    given["key"][0, 0, 2, 1] = torch.nan
    with torch.no_grad():
        found = ops.cross_attention(**given, dropout_p=0.9, seed=1)
    assert found[0, 0].isnan().all() and found[0, 1:].isfinite().all() and found[1:].isfinite().all()


def test_large_scores_do_not_overflow(target, assert_close):
    given = tensors(9, 9, 16, device=target.device)
    given["query"] *= 300.0
    out = ops.cross_attention(**given)
    assert_close(out, reference.cross_attention(**{k: x.cpu().double() for k, x in given.items()}), scale=10.0)


LEAST, MOST = torch.finfo(torch.float32).min, torch.finfo(torch.float32).max


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias_dtype", [torch.float32, None])
def test_every_finite_bias_is_a_score(target, dtype, bias_dtype, assert_close):
    """A row of a padded sequence holds the least number everywhere: its weights are equal, not absent."""
    rows = [[LEAST, LEAST], [MOST, MOST], [LEAST, 0.0], [0.0, MOST], [LEAST, MOST], [LEAST, -math.inf], [2e30, 1e30]]
    weights = [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    if target.backend != "triton":  # which cuts what is larger than 1e38
        rows, weights = [*rows, [3e38, 2e38], [LEAST, -2e38]], [*weights, [1.0, 0.0], [0.0, 1.0]]
    limits = torch.finfo(bias_dtype or dtype)  # the largest number of a dtype, not rounded beyond
    bias = torch.tensor(rows)
    bias = torch.where(bias.isinf(), bias, bias.clamp(limits.min, limits.max)).to(bias_dtype or dtype)
    key, value = torch.randn(1, 1, 2, 4), torch.tensor([[1.0, 0.5], [3.0, -2.0]])
    query = torch.zeros(1, 1, len(rows), 4, dtype=dtype, device=target.device)
    bias = bias[None, None].to(target.device).requires_grad_()
    key, value = key.to(target.device, dtype), F.pad(value, (0, 2))[None, None].to(target.device, dtype).requires_grad_()
    out = ops.cross_attention(query, key, value, attn_bias=bias)
    expected = torch.tensor(weights, dtype=torch.float64)
    assert_close(out, (expected @ value.cpu().double()[0, 0])[None, None])
    if target.backend == "torch":
        return  # its backward keeps one number a row
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(target.device, dtype)
    out.backward(slope)
    along = slope.cpu().double()[0, 0]
    assert_close(value.grad, (expected.T @ along)[None, None])
    pull = along @ value.detach().cpu().double()[0, 0].T
    assert_close(bias.grad, (expected * (pull - (expected * pull).sum(-1, keepdim=True)))[None, None], dtype)


def test_a_causal_and_a_padding_mask_together(target, assert_close):
    """As models write it: both masks hold the least number, and rows of padding see nothing else."""
    length, padding = 6, 2
    causal = torch.full((length, length), LEAST).triu(1)
    mask = causal.masked_fill(torch.arange(length) < padding, LEAST)[None, None].to(target.device)
    given = {k: x.requires_grad_() for k, x in tensors(length, length, 8, batch=1, heads=1, device=target.device).items()}
    plain = {k: x.detach().cpu().requires_grad_() for k, x in given.items()}
    out, expected = ops.cross_attention(**given, attn_bias=mask), reference.cross_attention(**plain, attn_bias=mask.cpu())
    assert_close(out, expected.double())
    if target.backend == "torch":
        return
    out.square().sum().backward()
    expected.square().sum().backward()
    for name, x in given.items():
        assert_close(x.grad, plain[name].grad.double(), scale=3.0)


def test_large_scores_keep_their_gradients(target, check_gradients):
    """The logarithm of a row's sum is small beside such a maximum: one float32 number for both would lose it."""
    if target.backend == "torch":
        pytest.skip("torch keeps that one number")
    given = tensors(5, 6, 8, device=target.device)
    given["key"][:, :, 3:] = given["key"][:, :, :3]  # equal scores, so that there is something to lose
    given["query"] = given["query"] * 1e6
    compare(check_gradients, given)


def test_torch_is_not_chosen_where_its_gradients_are_wrong(monkeypatch):
    """Where it was measured ahead: with a bias and a backward the kernel stays."""
    monkeypatch.setattr(cross_attention.table, "ratio", lambda *_: 0.5)
    facts = {"columns": 512, "depth": 64, "dtype": torch.float32}
    for bias in (False, True):
        for needs_grad in (False, True):
            preferred = cross_attention._native_preference(facts | {"bias": bias, "needs_grad": needs_grad})
            assert (preferred is None) == (bias and needs_grad)


@pytest.mark.parametrize("layout", ["tokens", "packed", "expanded"])
def test_layouts(target, check_gradients, layout):
    given = tensors(17, 17, 8, device=target.device)
    if layout == "tokens":  # (batch, L, heads * d) split into heads
        given = {k: x.transpose(1, 2).contiguous().transpose(1, 2) for k, x in given.items()}
    elif layout == "packed":  # one projection for q, k and v
        packed = torch.stack([x.transpose(1, 2) for x in given.values()], dim=2)
        given = {k: packed[:, :, i].transpose(1, 2) for i, k in enumerate(given)}
    else:
        given = {k: x[:, :1].expand_as(x) for k, x in given.items()}
    compare(check_gradients, given)


def test_more_heads_than_a_launch_grid(target, assert_close):
    given = tensors(2, 3, 4, batch=35_000, heads=2, device=target.device)
    picked = [0, 32_767, 32_768, 34_999]
    exact = {k: x[picked].cpu().double() for k, x in given.items()}
    assert_close(ops.cross_attention(**given)[picked], reference.cross_attention(**exact))


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(3, 4, 8, batch=0, device=target.device).items()}
    out = ops.cross_attention(**given)
    out.sum().backward()
    assert out.shape == (0, 3, 3, 8) and not any(x.grad.any() for x in given.values())


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    if target.backend not in KERNELS:
        pytest.skip("torch promises no such thing")
    given = tensors(49, 49, 16, batch=5, heads=4, device=target.device)
    given["attn_bias"] = torch.randn(1, 4, 49, 49, generator=torch.Generator().manual_seed(1)).to(target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        out = ops.cross_attention(**leaves, dropout_p=0.1, seed=3)
        (out * out.detach().cos()).sum().backward()
        return [out.detach(), *(x.grad for x in leaves.values())]

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    if target.device != "cpu":
        return
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)
