"""causal_conv1d on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "causal_conv1d"


def tensors(batch, dim, length, width, *, bias=True, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    found = {"x": torch.randn(batch, dim, length, generator=g).to(device, dtype)}
    found["weight"] = torch.randn(dim, width, generator=g).to(device)
    if bias:
        found["bias"] = torch.randn(dim, generator=g).to(device)
    return found


def compare(check_gradients, given, activation=None):
    check_gradients(
        lambda **t: ops.causal_conv1d(**t, activation=activation),
        lambda **t: reference.causal_conv1d(**t, activation=activation),
        given,
    )


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 31, 33, 64, 121, 1025])
def test_shapes(target, check_gradients, length, width, bias, activation):
    compare(check_gradients, tensors(2, 5, length, width, bias=bias, device=target.device), activation)


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 64, 100])
def test_channels(target, check_gradients, dim):
    compare(check_gradients, tensors(3, dim, 9, 4, device=target.device), "silu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    given = tensors(2, 20, 49, 4, dtype=dtype, device=target.device)
    compare(check_gradients, given, "silu")
    compare(check_gradients, {k: x.to(dtype) for k, x in given.items()}, "silu")


@pytest.mark.parametrize("layout", ["transposed", "half", "expanded", "weight"])
def test_layouts(target, check_gradients, layout):
    given = tensors(3, 18, 21, 4, device=target.device)
    x = given["x"]
    if layout == "transposed":
        given["x"] = x.transpose(1, 2).contiguous().transpose(1, 2)
    elif layout == "half":  # as Mamba splits its projection
        given["x"] = torch.cat([x, x], dim=1).chunk(2, dim=1)[0]
    elif layout == "expanded":
        given["x"] = x[:1].expand_as(x)
    else:
        given["weight"] = given["weight"].t().contiguous().t()
    compare(check_gradients, given, "silu")


def test_more_rows_than_a_launch_grid(target, assert_close):
    given = tensors(70_000, 2, 3, 2, device=target.device)
    picked = [0, 65_535, 65_536, 69_999]
    exact = {k: (x[picked] if k == "x" else x).cpu().double() for k, x in given.items()}
    assert_close(ops.causal_conv1d(**given)[picked], reference.causal_conv1d(**exact))


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(0, 4, 5, 3, device=target.device).items()}
    out = ops.causal_conv1d(**given, activation="silu")
    out.sum().backward()
    assert out.shape == (0, 4, 5) and not any(x.grad.any() for x in given.values())


def test_the_last_output_sees_the_last_width_inputs_alone(target):
    given = tensors(1, 3, 12, 4, device=target.device)
    x = given["x"].requires_grad_()
    ops.causal_conv1d(**given)[..., -1].sum().backward()
    assert not x.grad[..., :-4].any() and x.grad[..., -4:].all()


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    given = tensors(9, 70, 121, 4, device=target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        out = ops.causal_conv1d(**leaves, activation="silu")
        (out * out.detach().cos()).sum().backward()
        return [out.detach(), *(x.grad for x in leaves.values())]

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    if target.device != "cpu" or target.backend == "reference":
        return
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)
