"""group_channel_gate's Triton kernels: on chip and in two passes, values and every gradient."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import group_channel_gate as kernels

from bdgf_fast import ops, reference

OP = "group_channel_gate"


def tensors(channels, guide_channels, size, guide_size=None, *, groups=2, hidden=3, batch=3, source="both"):
    g = torch.Generator().manual_seed(0)
    inputs = channels * (source != "guide") + guide_channels * (source != "x")
    shapes = {
        "x": (batch, channels, *size), "guide": (batch, guide_channels, *(guide_size or size)),
        "weight1": (groups, hidden, inputs // groups), "bias1": (groups, hidden),
        "weight2": (groups, channels // groups, hidden), "bias2": (groups, channels // groups),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=g) + 0.2 for name, shape in shapes.items()}


def compare(check_gradients, given, groups=2, source="both"):
    options = {"groups": groups, "gate_source": source}
    check_gradients(
        lambda **t: ops.group_channel_gate(**t, **options), lambda **t: reference.group_channel_gate(**t, **options), given
    )


@pytest.fixture(params=["on chip", "two passes"])
def form(request, monkeypatch):
    """Both forms, the second with tiles so small that there are several along every axis."""
    if request.param == "two passes":
        monkeypatch.setattr(kernels, "ON_CHIP", 0)
        monkeypatch.setattr(kernels, "TILE", 64)


@pytest.mark.parametrize("source", ["x", "guide", "both"])
@pytest.mark.parametrize(
    ("channels", "guide_channels", "groups", "hidden"), [(1, 1, 1, 1), (6, 12, 3, 5), (16, 4, 4, 2), (40, 8, 1, 17)]
)
def test_channels_and_groups(form, check_gradients, channels, guide_channels, groups, hidden, source):
    given = tensors(channels, guide_channels, (3, 3), groups=groups, hidden=hidden, source=source)
    compare(check_gradients, given, groups, source)


@pytest.mark.parametrize("guide_size", [None, (1, 1), (4, 9)])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 7), (5, 31)])
def test_sizes(form, check_gradients, size, guide_size):
    compare(check_gradients, tensors(8, 4, size, guide_size))


def test_dtypes(form, check_gradients, as_dtype):
    given = tensors(16, 8, (7, 7))
    compare(check_gradients, {k: as_dtype(x) if k in ("x", "guide") else x for k, x in given.items()})


def test_layouts(form, check_gradients):
    given = tensors(10, 4, (5, 6))
    for lay in (
        lambda x: x.to(memory_format=torch.channels_last), lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x[:1].expand_as(x),
    ):  # fmt: skip
        compare(check_gradients, given | {k: lay(given[k]) for k in ("x", "guide")})
    compare(check_gradients, given | {"weight1": given["weight1"].transpose(1, 2).contiguous().transpose(1, 2)})


def test_a_large_group(check_gradients):
    """More than a program holds, more hidden units than a tile of the weights, many samples."""
    compare(check_gradients, tensors(9, 9, (32, 33), groups=1, batch=2), 1)
    compare(check_gradients, tensors(70, 70, (2, 2), groups=1, hidden=70, batch=2), 1)
    compare(check_gradients, tensors(4, 4, (2, 2), batch=150))


def test_some_gradients():
    given = tensors(6, 4, (3, 3))
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    ops.group_channel_gate(**leaves, groups=2).square().sum().backward()
    for name in given:
        leaf = given[name].clone().requires_grad_()
        ops.group_channel_gate(**given | {name: leaf}, groups=2).square().sum().backward()
        assert torch.equal(leaf.grad, leaves[name].grad)


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors(4, 4, (2, 2), batch=0).items()}
    ops.group_channel_gate(**given, groups=2).sum().backward()
    assert not given["weight1"].grad.any()
