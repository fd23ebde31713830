"""The schedulers against diffusers' own, through the same code: same options, same draws, same results."""

from __future__ import annotations

import diffusers
import pytest
import torch

from bdgf_fast import diffusion

KINDS = ("DDPMScheduler", "DDIMScheduler")
TYPES = ("epsilon", "sample", "v_prediction")


def pair(kind, **options):
    return getattr(diffusion, kind)(**options), getattr(diffusers, kind)(**options)


def close(ours, theirs):
    """diffusers works its coefficients out in float32 of float32 tables, whose 1 - abar_t / abar_prev keeps four digits."""
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * theirs.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "trained"])
def test_tables_and_training_calls(kind, schedule):
    betas = {"trained_betas": torch.linspace(0.01, 0.3, 40).tolist(), "num_train_timesteps": 40}
    ours, theirs = pair(kind, **(betas if schedule == "trained" else {"beta_schedule": schedule, "num_train_timesteps": 200}))
    for name in ("betas", "alphas", "alphas_cumprod"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-5)
    assert ours.init_noise_sigma == theirs.init_noise_sigma and ours.order == theirs.order and len(ours) == len(theirs)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    x, noise = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    t = torch.tensor([0, 1, 20, 38, 39])
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.get_velocity(x, noise, t), theirs.get_velocity(x, noise, t), rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.scale_model_input(x, 3), x)
    assert ours.add_noise(x.bfloat16(), noise.bfloat16(), t).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [1, 2, 7, 50, 64])
def test_timesteps(kind, spacing, count):
    ours, theirs = pair(kind, num_train_timesteps=100, timestep_spacing=spacing)
    ours.set_timesteps(count)
    theirs.set_timesteps(count)
    assert torch.equal(ours.timesteps, theirs.timesteps) and ours.num_inference_steps == theirs.num_inference_steps


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("total", [1000, 77])
def test_timesteps_of_every_count(spacing, total):
    """Numbers half way between two timesteps go where numpy's arithmetic sends them."""
    ours, theirs = pair("DDPMScheduler", num_train_timesteps=total, timestep_spacing=spacing)
    for count in range(1, total + 1):
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        # Theirs has one too many now and then, a -1 at the end that the rounding of a float step leaves there.
        assert torch.equal(ours.timesteps, theirs.timesteps[:count]), count
        assert len(theirs.timesteps) == count or theirs.timesteps[-1] == -1


def loop(scheduler, pred, timesteps, x, **options):
    """As sampling code is written."""
    for t in timesteps:
        x = scheduler.step(pred(scheduler.scale_model_input(x, t), t), t, x, **options).prev_sample
    return x


def pred(x, t):
    return torch.sin(3.0 * x) * (0.3 + t / 200.0)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize("clip", [None, 1.0, 2.5])
def test_ddpm_loop(prediction_type, variance, clip):
    options = {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0, "num_train_timesteps": 200}
    ours, theirs = pair("DDPMScheduler", prediction_type=prediction_type, variance_type=variance, **options)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    # step by step from the same sample: an unclipped loop would carry float32's errors on
    for t in theirs.timesteps:
        model_output = pred(x, t)
        found = [s.step(model_output, t, x, generator=torch.Generator().manual_seed(int(t))) for s in (ours, theirs)]
        close(found[0].prev_sample, found[1].prev_sample)
        close(found[0].pred_original_sample, found[1].pred_original_sample)
        assert torch.equal(torch.as_tensor(ours.previous_timestep(t)), torch.as_tensor(theirs.previous_timestep(t)))
        x = found[1].prev_sample
    torch.manual_seed(0)
    drawn = ours.step(x, 10, x, return_dict=False)
    torch.manual_seed(0)
    for a, b in zip(drawn, theirs.step(x, 10, x, return_dict=False), strict=True):
        close(a, b)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("clip", [None, 1.0, 2.5])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_loop(prediction_type, eta, clip, corrected, to_one):
    options = {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0, "num_train_timesteps": 200}
    ours, theirs = pair("DDIMScheduler", prediction_type=prediction_type, set_alpha_to_one=to_one, **options)
    torch.testing.assert_close(ours.final_alpha_cumprod, theirs.final_alpha_cumprod)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    for t in theirs.timesteps:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(t)))
        keywords = {"eta": eta, "use_clipped_model_output": corrected, "variance_noise": noise}
        found = [s.step(pred(x, t), t, x, **keywords) for s in (ours, theirs)]
        close(found[0].prev_sample, found[1].prev_sample)
        close(found[0][1], found[1][1])
        x = found[1].prev_sample


def test_custom_timesteps_and_one_generator_a_sample():
    ours, theirs = pair("DDPMScheduler", num_train_timesteps=100)
    results = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(timesteps=[90, 41, 40, 3])
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        results.append(loop(scheduler, pred, scheduler.timesteps, torch.ones(2, 3, 4, 4), generator=generators))
    close(*results)


def test_noise_drawn_in_the_kernel():
    ours = diffusion.DDPMScheduler(100)
    x = torch.zeros(2, 3, 8, 8)
    a, b, c = (ours.step(x, 50, x, seed=s, stream=50).prev_sample for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.std() > 0.01


@pytest.mark.parametrize("pipeline", ["DDPMPipeline", "DDIMPipeline"])
def test_diffusers_pipelines_take_it(pipeline):
    """Their code: config read, timesteps set, steps made, the DDIM one rebuilding its scheduler from our config."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    images = []
    for scheduler in pair(pipeline.replace("Pipeline", "Scheduler"), num_train_timesteps=50, beta_schedule="squaredcos_cap_v2"):
        pipe = getattr(diffusers, pipeline)(unet=unet, scheduler=scheduler)
        pipe.set_progress_bar_config(disable=True)
        g = torch.Generator().manual_seed(3)
        images.append(torch.from_numpy(pipe(batch_size=2, num_inference_steps=10, generator=g, output_type="np").images))
    assert images[1].std() > 0.01
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=5e-3)


def test_config():
    theirs = diffusers.DDPMScheduler(num_train_timesteps=77, beta_schedule="scaled_linear", prediction_type="v_prediction")
    ours = diffusion.DDIMScheduler.from_config(theirs.config, clip_sample=False)
    assert ours.config.num_train_timesteps == 77 and ours.config["prediction_type"] == "v_prediction"
    assert ours.config.clip_sample is False and len(ours) == 77
    back = diffusers.DDPMScheduler.from_config(ours.config)
    assert back.config.beta_schedule == "scaled_linear" and back.config.clip_sample is False
    with pytest.raises(AttributeError, match="has no option nothing"):
        ours.config.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="options are fixed"):
        ours.config.clip_sample = True


def test_errors_name_the_option():
    for options, text in (
        ({"thresholding": True}, "thresholding is True; it takes False only"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; it takes one of linear"),
        ({"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ({"variance_type": "learned"}, "variance_type is 'learned'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has 2 values"),
    ):
        with pytest.raises(ValueError, match=text):
            diffusion.DDPMScheduler(**options)
    ddim = diffusion.DDIMScheduler(10)
    with pytest.raises(ValueError, match="call set_timesteps first"):
        ddim.step(torch.zeros(1, 1), 3, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="num_inference_steps is 11"):
        ddim.set_timesteps(11)
    ddpm = diffusion.DDPMScheduler(10)
    with pytest.raises(ValueError, match="one of num_inference_steps and timesteps"):
        ddpm.set_timesteps()
    with pytest.raises(ValueError, match="timesteps are .*; they take whole numbers"):
        ddpm.set_timesteps(timesteps=[8.5, 2.0])
    with pytest.raises(TypeError, match="num_inference_steps is 2.5; it takes an int"):
        ddpm.set_timesteps(2.5)
    x = torch.zeros(2, 1)
    for call in (ddpm.add_noise, ddpm.get_velocity):
        with pytest.raises(TypeError, match="timesteps is torch.float32; it takes whole numbers"):
            call(x, x, torch.tensor([1.5, 2.0]))
        with pytest.raises(ValueError, match="timesteps has -1; it takes 0 to 9"):
            call(x, x, torch.tensor([3, -1]))
    for scheduler in (ddpm, diffusion.DDIMScheduler(10)):
        scheduler.set_timesteps(5)
        for timestep in (3.5, torch.tensor(3.5)):
            with pytest.raises(TypeError, match="t is .*float"):
                scheduler.step(x, timestep, x)
    with pytest.raises(TypeError, match="thresholding is str; it takes True or False"):
        diffusion.DDPMScheduler(thresholding="no")
    assert diffusion.DDPMScheduler(thresholding=None).config.thresholding is None
    with pytest.raises(ValueError, match="falling numbers from 9 to 0"):
        ddpm.set_timesteps(timesteps=[3, 4])
    with pytest.raises(ValueError, match="generator is a list of 3"):
        ddpm.step(torch.zeros(2, 1), 3, torch.zeros(2, 1), generator=[torch.Generator()] * 3)
