"""Run by test_kernels.py: the bits are the CPU kernels'; a timestep out of range spoils its sample alone."""

import pytest
import torch

from bdgf_fast import _native
from bdgf_fast.diffusion import Schedule

C = _native.load()
SCHEDULE = Schedule.linear()


def call(module, x0, t, mask=None, origin=None, fill=True):
    out = torch.full_like(x0, torch.nan)
    tables = SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod
    module.q_sample(out, x0, t, *tables, mask, True, fill, 2**40 + 7, 3, None, origin, 50, 60, 1)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "aligned", "channels_last", "cropped", "transposed"])
@pytest.mark.parametrize("tile", [False, True])
def test_same_bits_as_the_cpu(emulated, dtype, layout, tile):
    x0 = torch.randn(3, 5, 11, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    if layout == "channels_last":
        x0 = x0.to(memory_format=torch.channels_last)
    elif layout == "aligned":  # samples of a multiple of 16 elements: a thread takes several items
        x0 = x0[:, :4, :8, :8].contiguous()
    elif layout == "cropped":
        x0 = x0[:, 1:, 2:9, 1:]
    elif layout == "transposed":
        x0 = x0.transpose(2, 3)
    t = torch.tensor([0, 500, 999])
    mask = torch.rand(x0.shape[:2], generator=torch.Generator().manual_seed(1)) > 0.6
    origin = torch.tensor([[0, 0], [-3, 7], [30, 41]]) if tile else None
    for hidden in (None, mask):
        want, got = call(C, x0, t, hidden, origin), call(emulated, x0, t, hidden, origin)
        assert not want.isnan().any() and torch.equal(got, want)


def test_a_timestep_out_of_range(emulated):
    x0, t = torch.randn(4, 2, 5), torch.tensor([3, -1, 1000, 9])
    out = call(emulated, x0, t)
    assert out[[1, 2]].isnan().all() and out[[0, 3]].isfinite().all()
