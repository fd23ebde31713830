"""group_channel_attention on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "group_channel_attention"


def tensors(channels, length, *, groups=2, batch=3, one_temperature=False, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    found = {k: torch.randn(batch, channels, length, generator=g).to(device, dtype) for k in "qkv"}
    tau = torch.rand(() if one_temperature else (groups,), generator=g) * 4.0 + 0.5
    return found | {"temperature": tau.to(device)}


def compare(check_gradients, given, groups):
    check_gradients(
        lambda **t: ops.group_channel_attention(**t, groups=groups),
        lambda **t: reference.group_channel_attention(**t, groups=groups),
        given,
    )


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 49, 121, 1024])
@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (4, 4), (6, 2), (32, 4), (34, 2), (64, 1)])
def test_shapes(target, check_gradients, channels, groups, length):
    given = tensors(channels, length, groups=groups, device=target.device)
    if length > 1:
        compare(check_gradients, given, groups)
        return
    # One element normalises to 1 or -1: the gradients of q and k are 0, and what comes out is rounding error over |q|.
    q, k = given.pop("q"), given.pop("k")
    check_gradients(
        lambda **t: ops.group_channel_attention(q, k, **t, groups=groups),
        lambda **t: reference.group_channel_attention(q.cpu().double(), k.cpu().double(), **t, groups=groups),
        given,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    compare(check_gradients, tensors(32, 49, dtype=dtype, device=target.device), 2)


@pytest.mark.parametrize("layout", ["transposed", "slice", "expanded"])
def test_layouts(target, check_gradients, layout):
    given = tensors(12, 35, one_temperature=True, device=target.device)
    for name in "qkv":
        x = given[name]
        if layout == "transposed":
            given[name] = x.transpose(1, 2).contiguous().transpose(1, 2)
        elif layout == "slice":
            given[name] = torch.cat([x, x], dim=1)[:, :12]
        else:
            given[name] = x[:1].expand_as(x)
    compare(check_gradients, given, 2)


def test_a_channel_without_a_norm(target, assert_close):
    """Its scores are 0 and its output the mean of V. (Its gradient, divided by 1e-12, means nothing.)"""
    given = tensors(8, 9, device=target.device)
    given["q"][0, 3] = 0.0
    given["k"][1, 5] = 0.0
    out = ops.group_channel_attention(**given, groups=2)
    assert_close(out, reference.group_channel_attention(**{k: x.cpu().double() for k, x in given.items()}, groups=2))
    assert_close(out[0, 3], given["v"][0, :4].mean(0).double(), torch.float32)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_the_size_of_q_and_k_does_not_matter(target, assert_close, size):
    given = tensors(8, 33, device=target.device)
    scaled = given | {"q": given["q"] * size, "k": given["k"] * size}
    out = ops.group_channel_attention(**scaled, groups=2)
    assert_close(out, ops.group_channel_attention(**given, groups=2).double(), torch.float32)


def test_a_number_for_the_temperature(target):
    given = tensors(8, 9, one_temperature=True, device=target.device)
    given["temperature"] = torch.tensor(1.5, device=target.device)
    out = ops.group_channel_attention(**given, groups=2)
    for same in (1.5, torch.tensor([1.5], device=target.device), torch.tensor([1.5, 1.5], device=target.device)):
        assert torch.equal(ops.group_channel_attention(**(given | {"temperature": same}), groups=2), out)


@pytest.mark.parametrize("temperature", [3e38, -3e38, 1e30])
def test_every_finite_temperature(target, temperature, assert_close):
    """Scores are temperature times a cosine; a channel of zeros has cosine 0 with all others."""
    given = {k: x for k, x in tensors(6, 9, batch=1, groups=1, device=target.device).items() if k in "qkv"}
    given["q"][:, 1] = 0.0
    exact = {k: x.cpu().double() for k, x in given.items()}
    out = ops.group_channel_attention(**given, temperature=temperature, groups=1)
    assert_close(out, reference.group_channel_attention(**exact, temperature=temperature, groups=1))


def test_more_samples_than_a_launch_grid(target, assert_close):
    given = tensors(2, 3, batch=70_000, groups=1, device=target.device)
    picked = [0, 65_535, 65_536, 69_999]
    exact = {k: (x[picked] if k in "qkv" else x).cpu().double() for k, x in given.items()}
    out = ops.group_channel_attention(**given, groups=1)
    assert_close(out[picked], reference.group_channel_attention(**exact, groups=1))


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(4, 5, batch=0, device=target.device).items()}
    out = ops.group_channel_attention(**given, groups=2)
    out.sum().backward()
    assert out.shape == (0, 4, 5) and not any(x.grad.any() for x in given.values())


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    if target.backend == "reference":
        pytest.skip("torch's matrix products promise no such thing")
    given = tensors(64, 121, groups=4, batch=9, device=target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        out = ops.group_channel_attention(**leaves, groups=4)
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
