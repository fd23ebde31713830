"""philox_normal's Triton kernel: the CPU kernel's bits at every kind of address."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops

OP = "philox_normal"
IDS = torch.tensor([-3, 2**33 + 5, 0])
ORIGIN = torch.tensor([[3, -5], [2**33, 1], [0, 2]])


def both(shape, seed, dtype=torch.float32, **options):
    found = []
    for backend in ("triton", "cpu"):
        with backends.use_backend(backend):
            found.append(ops.philox_normal(shape, seed, dtype=dtype, device="cpu", **options))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1,), (3, 1), (3, 5), (2, 3, 7, 7), (5, 4, 1, 3), (1, 5003), (130, 9)])
def test_bits(shape, dtype):
    ours, cpu = both(shape, 2**63 + 5, dtype, stream=7)
    assert ours.isfinite().all() and torch.equal(ours, cpu)


def test_seeds_streams_and_samples():
    for seed, stream in ((-7, 2**31 + 3), (2**40 + 1, -1), (1, 1), (0, 2**32)):
        assert torch.equal(*both((3, 21), seed, stream=stream, sample_ids=IDS))
        there = {"stream": torch.tensor(stream), "sample_ids": IDS}
        assert torch.equal(both((3, 21), torch.tensor(seed), **there)[0], both((3, 21), seed, **there)[1])


@pytest.mark.parametrize("size", [(5, 11), (1, 1), (3, 40), (70, 2)])
def test_a_scenes_pixels(size):
    options = {"sample_ids": IDS, "origin": ORIGIN, "extent": (100, 1001)}
    assert torch.equal(*both((3, 3, *size), -7, **options))
    assert torch.equal(*both((3, 3, *size), -7, torch.float16, **options))


def test_known_words():
    """Random123's known answer, through the kernel's own rounds."""
    import triton
    import triton.language as tl
    from bdgf_fast.triton_kernels.noise import philox_words

    @triton.jit
    def words(out, philox: tl.constexpr):
        counter = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
        zero = tl.zeros([1], tl.uint32)
        found = philox(
            zero + counter[0], zero + counter[1], zero + counter[2], zero + counter[3], zero + 0xA4093822, zero + 0x299F31D0
        )
        for i in tl.static_range(4):
            tl.store(out + i + tl.arange(0, 1), found[i].to(tl.int64))

    out = torch.zeros(4, dtype=torch.int64)
    words[(1,)](out, philox_words)
    assert [x & 0xFFFFFFFF for x in out.tolist()] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_empty():
    assert ops.philox_normal((0, 3), 1).shape == (0, 3)
