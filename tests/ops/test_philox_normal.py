"""philox_normal on every backend."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "philox_normal"
KERNELS = ("cpu", "cuda", "triton")


def both(target, shape, seed, **options):
    given = {k: v.to(target.device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    seed_there = seed.to(target.device) if isinstance(seed, torch.Tensor) else seed
    ours = ops.philox_normal(shape, seed_there, device=target.device, **given)
    return ours.cpu(), reference.philox_normal(shape, seed, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 3, 5, 5), (5,), (2, 1000), (0, 4), (2, 0)])
def test_agrees_with_the_definition(target, shape, dtype):
    ours, expected = both(target, shape, 2**63 + 11, stream=-3, dtype=dtype)
    assert ours.dtype == dtype and ours.shape == shape and ours.is_contiguous()
    digits = 2e-6 if dtype in (torch.float32, torch.float64) else torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), expected.double(), rtol=digits, atol=1e-6)


def test_sixteen_bit_is_the_float32_normal_rounded(target):
    exact = ops.philox_normal((4, 1000), 3, device=target.device, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(ops.philox_normal((4, 1000), 3, device=target.device, dtype=dtype), exact.to(dtype))


def test_addresses(target):
    ids = torch.tensor([7, -1, 2**32 + 7])
    ours, expected = both(target, (3, 2, 5, 3), 5, sample_ids=ids, stream=2**32 + 9)
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=1e-6)
    assert torch.equal(ours[0], ours[2])
    origin = torch.tensor([[0, 0], [3, 1], [-2, -1]])
    ours, expected = both(target, (3, 2, 5, 3), 5, origin=origin, extent=(9, 6))
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=1e-6)


def test_a_scenes_noise_does_not_depend_on_the_tile(target):
    options = {"device": target.device, "sample_ids": torch.zeros(1, dtype=torch.int64, device=target.device)}
    scene = ops.philox_normal((1, 3, 20, 17), 4, **options)
    for y, x, h, w in ((0, 0, 20, 17), (3, 5, 11, 11), (19, 16, 1, 1), (7, 0, 2, 17)):
        origin = torch.tensor([[y, x]], device=target.device)
        tile = ops.philox_normal((1, 3, h, w), 4, origin=origin, extent=(20, 17), **options)
        assert torch.equal(tile, scene[:, :, y : y + h, x : x + w])


def test_does_not_depend_on_the_batch(target):
    whole = ops.philox_normal((6, 3, 7), 4, device=target.device)
    ids = torch.tensor([4, 1], device=target.device)
    assert torch.equal(ops.philox_normal((2, 3, 7), 4, sample_ids=ids), whole[ids])


def test_seed_and_stream_tensors(target):
    expected = ops.philox_normal((2, 9), 12, stream=34, device=target.device)
    seed, stream = (torch.tensor(v, device=target.device) for v in (12, 34))
    assert torch.equal(ops.philox_normal((2, 9), seed, stream=stream), expected)


def test_is_the_same_for_any_thread_count(target):
    if target.device != "cpu":
        pytest.skip("threads are the CPU's")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.philox_normal((3, 100_003), 9))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
