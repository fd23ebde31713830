"""cross_attention's Triton kernels: values and every gradient."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "cross_attention"


def tensors(rows, columns, depth, *, batch=2, heads=2, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    lengths = {"query": rows, "key": columns, "value": columns}
    return {k: torch.randn(batch, heads, n, depth, generator=g).to(dtype) for k, n in lengths.items()}


def compare(check_gradients, given, **options):
    check_gradients(
        lambda **t: ops.cross_attention(**t, **options), lambda **t: reference.cross_attention(**t, **options), given
    )


SHAPES = [(1, 1, 4), (7, 9, 5), (9, 7, 16), (33, 17, 24), (20, 49, 32), (5, 70, 8), (17, 20, 100)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(check_gradients, shape, dtype):
    compare(check_gradients, tensors(*shape, dtype=dtype))


@pytest.mark.parametrize("columns", [130, 270])
def test_tiles_of_16_bit(check_gradients, columns):
    """All keys in one tile, and more keys than that."""
    compare(check_gradients, tensors(20, columns, 16, batch=1, heads=1, dtype=torch.float16))


def test_several_pairs_a_program(check_gradients):
    compare(check_gradients, tensors(5, 6, 4, batch=3, heads=3))


def test_dtypes(check_gradients, as_dtype):
    given = {name: as_dtype(x) for name, x in tensors(19, 18, 8).items()}
    bias = torch.randn(1, 1, 19, 18, generator=torch.Generator().manual_seed(1))
    compare(check_gradients, given | {"attn_bias": bias})
    compare(check_gradients, given | {"attn_bias": as_dtype(bias)})


@pytest.mark.parametrize("columns", [2, 40])
@pytest.mark.parametrize("scale", [None, 0.0, 3.0, -1.0])
def test_every_finite_bias_is_a_score(columns, scale, assert_close):
    """Rows of the least number, of the largest, of both, with a key at -inf: in one tile of keys and in several."""
    least, most = torch.finfo(torch.float32).min, torch.finfo(torch.float32).max
    given = tensors(5, columns, 4, batch=1, heads=1)
    given["query"] = torch.zeros(1, 1, 5, 4)
    bias = torch.zeros(1, 1, 5, columns)
    bias[..., 0, :], bias[..., 1, :] = least, most
    bias[..., 2, 1:], bias[..., 3, 1] = least, most
    bias[..., 4, :], bias[..., 4, 0] = least, -torch.inf
    ours, plain = ({k: x.clone().requires_grad_() for k, x in (given | {"attn_bias": bias}).items()} for _ in range(2))
    out, expected = ops.cross_attention(**ours, scale=scale), reference.cross_attention(**plain, scale=scale)
    assert_close(out, expected.double())
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(slope)
    expected.backward(slope)
    for name, x in ours.items():
        assert_close(x.grad, plain[name].grad.double(), floor=1.0)


def test_large_scores_keep_their_gradients(check_gradients):
    """The logarithm of a row's sum is small beside such a maximum: one float32 number for both would lose it."""
    given = tensors(5, 36, 8)
    given["key"][:, :, 18:] = given["key"][:, :, :18]
    given["query"] = given["query"] * 1e6
    compare(check_gradients, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("columns", [7, 40])
def test_key_mask(check_gradients, columns, dtype):
    mask = torch.rand(3, columns, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[0], mask[1] = True, False
    mask[2, :33], mask[2, -1] = False, True
    for laid in (mask, mask.t().contiguous().t()):
        compare(check_gradients, tensors(9, columns, 8, batch=3, dtype=dtype), key_mask=laid)


@pytest.mark.parametrize("shape", [(1, 1, 1, 13), (3, 1, 1, 13), (1, 2, 9, 13), (3, 2, 9, 13), (1, 1, 9, 13), (3, 1, 9, 13)])
def test_bias_and_its_gradient(check_gradients, shape):
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    compare(check_gradients, tensors(9, 13, 8, batch=3) | {"attn_bias": bias})


@pytest.mark.parametrize("rows", [1, 37])
def test_bias_of_several_tiles(check_gradients, rows):
    bias = torch.randn(1, 1, rows, 40, generator=torch.Generator().manual_seed(1))
    compare(check_gradients, tensors(37, 40, 8) | {"attn_bias": bias})


def test_bias_of_minus_infinity():
    """-inf masks, and a row with nothing else is 0; the smallest number only outweighs."""
    given = tensors(9, 13, 8)
    bias = torch.zeros(1, 1, 9, 13)
    bias[..., 3, :] = -torch.inf
    bias[..., 4, :] = torch.finfo(torch.float32).min
    bias[..., 5, ::2] = torch.finfo(torch.float32).min
    out = ops.cross_attention(**given, attn_bias=bias)
    assert not out[:, :, 3].any()
    torch.testing.assert_close(out, reference.cross_attention(**given, attn_bias=bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -0.7, 3])
def test_scale(check_gradients, scale):
    mask = torch.tensor([[True] * 5 + [False], [False] * 6])
    compare(check_gradients, tensors(5, 6, 4), scale=scale, key_mask=mask)


def test_dropout(check_gradients):
    compare(check_gradients, tensors(9, 13, 8), dropout_p=0.3, seed=7)
    bias = torch.randn(1, 1, 19, 43, generator=torch.Generator().manual_seed(1))
    compare(check_gradients, tensors(19, 43, 8) | {"attn_bias": bias}, dropout_p=0.3, seed=torch.tensor(-7))


def test_layouts(check_gradients):
    given = tensors(9, 13, 8)
    compare(check_gradients, {k: x.transpose(1, 2).contiguous().transpose(1, 2) for k, x in given.items()})
    compare(check_gradients, {k: x.transpose(2, 3).contiguous().transpose(2, 3) for k, x in given.items()})
    compare(check_gradients, given | {"key": given["key"][:, :1].expand(-1, 2, -1, -1)})


def test_some_gradients():
    """Each input alone takes the gradient that all of them together get."""
    given = tensors(19, 43, 8) | {"attn_bias": torch.randn(1, 1, 19, 43)}
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    ops.cross_attention(**leaves).square().sum().backward()
    for name in given:
        leaf = given[name].clone().requires_grad_()
        ops.cross_attention(**given | {name: leaf}).square().sum().backward()
        assert torch.equal(leaf.grad, leaves[name].grad)


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors(3, 4, 8, batch=0).items()}
    ops.cross_attention(**given).sum().backward()
