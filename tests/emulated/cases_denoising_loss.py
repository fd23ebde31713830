"""Run by test_kernels.py: a timestep out of range spoils its sample alone; more groups than one launch takes; aligned
tensors, of which a thread takes several items at a time, give the bits of unaligned ones."""

import pytest
import torch

from bdgf_fast.diffusion import Schedule
from bdgf_fast.ops.denoising_loss import _cuda_forward, _native_run

SCHEDULE = Schedule.linear()
TABLES = SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod


@pytest.fixture(autouse=True)
def on_emulated_kernels(emulated, monkeypatch):
    monkeypatch.setattr("bdgf_fast._native.load", lambda: emulated)


@pytest.mark.parametrize("prediction", [0, 1, 2])
def test_a_timestep_out_of_range(prediction):
    pred, x0, t = torch.randn(4, 3, 5), torch.randn(4, 3, 5), torch.tensor([3, -1, 1000, 9])
    hidden = torch.tensor([[False, True]] * 4)
    rest = (*TABLES, hidden, None, None, None, None, prediction, [1, 2], 5, 0, 0, 0)
    loss = torch.empty(4, 2)
    _cuda_forward([loss], pred, x0, t, *rest)
    assert loss[[1, 2]].isnan().all() and loss[[0, 3]].isfinite().all()
    grad_pred, grad_x0 = torch.empty_like(pred), torch.empty_like(x0)
    _native_run(None, torch.ones(4, 2), grad_pred, grad_x0, pred, x0, t, *rest)
    assert grad_pred[[1, 2]].isnan().all() and grad_pred[[0, 3]].isfinite().all() and grad_x0[[0, 3]].isfinite().all()


@pytest.mark.parametrize("last", [False, True])
def test_more_groups_than_one_launch_takes(last):
    pred, x0, t = torch.randn(2, 70, 3, 3), torch.randn(2, 70, 3, 3), torch.tensor([3, 9])
    if last:
        pred = pred.to(memory_format=torch.channels_last)
    loss = torch.empty(2, 69)
    _cuda_forward([loss], pred, x0, t, *TABLES, None, None, None, None, None, 1, [1] * 68 + [2], 5, 0, 0, 0)
    expected = (pred - x0).square().mean((2, 3))
    expected = torch.cat([expected[:, :68], expected[:, 68:].mean(1, keepdim=True)], 1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prediction", [0, 1, 2])
def test_the_bits_do_not_depend_on_alignment(prediction, dtype):
    def unaligned(x):
        return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape).copy_(x)

    pred, x0 = (torch.randn(2, 9, 32, 32, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2))
    rest = (torch.tensor([3, 9]), *TABLES, None, None, None, None, None, prediction, [8, 1], 5, 0, 0, 0)
    found = []
    for a, b in ((pred, x0), (unaligned(pred), unaligned(x0))):
        loss, grad_pred, grad_x0 = torch.empty(2, 2), torch.empty_like(a), torch.empty_like(b)
        _cuda_forward([loss], a, b, *rest)
        _native_run(None, torch.ones(2, 2), grad_pred, grad_x0, a, b, *rest)
        found.append((loss, grad_pred, grad_x0))
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all() and torch.equal(one, other)
