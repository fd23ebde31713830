"""denoising_loss on every backend."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference
from bdgf_fast.diffusion import Schedule

OP = "denoising_loss"
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")


def tensors(target, shape=(3, 5, 6, 7), dtype=torch.float32, x0_dtype=None):
    g = torch.Generator().manual_seed(0)
    pred, x0 = (torch.randn(shape, generator=g) for _ in range(2))
    return {"pred": pred.to(target.device, dtype), "x0": x0.to(target.device, x0_dtype or dtype)}


def compare(target, check_gradients, given, **options):
    options = {"t": torch.tensor([0, 500, 999])[: given["pred"].shape[0]], "schedule": SCHEDULE, "seed": 7} | options
    there = {k: v.to(target.device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    check_gradients(
        lambda **t: ops.denoising_loss(**t, **there), lambda **t: reference.denoising_loss(**t, **options), given
    )


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("groups", [(5,), (2, 3), (1, 1, 3), (1,) * 5])
def test_groups(target, check_gradients, groups, prediction_type):
    compare(target, check_gradients, tensors(target), channel_groups=groups, prediction_type=prediction_type)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 4, 1), (2, 3, 11, 11), (3, 2, 33), (1, 70, 32, 32)])
def test_shapes(target, check_gradients, shape, prediction_type):
    groups = (1, shape[1] - 1)
    compare(target, check_gradients, tensors(target, shape), channel_groups=groups, prediction_type=prediction_type)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("per_sample", [False, True])
def test_hidden_and_weights(target, check_gradients, per_sample, gamma, prediction_type):
    weights = torch.rand((3, 2) if per_sample else (2,), generator=torch.Generator().manual_seed(1))
    hidden = torch.tensor([[True, False], [False, True], [False, False]])
    given = tensors(target) | {"weights": weights.to(target.device)}
    options = {"hidden": hidden, "min_snr_gamma": gamma, "prediction_type": prediction_type, "channel_groups": (2, 3)}
    compare(target, check_gradients, given, **options)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("x0_dtype", [None, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype, x0_dtype, prediction_type):
    given = tensors(target, dtype=dtype, x0_dtype=x0_dtype)
    compare(target, check_gradients, given, channel_groups=(2, 3), prediction_type=prediction_type)
    loss = ops.denoising_loss(given["pred"], 3, SCHEDULE, 1, channel_groups=(2, 3))
    assert loss.dtype == torch.float32


def test_addresses(target, check_gradients):
    options = {"sample_ids": torch.tensor([8, 8, 1]), "stream": 5, "channel_groups": (2, 3)}
    compare(target, check_gradients, tensors(target), **options)
    options |= {"origin": torch.tensor([[0, 0], [3, 2], [4, 0]]), "extent": (10, 9)}
    compare(target, check_gradients, tensors(target), **options)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "expanded"])
def test_layouts(target, check_gradients, layout):
    given = tensors(target)
    for name, x in given.items():
        if layout == "channels_last":
            given[name] = x.contiguous(memory_format=torch.channels_last)
        elif layout == "slice":
            given[name] = torch.cat([x, x], dim=1)[:, 5:]
        else:
            given[name] = x[:1].expand_as(x)
    compare(target, check_gradients, given, channel_groups=(2, 3), prediction_type="v_prediction")


def test_is_zero_for_the_noise_that_q_sample_added(target):
    x0 = tensors(target)["x0"]
    t = torch.tensor([10, 500, 900], device=target.device)
    x_t = ops.q_sample(x0, t, SCHEDULE, 7, stream=3)
    tables = SCHEDULE.to(target.device)
    scale, rest = (table[t][:, None, None, None] for table in
                   (tables.sqrt_alphas_cumprod, tables.sqrt_one_minus_alphas_cumprod))  # fmt: skip
    eps = (x_t - scale * x0) / rest
    loss = ops.denoising_loss(eps, t, SCHEDULE, 7, stream=3, channel_groups=(5,))
    assert loss.max() < 1e-9
    assert ops.denoising_loss(eps, t, SCHEDULE, 7, stream=4, channel_groups=(5,)).min() > 0.5


def test_a_timestep_out_of_range(target):
    given = tensors(target)
    t = torch.tensor([3, -1, 9], device=target.device)
    if target.device == "cpu":
        with pytest.raises(ValueError, match="t has -1; it takes 0 to 999"):
            ops.denoising_loss(given["pred"], t, SCHEDULE, 5, channel_groups=(5,))
    else:
        loss = ops.denoising_loss(given["pred"], t, SCHEDULE, 5, channel_groups=(5,))
        assert loss[1].isnan().all() and loss[[0, 2]].isfinite().all()


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(target, (0, 5, 3, 3)).items()}
    t = torch.zeros(0, dtype=torch.int64, device=target.device)
    loss = ops.denoising_loss(**given, t=t, schedule=SCHEDULE, seed=1, channel_groups=(2, 3), prediction_type="sample")
    loss.sum().backward()
    assert loss.shape == (0, 2)


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    if target.backend == "reference":
        pytest.skip("torch's mean promises no such thing")
    given = tensors(target, (3, 5, 64, 64))
    t = torch.tensor([0, 500, 999], device=target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        options = {"channel_groups": (2, 3), "prediction_type": "v_prediction"}
        loss = ops.denoising_loss(**leaves, t=t, schedule=SCHEDULE, seed=3, **options)
        loss.sum().backward()
        return [loss.detach(), *(x.grad for x in leaves.values())]

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    if target.device != "cpu":
        return
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)
