"""ddpm_step and ddim_step on every backend."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference
from bdgf_fast.diffusion import Schedule

OP = "diffusion_step"
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")


def tensors(target, shape=(4, 3, 5, 7), dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return {k: torch.randn(shape, generator=g).to(target.device, dtype) for k in ("pred", "sample")}


def compare(target, check_gradients, name, given, **options):
    options = {"t": torch.tensor([0, 1, 500, 999])[: given["sample"].shape[0]], "schedule": SCHEDULE} | options
    there = {k: v.to(target.device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    ours, theirs = getattr(ops, name), getattr(reference, name)
    check_gradients(lambda **t: ours(**t, **there), lambda **t: theirs(**t, **options), given)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_ddpm(target, check_gradients, prediction_type, variance, clip):
    options = {"prediction_type": prediction_type, "variance": variance, "clip_sample": clip}
    given = tensors(target)
    if (
        prediction_type == "epsilon"
    ):  # x0 = (sample - ..) / sqrt(abar) is huge late in the chain: it would drown the rest
        options["t"] = torch.tensor([0, 1, 300, 600])
    compare(target, check_gradients, "ddpm_step", given, seed=5, stream=2, **options)
    compare(target, check_gradients, "ddpm_step", given, **options)
    compare(target, check_gradients, "ddpm_step", given, noise=torch.randn(given["sample"].shape), **options)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_ddim(target, check_gradients, prediction_type, eta, clip):
    options = {"prediction_type": prediction_type, "eta": eta, "clip_sample": clip, "seed": 5}
    options |= {"t": torch.tensor([49, 100, 500, 700]), "prev_t": torch.tensor([-1, 50, 450, 650])}
    compare(target, check_gradients, "ddim_step", tensors(target), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    options = {"prediction_type": "v_prediction", "clip_sample": False, "seed": 5}
    compare(target, check_gradients, "ddpm_step", tensors(target, dtype=dtype), **options)
    compare(target, check_gradients, "ddim_step", tensors(target, dtype=dtype), **options)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "expanded"])
def test_layouts(target, check_gradients, layout):
    given = tensors(target)
    for name, x in given.items():
        if layout == "channels_last":
            given[name] = x.contiguous(memory_format=torch.channels_last)
        elif layout == "slice":
            given[name] = torch.cat([x, x], dim=1)[:, 3:]
        else:
            given[name] = x[:1].expand_as(x)
    compare(target, check_gradients, "ddpm_step", given, prediction_type="sample", seed=5, clip_sample=True)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 1000), (0, 4)])
def test_shapes(target, check_gradients, shape):
    compare(target, check_gradients, "ddpm_step", tensors(target, shape), prediction_type="sample", seed=5)


def test_prediction_in_another_dtype(target):
    given = tensors(target)
    pred = given["pred"].bfloat16()
    out = ops.ddim_step(pred, 500, given["sample"], SCHEDULE, prediction_type="sample")
    same = ops.ddim_step(pred.float(), 500, given["sample"], SCHEDULE, prediction_type="sample")
    assert out.dtype == torch.float32 and torch.equal(out, same)


def test_the_samplers_noise_is_not_the_targets(target):
    given = tensors(target)
    options = {"prediction_type": "sample", "variance": "fixed_large"}
    mean = ops.ddpm_step(given["pred"], 500, given["sample"], SCHEDULE, **options)
    drawn = ops.ddpm_step(given["pred"], 500, given["sample"], SCHEDULE, seed=3, **options)
    noise = (drawn - mean).flatten().cpu().double()
    target_noise = reference.philox_normal(given["sample"].shape, 3).flatten().double()
    assert abs(torch.corrcoef(torch.stack([noise, target_noise]))[0, 1]) < 0.2
    assert noise.std() > 0.05


def test_a_timestep_out_of_range(target):
    given, t = tensors(target), torch.tensor([3, 5, 1000, 9], device=target.device)
    if target.device == "cpu":
        with pytest.raises(ValueError, match="t has 1000; it takes 0 to 999"):
            ops.ddpm_step(given["pred"], t, given["sample"], SCHEDULE, prediction_type="sample")
    else:
        out = ops.ddpm_step(given["pred"], t, given["sample"], SCHEDULE, prediction_type="sample")
        assert out[2].isnan().all() and out[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize(("prediction_type", "expected"), [("epsilon", 172.0067), ("v_prediction", 52.5302)])
def test_a_loop_without_random_numbers(target, prediction_type, expected):
    x = (torch.arange(768) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2).to(target.device)
    for t in SCHEDULE.sampling_timesteps(10).tolist():
        x = ops.ddim_step(
            x * t / (t + 1), t, x, SCHEDULE, prev_t=t - 100, prediction_type=prediction_type, clip_sample=True
        )
    assert x.abs().sum().item() == pytest.approx(expected, abs=1e-2)
