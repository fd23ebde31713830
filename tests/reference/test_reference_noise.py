"""The reference noise against Random123's known answers, Python integers, and diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from bdgf_fast import reference
from bdgf_fast.diffusion import Schedule
from bdgf_fast.reference.philox import PURPOSES, philox4x32

ALL = 0xFFFFFFFF
KNOWN = [  # counter, key, words: Random123's kat_vectors
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL,) * 4, (ALL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
TYPES = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    found = philox4x32([torch.tensor(c) for c in counter], [torch.tensor(k) for k in key])
    assert tuple(w.item() for w in found) == words


def normal_of(seed, stream, sample, element, purpose="target_noise"):
    """One normal from Python integers and math."""
    key = (seed ^ (0x9E3779B97F4A7C15 * PURPOSES[purpose])) % 2**64
    block = (element >> 2) % 2**64
    counter = [torch.tensor(c) for c in (block % 2**32, block >> 32, sample % 2**32, stream % 2**32)]
    words = [w.item() for w in philox4x32(counter, [torch.tensor(key % 2**32), torch.tensor(key >> 32)])]
    w0, w1 = words[:2] if element % 4 < 2 else words[2:]
    u = torch.tensor(w0 >> 1, dtype=torch.float32) * 2.0**-31 + 2.0**-32
    radius = math.sqrt(-2.0 * math.log(u.item()))
    angle = (w1 - 2**32 if w1 >= 2**31 else w1) * math.pi / 2**32
    return radius * math.sin(angle) if element % 2 else radius * math.cos(angle) * (-1.0 if w0 % 2 else 1.0)


@pytest.mark.parametrize("purpose", ["target_noise", "mask_fill", "sampler"])
def test_normals_by_hand(purpose):
    seed, stream, ids = -5, 2**32 + 9, torch.tensor([3, -1, 2**33 + 7])
    found = reference.philox_normal((3, 2, 7), seed, sample_ids=ids, stream=stream, purpose=purpose)
    for b in range(3):
        for e in range(14):
            expected = normal_of(seed, stream, ids[b].item(), e, purpose)
            assert found[b].flatten()[e].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_scene_noise_does_not_depend_on_the_tile():
    scene = reference.philox_normal((1, 2, 9, 7), 11, sample_ids=torch.tensor([5]))
    origin = torch.tensor([[0, 0], [2, 3], [4, 1]])
    tiles = reference.philox_normal((3, 2, 5, 4), 11, sample_ids=torch.tensor([5, 5, 5]), origin=origin, extent=(9, 7))
    for tile, (y, x) in zip(tiles, origin.tolist(), strict=True):
        assert torch.equal(tile, scene[0, :, y : y + 5, x : x + 4])
    outside = reference.philox_normal(
        (1, 2, 3, 3), 11, sample_ids=torch.tensor([5]), origin=torch.tensor([[-2, -2]]), extent=(9, 7)
    )
    assert outside[0, 0, 0, 0].item() == pytest.approx(normal_of(11, 0, 5, -2 * 7 - 2), rel=1e-6)


def test_the_normals_are_normal():
    x = reference.philox_normal((16, 2**16), 1).double()
    n = x.numel()
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1.0) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3.0) < 5 * math.sqrt(96 / n)
    cdf = torch.special.ndtr(x.flatten().sort().values)
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert (cdf - steps).abs().max() < 2.0 / math.sqrt(n)  # Kolmogorov-Smirnov, p about 1e-3
    lags = [(x[:, :-k] * x[:, k:]).mean().abs() for k in (1, 2, 3, 4)]
    assert max(lags) < 5 / math.sqrt(n)


def test_seeds_streams_samples_and_purposes_are_apart():
    def draw(seed=3, **options):
        return reference.philox_normal((2, 64), seed, **options)

    base = draw()
    others = [draw(4), draw(3 + 2**32), draw(stream=1), draw(sample_ids=torch.tensor([2, 3]))]
    others += [draw(purpose=p) for p in PURPOSES if p != "target_noise"]
    for i, x in enumerate([base, *others]):
        for y in others[i:]:
            assert not torch.equal(x, y)
    assert torch.equal(base, draw(3 + 2**64)) and torch.equal(base, draw(torch.tensor(3)))
    assert torch.equal(base, draw(stream=torch.tensor(2**32)))


@pytest.mark.parametrize("name", BETAS)
def test_schedule_is_diffusers(name):
    ours, theirs = Schedule.from_name(name), DDPMScheduler(beta_schedule=BETAS[name])
    torch.testing.assert_close(ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=2e-5, atol=1e-8)
    assert ours.alphas_cumprod.dtype is torch.float64 and ours.sqrt_alphas_cumprod.dtype is torch.float32
    assert len(ours) == 1000


@pytest.mark.parametrize("name", BETAS)
def test_q_sample_is_add_noise(name):
    torch.manual_seed(0)
    x0, t = torch.randn(4, 3, 5, 5), torch.tensor([0, 7, 500, 998])
    noise = reference.philox_normal(x0.shape, 9, stream=2)
    ours = reference.q_sample(x0, t, Schedule.from_name(name), 9, stream=2)
    torch.testing.assert_close(
        ours, DDPMScheduler(beta_schedule=BETAS[name]).add_noise(x0, noise, t), rtol=1e-5, atol=1e-5
    )


def test_sixteen_bit_samples_are_noised_early_too():
    x0, t = torch.ones(1, 4096, dtype=torch.bfloat16), torch.tensor([0])
    schedule = Schedule.linear(beta_start=1e-3)
    exact = reference.q_sample(x0.double(), t, schedule, 3)
    ours = reference.q_sample(x0, t, schedule, 3)
    assert torch.equal(ours, exact.float().bfloat16()) and ours.float().std() > 0.01


def test_hidden_channels():
    x0, t, schedule = torch.randn(2, 3, 4, 4), torch.tensor([5, 900]), Schedule.linear()
    mask = torch.tensor([[True, False, False], [False, False, True]])
    plain = reference.q_sample(x0, t, schedule, 3)
    zero = reference.q_sample(x0, t, schedule, 3, channel_mask=mask)
    filled = reference.q_sample(x0, t, schedule, 3, channel_mask=mask, mask_mode="noise")
    assert not zero[mask].any() and torch.equal(zero[~mask], plain[~mask]) and torch.equal(filled[~mask], plain[~mask])
    target = reference.philox_normal(x0.shape, 3)
    assert torch.equal(filled[mask], reference.philox_normal(x0.shape, 3, purpose="mask_fill")[mask])
    assert (filled[mask] != target[mask]).double().mean() > 0.99


@pytest.mark.parametrize("prediction_type", TYPES)
def test_loss_by_hand(prediction_type):
    torch.manual_seed(0)
    pred, x0 = torch.randn(3, 5, 4, 4).double(), torch.randn(3, 5, 4, 4).double()
    t, schedule = torch.tensor([3, 400, 990]), Schedule.linear()
    hidden = torch.tensor([[False, False], [True, False], [False, True]])
    eps = reference.philox_normal(x0.shape, 8, dtype=torch.float64)
    theirs = DDPMScheduler()
    velocity = theirs.get_velocity(x0, eps, t)
    target = {"epsilon": eps, "sample": x0, "v_prediction": velocity}[prediction_type]
    abar = theirs.alphas_cumprod.double()[t]
    snr = abar / (1.0 - abar)
    on_x0 = snr.clamp(max=5.0)
    scale = {"epsilon": on_x0 / snr, "sample": on_x0, "v_prediction": on_x0 / (snr + 1.0)}[prediction_type]
    weights = torch.tensor([0.25, 2.0]).double()
    expected = torch.empty(3, 2).double()
    for b in range(3):
        for m, part in enumerate((slice(0, 2), slice(2, 5))):
            y = x0 if hidden[b, m] else target
            w = on_x0[b] if hidden[b, m] else scale[b]
            expected[b, m] = weights[m] * w * ((pred[b, part] - y[b, part]) ** 2).mean()
    ours = reference.denoising_loss(
        pred, t, schedule, 8, x0=x0, prediction_type=prediction_type, channel_groups=(2, 3), weights=weights,
        min_snr_gamma=5.0, hidden=hidden,
    )  # fmt: skip
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_timestep_out_of_range_is_nan_for_its_sample():
    x, schedule = torch.randn(3, 2, 2, 2), Schedule.linear()
    t = torch.tensor([-1, 10, 1000])
    hidden = torch.ones(3, 2).bool()
    for out in (
        reference.q_sample(x, t, schedule, 1),
        reference.denoising_loss(x, t, schedule, 1, x0=x, channel_groups=(1, 1), hidden=hidden),
        reference.denoising_loss(x, t, schedule, 1, x0=x, channel_groups=(1, 1), prediction_type="sample"),
        *(reference.ddpm_step(x, t, x, schedule, prediction_type=p, seed=1) for p in TYPES),
        *(reference.ddim_step(x, t, x, schedule, prediction_type=p) for p in TYPES),
    ):
        assert out[[0, 2]].isnan().all() and out[1].isfinite().all()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", BETAS)
def test_ddpm_step_is_diffusers(name, prediction_type, variance, clip):
    torch.manual_seed(0)
    pred, sample, schedule = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4), Schedule.from_name(name)
    theirs = DDPMScheduler(
        beta_schedule=BETAS[name], prediction_type=prediction_type, variance_type=variance, clip_sample=clip
    )
    for steps in (1000, 20):
        theirs.set_timesteps(steps)
        for t in theirs.timesteps[[0, steps // 2, -2, -1]].tolist():
            generator = torch.Generator().manual_seed(t)
            expected = theirs.step(pred, t, sample, generator=generator).prev_sample
            noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(t))
            ours = reference.ddpm_step(
                pred, t, sample, schedule, prev_t=t - 1000 // steps, prediction_type=prediction_type, variance=variance,
                clip_sample=clip, noise=noise,
            )  # fmt: skip
            # diffusers works in float32: 1 - abar_t / abar_prev keeps three digits there
            torch.testing.assert_close(ours, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", BETAS)
def test_ddim_step_is_diffusers(name, prediction_type, clip, eta):
    torch.manual_seed(0)
    pred, sample, schedule = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4), Schedule.from_name(name)
    theirs = DDIMScheduler(beta_schedule=BETAS[name], prediction_type=prediction_type, clip_sample=clip)
    theirs.set_timesteps(20)
    noise = torch.randn(sample.shape)
    for t in theirs.timesteps[[0, 9, 18, 19]].tolist():
        expected = theirs.step(pred, t, sample, eta=eta, variance_noise=noise).prev_sample
        ours = reference.ddim_step(
            pred,
            t,
            sample,
            schedule,
            prev_t=t - 50,
            prediction_type=prediction_type,
            clip_sample=clip,
            eta=eta,
            noise=noise,
        )
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize(("prediction_type", "expected"), [("epsilon", 172.0067), ("v_prediction", 52.5302)])
def test_a_loop_without_random_numbers(prediction_type, expected):
    """The full-loop check of diffusers' own scheduler tests."""
    schedule = Schedule.linear()
    x = (torch.arange(768) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
    for t in schedule.sampling_timesteps(10).tolist():
        x = reference.ddim_step(
            x * t / (t + 1), t, x, schedule, prev_t=t - 100, prediction_type=prediction_type, clip_sample=True
        )
    assert x.abs().sum().item() == pytest.approx(expected, abs=1e-2)


def test_steps_differentiate():
    torch.manual_seed(0)
    pred, sample = (torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    t = torch.tensor([10, 700])
    for prediction_type in TYPES:
        options = {"prediction_type": prediction_type, "clip_sample": True, "seed": 3}
        schedule = Schedule.linear()
        assert torch.autograd.gradcheck(lambda p, s: reference.ddpm_step(p, t, s, schedule, **options), (pred, sample))  # noqa: B023
        assert torch.autograd.gradcheck(
            lambda p, s: reference.ddim_step(p, t, s, schedule, eta=0.5, **options),  # noqa: B023
            (pred, sample),
        )
