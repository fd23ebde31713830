"""The reverse step's Triton kernels: DDPM and DDIM, values and gradients."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference
from bdgf_fast.diffusion import Schedule

OP = "diffusion_step"
SCHEDULE = Schedule.linear()


def tensors(shape=(4, 3, 5, 7), dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return {k: torch.randn(shape, generator=g).to(dtype) for k in ("pred", "sample")}


def compare(check_gradients, name, given, **options):
    options = {"t": torch.tensor([0, 1, 300, 600])[: given["sample"].shape[0]], "schedule": SCHEDULE} | options
    ours, theirs = getattr(ops, name), getattr(reference, name)
    check_gradients(lambda **t: ours(**t, **options), lambda **t: theirs(**t, **options), given)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_steps(check_gradients, prediction_type, clip):
    options = {"prediction_type": prediction_type, "clip_sample": clip}
    compare(check_gradients, "ddpm_step", tensors(), seed=5, stream=2, sample_ids=torch.tensor([7, 7, -1, 3]), **options)
    compare(check_gradients, "ddpm_step", tensors(), noise=torch.randn(4, 3, 5, 7), **options)
    compare(check_gradients, "ddim_step", tensors(), prev_t=torch.tensor([-1, 0, 250, 550]), eta=0.6, seed=3, **options)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 1100), (2, 3, 4, 1, 5)])
def test_shapes(check_gradients, shape):
    compare(check_gradients, "ddpm_step", tensors(shape), prediction_type="sample", seed=5)


def test_layouts(check_gradients):
    for lay in (
        lambda x: x.to(memory_format=torch.channels_last), lambda x: torch.cat([x, x], 1)[:, 3:], lambda x: x[:1].expand_as(x)
    ):  # fmt: skip
        given = {name: lay(x) for name, x in tensors().items()}
        compare(check_gradients, "ddpm_step", given, prediction_type="sample", seed=5, clip_sample=True)


def test_dtypes(check_gradients, as_dtype):
    given = {name: as_dtype(x) for name, x in tensors().items()}
    compare(check_gradients, "ddpm_step", given, prediction_type="v_prediction", seed=5)


def test_the_samplers_noise_is_not_the_targets():
    given, options = tensors(), {"prediction_type": "sample", "variance": "fixed_large"}
    mean = ops.ddpm_step(given["pred"], 500, given["sample"], SCHEDULE, **options)
    noise = ops.ddpm_step(given["pred"], 500, given["sample"], SCHEDULE, seed=3, **options) - mean
    own = reference.philox_normal(mean.shape, 3, purpose="sampler", dtype=torch.float32)
    beta = 1 - SCHEDULE.alphas_cumprod[500] / SCHEDULE.alphas_cumprod[499]
    torch.testing.assert_close(noise, beta.sqrt().float() * own, rtol=1e-4, atol=1e-5)


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors((0, 4)).items()}
    ops.ddpm_step(**given, t=torch.zeros(0, dtype=torch.int64), schedule=SCHEDULE, prediction_type="sample").sum().backward()
