"""q_sample on every backend."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference
from bdgf_fast.diffusion import Schedule

OP = "q_sample"
SCHEDULE = Schedule.linear()


def inputs(target, shape=(3, 4, 5, 7), dtype=torch.float32):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(target.device, dtype)
    return x0, torch.tensor([0, 500, 999], device=target.device)[: shape[0]]


def compare(target, assert_close, x0, t, **options):
    there = {k: v.to(target.device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    exact = reference.q_sample(x0.cpu().double(), t.cpu(), SCHEDULE, 2**40 + 1, **options)
    out = ops.q_sample(x0, t, SCHEDULE, 2**40 + 1, **there)
    assert out.dtype == x0.dtype
    assert_close(out, exact)


@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 4), (3, 4, 1), (2, 3, 11, 11), (3, 1, 33), (1, 5, 2, 3, 4), (0, 3, 2, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shapes(target, assert_close, shape, dtype):
    compare(target, assert_close, *inputs(target, shape, dtype))


@pytest.mark.parametrize("mode", ["zero", "noise"])
def test_hidden_channels(target, assert_close, mode):
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[0], mask[1] = True, False
    compare(target, assert_close, *inputs(target), channel_mask=mask, mask_mode=mode)
    origin = torch.tensor([[0, 0], [4, 2], [1, 3]])
    options = {"channel_mask": mask, "mask_mode": mode, "origin": origin, "extent": (9, 10)}
    compare(target, assert_close, *inputs(target), **options)


def test_addresses(target, assert_close):
    ids = torch.tensor([9, 2, 9])
    compare(target, assert_close, *inputs(target), sample_ids=ids, stream=12)
    origin = torch.tensor([[0, 0], [3, 2], [4, 0]])
    compare(target, assert_close, *inputs(target), origin=origin, extent=(9, 9), sample_ids=ids)


def test_its_noise_is_philox_normals(target):
    """x0 = 0 leaves sqrt(1 - abar) eps, rounded once from the float32 product."""
    for dtype in (torch.float32, torch.bfloat16):
        x0, t = inputs(target, (3, 4, 33), dtype)
        out = ops.q_sample(torch.zeros_like(x0), t, SCHEDULE, 5, stream=2)
        eps = ops.philox_normal((3, 4, 33), 5, stream=2, device=target.device, dtype=torch.float32)
        rest = SCHEDULE.to(target.device).sqrt_one_minus_alphas_cumprod[t]
        assert torch.equal(out, (rest[:, None, None] * eps).to(dtype))


@pytest.mark.parametrize("layout", ["channels_last", "slice", "expanded", "transposed"])
def test_layouts(target, assert_close, layout):
    x0, t = inputs(target, (3, 4, 6, 6))
    x0 = {
        "channels_last": lambda: x0.contiguous(memory_format=torch.channels_last),
        "slice": lambda: torch.cat([x0, x0], dim=1)[:, 4:],
        "expanded": lambda: x0[:1].expand_as(x0),
        "transposed": lambda: x0.transpose(1, 3).contiguous().transpose(1, 3),
    }[layout]()
    out = ops.q_sample(x0, t, SCHEDULE, 5)
    assert torch.equal(out, ops.q_sample(x0.contiguous(), t, SCHEDULE, 5))
    assert_close(out, reference.q_sample(x0.cpu().double(), t.cpu(), SCHEDULE, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient(target, check_gradients, dtype):
    x0, t = inputs(target, dtype=dtype)
    mask = torch.tensor([[True, False, False, True]] * 3)
    check_gradients(
        lambda x0: ops.q_sample(x0, t, SCHEDULE, 5, channel_mask=mask.to(target.device)),
        lambda x0: reference.q_sample(x0, t.cpu(), SCHEDULE, 5, channel_mask=mask),
        {"x0": x0},
    )


def test_a_table_of_abar_and_an_int_timestep(target):
    x0, _ = inputs(target)
    t = torch.full((3,), 7, device=target.device)
    expected = ops.q_sample(x0, t, SCHEDULE, 5)
    abar = SCHEDULE.alphas_cumprod.to(target.device)
    assert torch.equal(ops.q_sample(x0, t, abar, 5), expected)
    assert torch.equal(ops.q_sample(x0, 7, SCHEDULE, 5), expected)
    assert torch.equal(ops.q_sample(x0, t.int(), SCHEDULE, 5), expected)


def test_a_timestep_out_of_range(target):
    x0, t = inputs(target)
    t[1] = 1000
    if target.device == "cpu":
        with pytest.raises(ValueError, match="t has 1000; it takes 0 to 999"):
            ops.q_sample(x0, t, SCHEDULE, 5)
    else:
        out = ops.q_sample(x0, t, SCHEDULE, 5)
        assert out[1].isnan().all() and out[[0, 2]].isfinite().all()
