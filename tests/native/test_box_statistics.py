"""box_statistics on the native CPU kernels, on every instruction set level."""

from __future__ import annotations

import pytest
import torch
from levels import LEVELS, TOLERANCE, check_gradients, level, native, threads

from bdgf_fast import backends, ops, reference


def map_of(*shape, layout="planes", dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype) + 0.5
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    return x if layout == "planes" else x.repeat_interleave(2, 3).transpose(2, 3).contiguous().transpose(2, 3)[..., ::2]


def compare(x, radii):
    with backends.use_backend("cpu"):
        check_gradients(lambda x: ops.box_statistics(x, radii), lambda x: reference.box_statistics(x, radii), [x], x.dtype)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["planes", "channels last", "strided"])
def test_layouts_and_dtypes(isa, dtype, layout):
    with level(isa):
        compare(map_of(2, 19, 17, 22, layout=layout, dtype=dtype), [2, 6])


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 20])
def test_every_shape_of_window(isa, radius):
    """Sides 1, 3, 5 ...: sums of every pattern of powers of two, in tiles of both heights."""
    with level(isa):
        for layout in ("planes", "channels last"):
            compare(map_of(1, 3, 43, 46, layout=layout), [radius])


@pytest.mark.parametrize("layout", ["planes", "channels last"])
def test_many_tiles(layout):
    x = map_of(1, 20, 150, 300, layout=layout)
    compare(x, [1, 9])
    with backends.use_backend("cpu"):
        whole, tile = ops.box_statistics(x, [1, 9]), ops.box_statistics(x[:, :, 13:111, 30:299], [1, 9])
    assert torch.equal(tile, whole[:, :, 13:93, 30:281])


@pytest.mark.parametrize("isa", LEVELS)
def test_both_memory_formats_give_the_same_bits(isa):
    with level(isa), backends.use_backend("cpu"):
        planes, pixels = (ops.box_statistics(map_of(1, 21, 40, 70, layout=l), [2, 5]) for l in ("planes", "channels last"))
    assert torch.equal(planes, pixels)


@pytest.mark.parametrize("layout", ["planes", "channels last"])
def test_threads_do_not_change_a_bit(layout):
    x = map_of(3, 21, 75, 40, layout=layout).requires_grad_()
    results = []
    for count in (1, 2, 3, 8):
        with threads(count), backends.use_backend("cpu"):
            out = ops.box_statistics(x, [2, 9])
            results.append([out, *torch.autograd.grad(out, x, out.detach())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck():  # float64 is the reference's
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.box_statistics(x, [1, 2]), x)


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_infinity_and_nan_reach_only_the_windows_that_hold_them(layout, value):
    x = map_of(1, 18, 30, 40, layout=layout)
    x[0, 5, 14, 21] = value
    with backends.use_backend("cpu"):
        got = ops.box_statistics(x, [1, 4])
    want = reference.box_statistics(x.double(), [1, 4])
    assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isfinite(), want.isfinite())


def test_the_extension_refuses_what_would_crash():
    x, space = torch.zeros(1, 2, 5, 5), torch.zeros(1 << 20)
    for out, radii, room, message in (
        (torch.zeros(1, 6, 2, 3), [1], space, r"out has shape \(1, 6, 2, 3\)"),
        (torch.zeros(1, 6, 3, 3), [-1], space, "radii has a negative one"),
        (torch.zeros(1, 6, 3, 3), [3], space, "smaller than the largest box"),
        (torch.zeros(1, 6, 3, 3), [1], space[:5], "workspace holds too few floats"),
    ):
        with pytest.raises(ValueError, match=message):
            native.box_statistics_fwd(out, x, radii, room, 1)
