"""box_statistics' Triton kernels: values and gradient."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import box_statistics as kernels

from bdgf_fast import ops, reference

OP = "box_statistics"


def map_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5


def compare(check_gradients, x, radii):
    check_gradients(lambda x: ops.box_statistics(x, radii), lambda x: reference.box_statistics(x, radii), {"x": x})


@pytest.mark.parametrize("radii", [[], [0], [1], [3, 0, 2]], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 1, 8, 7), (1, 17, 9, 7)], ids=str)
def test_shapes(check_gradients, shape, radii):
    compare(check_gradients, map_of(*shape), radii)
    compare(check_gradients, map_of(*shape).contiguous(memory_format=torch.channels_last), radii)


def test_dtypes(check_gradients, as_dtype):
    compare(check_gradients, as_dtype(map_of(2, 5, 9, 8)), [1, 2])


def test_layouts(check_gradients):
    x = map_of(2, 6, 9, 8)
    for laid in (x.transpose(2, 3), x[:, ::2], x[:, :, 1:, 2:], x[:1].expand_as(x)):
        compare(check_gradients, laid, [2])


def test_parts(check_gradients, monkeypatch):
    """A workspace of one plane, of some channels and of some samples at a time."""
    x = map_of(5, 6, 9, 8)
    for planes in (1, 4, 13):
        monkeypatch.setattr(kernels, "workspace_limit", lambda *_, n=planes: 4 * n * 5 * 9 * 8)
        compare(check_gradients, x, [2, 1])


def test_a_pixels_values_do_not_depend_on_its_tile():
    x = map_of(1, 5, 20, 24)
    whole = ops.box_statistics(x, [3])
    assert torch.equal(ops.box_statistics(x[:, :, 4:15, 2:23], [3]), whole[:, :, 4:9, 2:17])


def test_empty():
    x = map_of(0, 4, 7, 7).requires_grad_()
    ops.box_statistics(x, [2]).sum().backward()
    assert x.grad.shape == x.shape
