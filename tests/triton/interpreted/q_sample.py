"""q_sample's Triton kernel: the CPU kernel's bits, and the gradient."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

OP = "q_sample"
SCHEDULE = Schedule.linear()
IDS = torch.tensor([-3, 2**33 + 5])
T = torch.tensor([3, 977])
HIDDEN = torch.tensor([[True, False, True], [False, False, True]])
ADDRESSES = {
    "sample": {},
    "zero": {"channel_mask": HIDDEN},
    "noise": {"channel_mask": HIDDEN.t().contiguous().t(), "mask_mode": "noise"},
    "scene": {"origin": torch.tensor([[3, -5], [2**33, 1]]), "extent": (100, 1001)},
}
ADDRESSES["scene and noise"] = ADDRESSES["scene"] | ADDRESSES["noise"]


def image(dtype, size=(5, 11)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


def layouts(x):
    yield x
    yield x.to(memory_format=torch.channels_last)
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield x[:1].expand(2, -1, -1, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("address", ADDRESSES)
def test_bits(address, dtype):
    options = ADDRESSES[address] | {"sample_ids": IDS, "stream": 2**31}
    for x0 in layouts(image(dtype)):
        ours = ops.q_sample(x0, T, SCHEDULE, -9, **options)
        with backends.use_backend("cpu"):
            assert torch.equal(ours, ops.q_sample(x0, T, SCHEDULE, -9, **options))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (2, 3, 7), (2, 2, 3, 2, 5), (3, 2, 2100)])
def test_shapes(shape):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for x in (x0, x0.transpose(-1, 1).contiguous().transpose(-1, 1)):
        ours = ops.q_sample(x, 500, SCHEDULE, 4)
        with backends.use_backend("cpu"):
            assert torch.equal(ours, ops.q_sample(x, 500, SCHEDULE, 4))


@pytest.mark.parametrize("address", ADDRESSES)
def test_gradient(check_gradients, as_dtype, address):
    options = ADDRESSES[address] | {"sample_ids": IDS}
    x0 = as_dtype(image(torch.float32))
    check_gradients(
        lambda x0: ops.q_sample(x0, T, SCHEDULE, 7, **options),
        lambda x0: reference.q_sample(x0, T, SCHEDULE, 7, **options),
        {"x0": x0},
    )


@pytest.mark.parametrize("value", [-1, 1000])
def test_a_timestep_out_of_range_is_nan(value):
    out = ops.q_sample(image(torch.float32), torch.tensor([value, 9]), SCHEDULE, 4)
    assert out[0].isnan().all() and out[1].isfinite().all()


def test_float64_and_empty():
    with pytest.raises(ValueError, match="float64 runs on the CPU"):
        ops.q_sample(image(torch.float64), T, SCHEDULE, 4)
    assert ops.q_sample(torch.zeros(0, 3, 2), 4, SCHEDULE, 4).shape == (0, 3, 2)
