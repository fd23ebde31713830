"""denoising_loss on every backend: values and gradients against float64, layouts, addresses, fixed sums."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

OP = "denoising_loss"
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")


def inputs(shape, groups, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    pred, x0 = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    t = torch.randint(0, 1000, (shape[0],), generator=g).to(device)
    hidden = (torch.rand(shape[0], len(groups), generator=g) < 0.4).to(device)
    return pred, x0, t, hidden


def compare(check_gradients, tensors, t, groups, prediction_type, hidden, **options):
    def here(x):
        return x.cpu() if isinstance(x, torch.Tensor) else x

    def call(function, move, pred, x0=None, weights=None):
        fixed = {k: move(v) for k, v in options.items()}
        return function(
            pred, move(t), SCHEDULE, -5, x0=x0, weights=weights, prediction_type=prediction_type,
            channel_groups=groups, hidden=move(hidden), **fixed,
        )  # fmt: skip

    check_gradients(
        lambda **x: call(ops.denoising_loss, lambda v: v, **x),
        lambda **x: call(reference.denoising_loss, here, **x),
        tensors,
    )


CASES = [
    ((1, 1), (1,)),
    ((3, 5), (2, 3)),
    ((4, 6, 11, 11), (1, 2, 3)),
    ((2, 7, 70, 69), (6, 1)),  # segments: a group of 28,980 elements, one that starts in the middle of a chunk
    ((1, 3, 190, 187), (2, 1)),
    ((2, 2, 3, 2, 5), (2,)),
    ((0, 3, 2), (1, 2)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "groups"), CASES)
@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("some_hidden", [False, True])
def test_agrees_with_float64(target, check_gradients, shape, groups, dtype, prediction_type, some_hidden):
    pred, x0, t, hidden = inputs(shape, groups, dtype, target.device)
    tensors = {"pred": pred, "x0": x0}
    if prediction_type == "epsilon" and not some_hidden:
        del tensors["x0"]
    compare(check_gradients, tensors, t, groups, prediction_type, hidden if some_hidden else None, stream=5)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("weights", [None, "group", "sample"])
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_weights(target, check_gradients, prediction_type, weights, gamma):
    pred, x0, t, hidden = inputs((3, 5, 4, 4), (2, 3), device=target.device)
    tensors = {"pred": pred, "x0": x0}
    if weights is not None:
        shape = (2,) if weights == "group" else (3, 2)
        tensors["weights"] = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(target.device)
    compare(check_gradients, tensors, t, (2, 3), prediction_type, hidden, min_snr_gamma=gamma)


def test_addresses(target, check_gradients):
    pred, x0, t, hidden = inputs((3, 5, 9, 13), (2, 3), device=target.device)
    origin = torch.tensor([[0, 0], [30, 87], [7, 3]], device=target.device)
    ids = torch.tensor([4, 4, -1], device=target.device)
    options = {"sample_ids": ids, "stream": 2**32 + 3, "origin": origin, "extent": (40, 101)}
    compare(check_gradients, {"pred": pred, "x0": x0}, t, (2, 3), "v_prediction", hidden, **options)


def test_full_precision_targets_beside_sixteen_bit_predictions(target, check_gradients):
    pred, x0, t, hidden = inputs((3, 5, 9, 13), (2, 3), device=target.device)
    compare(check_gradients, {"pred": pred.bfloat16(), "x0": x0}, t, (2, 3), "v_prediction", hidden)


def step(tensors, needs, t, groups, prediction_type="v_prediction", **options):
    """The loss and the gradients of those in `needs`."""
    leaves = {k: v.detach().requires_grad_(k in needs) for k, v in tensors.items()}
    loss = ops.denoising_loss(
        **leaves, t=t, schedule=SCHEDULE, seed=3, channel_groups=groups, prediction_type=prediction_type, **options
    )
    rising = torch.arange(1.0, loss.numel() + 1, device=loss.device).reshape(loss.shape)
    return [loss.detach(), *torch.autograd.grad(loss, [leaves[k] for k in needs], rising)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced", "batch_last", "expanded"])
def test_any_strides(target, layout, dtype):
    groups = (7, 13)
    pred, x0, t, hidden = inputs((3, 20, 13, 17), groups, dtype, target.device)
    change = {
        "channels_last": lambda x: x.to(memory_format=torch.channels_last),
        "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": lambda x: torch.stack([x, x + 1], -1)[..., 0],
        "batch_last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "expanded": lambda x: x[:, :1].expand(x.shape),
    }[layout]
    for changed in ({"pred": change(pred), "x0": x0}, {"pred": pred, "x0": change(x0)}):
        expected = step({k: v.contiguous() for k, v in changed.items()}, ("pred", "x0"), t, groups, hidden=hidden)
        for got, want in zip(step(changed, ("pred", "x0"), t, groups, hidden=hidden), expected, strict=True):
            tight = 0.0 if target.backend == "cpu" else 1e-5  # the order of a sum may follow the layout elsewhere
            torch.testing.assert_close(got, want, rtol=tight, atol=tight * 1e-2)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_gradients_only_where_they_are_needed(target, prediction_type):
    groups = (7, 13)
    pred, x0, t, hidden = inputs((3, 20, 5, 17), groups, device=target.device)
    tensors, options = {"pred": pred, "x0": x0}, {"prediction_type": prediction_type, "hidden": hidden}
    loss, on_pred, on_x0 = step(tensors, ("pred", "x0"), t, groups, **options)
    for needs, want in ((("pred",), on_pred), (("x0",), on_x0)):
        alone, got = step(tensors, needs, t, groups, **options)
        assert torch.equal(alone, loss) and torch.equal(got, want)


def test_the_noise_is_q_samples(target):
    """The prediction that undoes q_sample has no loss."""
    x0 = torch.randn(3, 6, 11, 11, generator=torch.Generator().manual_seed(0)).to(target.device)
    t = torch.tensor([400, 700, 999], device=target.device)
    schedule = SCHEDULE.to(target.device)
    a, r = (table[t][:, None, None, None] for table in (schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod))
    eps = (ops.q_sample(x0, t, SCHEDULE, 3, stream=8) - a * x0) / r
    assert eps.std() > 0.9
    for kind, pred in (("epsilon", eps), ("v_prediction", a * eps - r * x0), ("sample", x0)):
        loss = ops.denoising_loss(pred, t, SCHEDULE, 3, x0=x0, stream=8, prediction_type=kind, channel_groups=(2, 4))
        assert loss.max() < 1e-11


@pytest.mark.parametrize("value", [-1, 1000])
def test_a_timestep_out_of_range(target, value):
    pred, x0, t, hidden = inputs((3, 2, 5), (1, 1), device=target.device)
    t[1] = value
    options = {"x0": x0, "channel_groups": (1, 1), "hidden": hidden}
    if target.device == "cpu":
        with pytest.raises(ValueError, match=f"t has {value}; it takes 0 to 999"):
            ops.denoising_loss(pred, t, SCHEDULE, 4, **options)
    else:
        out = ops.denoising_loss(pred, t, SCHEDULE, 4, **options)
        assert out[1].isnan().all() and out[[0, 2]].isfinite().all()


def test_is_the_same_on_repeat_and_for_any_thread_count(target):
    groups = (2, 3)
    pred, x0, t, hidden = inputs((3, 5, 133, 101), groups, device=target.device)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3):
            if target.device == "cpu":
                torch.set_num_threads(threads)
            found.append(step({"pred": pred, "x0": x0}, ("pred", "x0"), t, groups, hidden=hidden))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_every_level(target):
    if target.backend != "cpu":
        pytest.skip("levels are the CPU kernels'")
    from bdgf_fast import _native

    native, groups = _native.load(), (2, 3)
    level = native.cpu_isa()
    pred, x0, t, hidden = inputs((2, 5, 83, 101), groups)
    found = []
    try:
        for isa in (level, *native.cpu_isas()):
            native.set_cpu_isa(isa)
            found.append(step({"pred": pred, "x0": x0}, ("pred", "x0"), t, groups, hidden=hidden))
    finally:
        native.set_cpu_isa(level)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_float64_takes_the_reference():
    pred, x0, t, hidden = inputs((2, 3, 4), (1, 2), torch.float64)
    assert backends.choose(OP, "cpu", torch.float64)[0] == "reference"
    options = {"prediction_type": "v_prediction", "channel_groups": (1, 2), "hidden": hidden}
    leaves = [pred.requires_grad_(), x0.requires_grad_()]
    assert torch.autograd.gradcheck(lambda p, x: ops.denoising_loss(p, t, SCHEDULE, 1, x0=x, **options), leaves)
