"""box_statistics on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "box_statistics"
SHAPES = [(1, 1, 5, 5), (2, 1, 7, 40), (1, 5, 40, 9), (3, 16, 37, 5), (1, 17, 9, 50), (2, 35, 12, 13)]


def map_of(*shape, dtype=torch.float32, device="cpu"):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    return x.to(device, dtype)


def compare(check_gradients, x, radii, scale=1.0):
    check_gradients(
        lambda x: ops.box_statistics(x, radii), lambda x: reference.box_statistics(x, radii), {"x": x}, scale=scale
    )  # fmt: skip


@pytest.mark.parametrize("radii", [[], [0], [1], [2], [3], [5], [2, 5, 6], [6, 0, 2], [4, 4]], ids=str)
def test_radii(target, check_gradients, radii):
    # A box of one pixel is constant: the reference's float32 gradient there is a difference of large equal numbers.
    scale = 20.0 if 0 in radii and target.backend == "reference" else 1.0
    compare(check_gradients, map_of(2, 3, 15, 21, device=target.device), radii, scale)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(target, check_gradients, shape, channels_last):
    x = map_of(*shape, device=target.device)
    compare(check_gradients, x.contiguous(memory_format=torch.channels_last) if channels_last else x, [2, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    x = map_of(2, 20, 14, 15, dtype=dtype, device=target.device)
    compare(check_gradients, x, [1, 4])
    compare(check_gradients, x.contiguous(memory_format=torch.channels_last), [1, 4])


@pytest.mark.parametrize("layout", ["transposed", "slice", "inner", "inner of channels last", "expanded"])
def test_layouts(target, check_gradients, layout):
    x = map_of(2, 18, 14, 17, device=target.device)
    if layout == "transposed":
        x = x.transpose(2, 3)
    elif layout == "slice":
        x = x[:, ::3]
    elif layout == "inner":
        x = x[:, :, 1:-2, 2:-1]
    elif layout == "inner of channels last":
        x = x.contiguous(memory_format=torch.channels_last)[:, 1:12, 1:-2, 2:-1]
    else:
        x = x[:1].expand_as(x)
    compare(check_gradients, x, [3])


def test_the_result_lies_as_the_input_does(target):
    x = map_of(2, 4, 9, 9, device=target.device)
    assert ops.box_statistics(x, [1]).is_contiguous()
    assert ops.box_statistics(x[..., 1:, 1:], [1]).is_contiguous()
    if target.backend != "reference":
        x = x.contiguous(memory_format=torch.channels_last)[..., 1:, 1:]
        assert ops.box_statistics(x, [1]).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_constant_has_no_deviation_and_passes_a_gradient(target, channels_last):
    x = torch.full((1, 3, 9, 9), 2.5, device=target.device)
    x = (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    out = ops.box_statistics(x, [2])
    centre, mean, deviation = out.chunk(3, 1)
    assert torch.equal(centre, torch.full_like(centre, 2.5))
    torch.testing.assert_close(mean, centre)
    assert deviation.max() < 3e-3
    mean.sum().backward()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad.sum().item(), float(mean.numel()), rtol=1e-5, atol=0)


def test_empty(target):
    x = map_of(0, 4, 9, 9, device=target.device).requires_grad_()
    out = ops.box_statistics(x, [2])
    out.sum().backward()
    assert out.shape == (0, 12, 5, 5) and x.grad.shape == x.shape


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_pixels_values_do_not_depend_on_its_tile(target, channels_last):
    if target.backend == "reference" and channels_last:
        pytest.skip("torch's average over channels-last memory is not ours to promise")
    x, radii = map_of(1, 20, 61, 83, device=target.device), [1, 5, 3]
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    whole = ops.box_statistics(x, radii)
    for y, left, height, width in ((0, 0, 11, 11), (3, 7, 30, 41), (17, 1, 44, 82), (50, 72, 11, 11)):
        tile = ops.box_statistics(x[:, :, y : y + height, left : left + width], radii)
        assert torch.equal(tile, whole[:, :, y : y + height - 10, left : left + width - 10])


def test_a_radius_has_the_same_values_beside_any_others(target):
    x = map_of(1, 3, 40, 40, device=target.device)
    both, alone = ops.box_statistics(x, [9, 2]), ops.box_statistics(x, [2])
    assert torch.equal(both[:, 9:], alone[:, 3:, 7:-7, 7:-7])


@pytest.mark.parametrize("channels_last", [False, True])
def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target, channels_last):
    given = map_of(2, 37, 50, 45, device=target.device)
    given = given.contiguous(memory_format=torch.channels_last) if channels_last else given

    def run():
        leaf = given.clone().requires_grad_()
        out = ops.box_statistics(leaf, [3, 5])
        (out * out.detach().cos()).sum().backward()
        return out.detach(), leaf.grad

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
