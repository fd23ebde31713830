"""selective_scan_2d on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "selective_scan_2d"


def tensors(
    height, width, *, directions=4, batch=2, dim=5, state=4, shared=False, per_direction=False, leave_out=(),
    dtype=torch.float32, device="cpu",
):  # fmt: skip
    g = torch.Generator().manual_seed(0)
    K, pixels = directions, height * width

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    found = {"x": randn(batch, dim, height, width), "delta": randn(batch, 1 if shared else K, dim, pixels)}
    found["A"] = -torch.arange(1.0, state + 1, dtype=torch.float64) * torch.exp(0.1 * randn(K, dim, state))
    found |= {"B": randn(batch, K, state, pixels), "C": randn(batch, K, state, pixels)}
    vector = (K, dim) if per_direction else (dim,)
    found |= {"D": randn(*vector), "delta_bias": randn(*vector) - 3.0}
    parameters = torch.promote_types(dtype, torch.float32)
    return {k: x.to(device, parameters if k in ("A", "D", "delta_bias") else dtype) for k, x in found.items() if k not in leave_out}


def compare(check_gradients, given, **options):
    check_gradients(
        lambda **t: ops.selective_scan_2d(**t, **options),
        lambda **t: reference.selective_scan_2d(**t, **options),
        given,
    )


SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 5), (7, 7), (8, 4), (11, 11), (16, 17)]


@pytest.mark.parametrize("order", ["pixel", "scan"])
@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(target, check_gradients, size, directions, order):
    compare(check_gradients, tensors(*size, directions=directions, device=target.device), directions=directions, order=order)


@pytest.mark.parametrize("order", ["pixel", "scan"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_direction", [False, True])
@pytest.mark.parametrize("leave_out", [(), ("D",), ("delta_bias",), ("D", "delta_bias")], ids=str)
def test_options(target, check_gradients, leave_out, per_direction, shared, order):
    options = {"shared": shared, "per_direction": per_direction, "leave_out": leave_out, "device": target.device}
    compare(check_gradients, tensors(3, 4, **options), order=order)


def test_without_softplus(target, check_gradients):
    given = tensors(3, 4, leave_out=("delta_bias",), device=target.device)
    given["delta"] = given["delta"].abs() * 0.1
    compare(check_gradients, given, delta_softplus=False)


@pytest.mark.parametrize(("dim", "state"), [(1, 1), (16, 16), (17, 8), (40, 1), (6, 64)])
def test_channels_and_states(target, check_gradients, dim, state):
    compare(check_gradients, tensors(4, 5, dim=dim, state=state, device=target.device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    given = tensors(7, 7, dim=18, dtype=dtype, device=target.device)
    compare(check_gradients, given)
    given["delta"] = given["delta"].float()
    compare(check_gradients, given)


def test_layouts(target, check_gradients):
    given = tensors(5, 6, dim=18, device=target.device)
    given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    for name in ("delta", "B", "C"):
        given[name] = given[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    compare(check_gradients, given)
    given["x"] = torch.cat([given["x"]] * 2, dim=1)[:, 18:].transpose(2, 3).contiguous().transpose(2, 3)
    compare(check_gradients, given)


def test_is_the_sum_of_scans(target, assert_close):
    """Against selective_scan of each direction, so that the two operations agree on what a direction is."""
    given = tensors(4, 6, device=target.device)
    out = ops.selective_scan_2d(**given)
    x = given["x"].flatten(2)
    path = torch.arange(24, device=target.device).reshape(4, 6)
    total = torch.zeros_like(x)
    for k, order in enumerate((path.flatten(), path.t().flatten(), path.flatten().flip(0), path.t().flatten().flip(0))):
        y = ops.selective_scan(
            x[..., order], given["delta"][:, k][..., order], given["A"][k], given["B"][:, k][..., order],
            given["C"][:, k][..., order], given["D"], None, given["delta_bias"], True,
        )  # fmt: skip
        total[..., order] += y
    assert_close(out, total.unflatten(-1, (4, 6)).double(), torch.float32)


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(3, 3, batch=0, device=target.device).items()}
    out = ops.selective_scan_2d(**given)
    out.sum().backward()
    assert out.shape == (0, 5, 3, 3) and not any(x.grad.any() for x in given.values())


def test_more_samples_than_a_launch_grid(target, assert_close):
    given = tensors(1, 2, batch=70_000, dim=1, state=1, directions=1, device=target.device)
    out = ops.selective_scan_2d(**given, directions=1)
    picked = [0, 65_535, 65_536, 69_999]
    shared = ("A", "D", "delta_bias")
    exact = {k: (x if k in shared else x[picked]).cpu().double() for k, x in given.items()}
    assert_close(out[picked], reference.selective_scan_2d(**exact, directions=1))


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    given = tensors(11, 11, dim=40, batch=3, device=target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        out = ops.selective_scan_2d(**leaves)
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
