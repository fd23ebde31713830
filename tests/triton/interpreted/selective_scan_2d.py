"""selective_scan_2d's Triton kernels: values and every gradient, tiny images."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import selective_scan_launch

from bdgf_fast import ops, reference

OP = "selective_scan_2d"


def tensors(height, width, *, directions=4, batch=1, dim=3, state=3, shared=False, per_direction=False, leave_out=()):
    g = torch.Generator().manual_seed(0)
    K, pixels = directions, height * width

    def randn(*shape):
        return torch.randn(shape, generator=g)

    found = {"x": randn(batch, dim, height, width), "delta": randn(batch, 1 if shared else K, dim, pixels)}
    found["A"] = -torch.arange(1.0, state + 1) * torch.exp(0.1 * randn(K, dim, state))
    found |= {"B": randn(batch, K, state, pixels), "C": randn(batch, K, state, pixels)}
    vector = (K, dim) if per_direction else (dim,)
    found |= {"D": randn(*vector), "delta_bias": randn(*vector) - 3.0}
    return {k: x for k, x in found.items() if k not in leave_out}


def compare(check_gradients, given, **options):
    check_gradients(
        lambda **t: ops.selective_scan_2d(**t, **options),
        lambda **t: reference.selective_scan_2d(**t, **options),
        given,
    )


@pytest.mark.parametrize("order", ["pixel", "scan"])
@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (2, 3)], ids=str)
def test_sizes(check_gradients, size, directions, order):
    shared = size[0] == 5
    compare(check_gradients, tensors(*size, directions=directions, shared=shared), directions=directions, order=order)


@pytest.mark.parametrize(("shared", "order"), [(False, "pixel"), (True, "scan")])
@pytest.mark.parametrize("leave_out", [(), ("D",), ("delta_bias",), ("D", "delta_bias")], ids=str)
def test_options(check_gradients, leave_out, shared, order):
    compare(check_gradients, tensors(3, 2, shared=shared, per_direction=True, leave_out=leave_out), order=order)


@pytest.mark.parametrize("shared", [False, True])
def test_dtypes(check_gradients, as_dtype, shared):
    """16-bit results are merged in scratch."""
    given = tensors(2, 3, batch=2, shared=shared)
    rounded = {k: as_dtype(x) if k in ("x", "delta", "B", "C") else x for k, x in given.items()}
    compare(check_gradients, rounded)
    compare(check_gradients, rounded | {"delta": given["delta"]}, delta_softplus=True)


def test_a_delta_expanded_over_the_directions(check_gradients):
    given = tensors(2, 3)
    given["delta"] = given["delta"][:, :1].expand(1, 4, 3, 6)
    compare(check_gradients, given, order="scan")


@pytest.mark.parametrize("room", [0, 32 << 20])
def test_tiles(check_gradients, monkeypatch, room):
    monkeypatch.setattr(selective_scan_launch, "workspace_limit", lambda *_: room)
    monkeypatch.setattr(selective_scan_launch, "WARPS", 1)
    compare(check_gradients, tensors(2, 3, dim=20, state=16, batch=2))


def test_layouts(check_gradients):
    given = tensors(2, 3, dim=4)
    given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    for name in ("delta", "B", "C"):
        given[name] = given[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    compare(check_gradients, given)
    given["x"] = torch.cat([given["x"]] * 2, dim=1)[:, 4:].transpose(2, 3).contiguous().transpose(2, 3)
    compare(check_gradients, given)


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors(3, 3, batch=0).items()}
    ops.selective_scan_2d(**given).sum().backward()
    assert not any(x.grad.any() for x in given.values())
