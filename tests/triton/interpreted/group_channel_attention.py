"""group_channel_attention's Triton kernels: values and every gradient."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "group_channel_attention"


def tensors(batch, channels, length, groups):
    g = torch.Generator().manual_seed(0)
    found = {name: torch.randn(batch, channels, length, generator=g) for name in ("q", "k", "v")}
    return found | {"temperature": torch.rand(groups, generator=g) + 0.5}


def compare(check_gradients, given, groups):
    check_gradients(
        lambda **t: ops.group_channel_attention(**t, groups=groups),
        lambda **t: reference.group_channel_attention(**t, groups=groups),
        given,
    )


@pytest.mark.parametrize(
    ("channels", "length", "groups"), [(1, 1, 1), (6, 9, 2), (17, 49, 1), (40, 33, 1), (64, 20, 1), (12, 130, 4), (5, 2, 5)]
)
def test_shapes(check_gradients, channels, length, groups):
    compare(check_gradients, tensors(2, channels, length, groups), groups)


def test_dtypes(check_gradients, as_dtype):
    given = tensors(2, 12, 49, 2)
    compare(check_gradients, {k: x if k == "temperature" else as_dtype(x) for k, x in given.items()}, 2)


def test_layouts_and_one_temperature(check_gradients):
    given = tensors(2, 10, 21, 2)
    laid = {k: given[k].transpose(1, 2).contiguous().transpose(1, 2) for k in ("q", "k")} | {"v": given["v"][:1].expand(2, -1, -1)}
    compare(check_gradients, laid | {"temperature": torch.tensor(0.7)}, 2)


def test_channels_of_zeros(check_gradients):
    given = tensors(2, 6, 9, 2)
    given["q"][:, 1] = 0
    compare(check_gradients, given, 2)


def test_some_gradients():
    given = tensors(2, 6, 9, 2)
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    ops.group_channel_attention(**leaves, groups=2).square().sum().backward()
    for name in given:
        leaf = given[name].clone().requires_grad_()
        ops.group_channel_attention(**given | {name: leaf}, groups=2).square().sum().backward()
        assert torch.equal(leaf.grad, leaves[name].grad)


def test_what_it_does_not_take():
    with pytest.raises(ValueError, match="a group has 65 channels; the Triton kernel takes up to 64"):
        ops.group_channel_attention(*(torch.zeros(1, 65, 2),) * 3, 1.0, groups=1)


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors(0, 4, 5, 2).items()}
    ops.group_channel_attention(**given, groups=2).sum().backward()
    assert not given["temperature"].grad.any()
