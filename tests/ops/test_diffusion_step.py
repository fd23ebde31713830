"""ddpm_step and ddim_step on every backend: values and gradients against float64, noise, layouts."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

OP = "diffusion_step"
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")
STEPS = {"ddpm": (ops.ddpm_step, reference.ddpm_step, {}), "ddim": (ops.ddim_step, reference.ddim_step, {"eta": 0.6})}
steps = pytest.mark.parametrize("kind", STEPS)


def inputs(shape, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    pred, sample, noise = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(3))
    t = torch.randint(300, 1000, (shape[0],), generator=g)
    if len(t) > 1:
        t[0] = 0
    return pred, sample, noise, t.to(device)


@steps
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 6, 11, 11), (2, 3, 50, 47), (0, 3)])
@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("source", [None, "seed", "noise"])
def test_agrees_with_float64(target, check_gradients, kind, shape, dtype, prediction_type, source):
    pred, sample, noise, t = inputs(shape, dtype, target.device)
    function, exact, options = STEPS[kind]
    options = options | {"prediction_type": prediction_type}
    if source is None:
        options |= {"eta": 0.0} if kind == "ddim" else {}
    elif source == "seed":
        options |= {"seed": 2**40 + 7, "stream": 3}
    fixed = {} if source != "noise" else {"noise": noise}
    check_gradients(
        lambda pred, sample: function(pred, t, sample, SCHEDULE, **options, **fixed),
        lambda pred, sample: exact(pred, t.cpu(), sample, SCHEDULE, **options, **{k: v.cpu().double() for k, v in fixed.items()}),
        {"pred": pred, "sample": sample},
    )


@steps
@pytest.mark.parametrize("prediction_type", TYPES)
def test_clipping(target, check_gradients, kind, prediction_type):
    pred, sample, _, t = inputs((4, 6, 11, 11), device=target.device)
    t = t.clamp(max=500)
    function, exact, options = STEPS[kind]
    options = options | {"prediction_type": prediction_type, "clip_sample": True, "seed": 5}
    check_gradients(
        lambda pred, sample: function(pred, t, sample, SCHEDULE, **options),
        lambda pred, sample: exact(pred, t.cpu(), sample, SCHEDULE, **options),
        {"pred": pred, "sample": sample},
    )
    nan = torch.full_like(sample, torch.nan)
    assert function(nan, t, sample, SCHEDULE, **options | {"prediction_type": "sample"}).isnan().all()


@steps
def test_previous_steps_and_variance(target, check_gradients, kind):
    pred, sample, noise, t = inputs((4, 6, 5), device=target.device)
    previous = t - 50  # below 0 for the first: the end
    for extra in ({}, {"variance": "fixed_large"}) if kind == "ddpm" else ({}, {"eta": 1.0}):
        function, exact, options = STEPS[kind]
        options = options | {"prediction_type": "epsilon"} | extra
        check_gradients(
            lambda pred, sample: function(pred, t, sample, SCHEDULE, prev_t=previous, noise=noise, **options),  # noqa: B023
            lambda pred, sample: exact(  # noqa: B023
                pred,
                t.cpu(),
                sample,
                SCHEDULE,
                prev_t=previous.cpu(),
                noise=noise.cpu().double(),
                **options,  # noqa: B023
            ),
            {"pred": pred, "sample": sample},
        )


def test_the_noise_has_a_purpose_of_its_own(target):
    zero = torch.zeros(3, 4, 33, device=target.device)
    t = torch.tensor([10, 500, 999], device=target.device)
    ids = torch.tensor([5, 0, 5], device=target.device)
    drawn = ops.ddpm_step(zero, t, zero, SCHEDULE, prediction_type="sample", seed=3, stream=8, sample_ids=ids)
    eps = reference.philox_normal(zero.shape, 3, stream=8, sample_ids=ids.cpu(), purpose="sampler", dtype=torch.float32)
    given = ops.ddpm_step(zero, t, zero, SCHEDULE, prediction_type="sample", noise=eps.to(target.device))
    torch.testing.assert_close(drawn, given, rtol=1e-5, atol=1e-6)
    assert drawn.abs().max() > 0


@steps
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides(target, kind, dtype):
    pred, sample, noise, t = inputs((3, 20, 13, 17), dtype, target.device)
    function, _, options = STEPS[kind]
    options = options | {"prediction_type": "v_prediction", "clip_sample": True}
    weight = torch.randn(3, 17, 13, 20, generator=torch.Generator().manual_seed(1)).to(target.device, dtype).transpose(1, 3)

    def run(pred, sample, **source):
        leaves = [x.detach().requires_grad_() for x in (pred, sample)]
        out = function(leaves[0], t, leaves[1], SCHEDULE, **options, **source)
        return [out.detach(), *torch.autograd.grad(out, leaves, weight)]

    for source in ({"seed": 4}, {"noise": noise}):
        expected = run(pred, sample, **source)
        for change in (
            lambda x: x.to(memory_format=torch.channels_last),
            lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
            lambda x: torch.stack([x, x + 1], -1)[..., 0],
        ):
            moved = {k: change(v) if k == "noise" else v for k, v in source.items()}
            for got in (run(change(pred), sample, **source), run(pred, change(sample), **moved)):
                assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_sampling_loop(target):
    """The full-loop check of diffusers' own scheduler tests: ten steps of DDIM without random numbers."""
    for kind, expected in (("epsilon", 172.0067), ("v_prediction", 52.5302)):
        x = (torch.arange(768) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2).to(target.device)
        for t in SCHEDULE.sampling_timesteps(10).tolist():
            x = ops.ddim_step(x * t / (t + 1), t, x, SCHEDULE, prev_t=t - 100, prediction_type=kind, clip_sample=True)
        assert x.abs().sum().item() == pytest.approx(expected, abs=1e-2)


@steps
def test_is_the_same_for_any_thread_count_and_level(target, kind):
    if target.backend != "cpu":
        pytest.skip("threads and levels are the CPU kernels'")
    from bdgf_fast import _native

    native, before = _native.load(), torch.get_num_threads()
    level = native.cpu_isa()
    pred, sample, _, t = inputs((3, 5, 83, 101))
    function, _, options = STEPS[kind]
    found = []
    try:
        for threads, isa in [(n, level) for n in (1, 2, 3)] + [(1, isa) for isa in native.cpu_isas()]:
            torch.set_num_threads(threads)
            native.set_cpu_isa(isa)
            found.append(function(pred, t, sample, SCHEDULE, prediction_type="epsilon", seed=1, **options))
    finally:
        torch.set_num_threads(before)
        native.set_cpu_isa(level)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    for other in found[3:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


def test_float64_takes_the_reference():
    pred, sample, _, t = inputs((2, 3, 4), torch.float64)
    assert backends.choose(OP, "cpu", torch.float64)[0] == "reference"
    leaves = [pred.requires_grad_(), sample.requires_grad_()]
    options = {"prediction_type": "epsilon", "seed": 3}
    assert torch.autograd.gradcheck(lambda p, s: ops.ddpm_step(p, t, s, SCHEDULE, **options), leaves)
