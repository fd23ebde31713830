"""denoising_loss and the reverse steps of the extension, beyond what every backend is asked for: segments of sums, bits
that depend neither on strides nor on threads, every instruction set level, each gradient alone."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import _native, backends, ops, reference
from bdgf_fast.diffusion import Schedule

NATIVE = _native.load()
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")
LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.stack([x, x + 1], -1)[..., 0],
    "batch_last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "expanded": lambda x: x[:, :1].expand(x.shape),
}


@pytest.fixture(autouse=True)
def native():
    """The kernels, on the level and the threads of before."""
    level, threads = NATIVE.cpu_isa(), torch.get_num_threads()
    with backends.use_backend("cpu"):
        yield
    NATIVE.set_cpu_isa(level)
    torch.set_num_threads(threads)


def tensors(shape, *names, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=g).to(dtype) for name in names}


def loss_step(given, needs, groups, *, function=ops.denoising_loss, prediction_type="v_prediction", **options):
    """The loss and the gradients of those in `needs`."""
    leaves = {k: v.detach().requires_grad_(k in needs) for k, v in given.items()}
    batch = given["pred"].shape[0]
    t = torch.arange(batch) * 300 + 50
    hidden = (torch.arange(batch * len(groups)) % 3 == 1).reshape(batch, len(groups))
    loss = function(
        **leaves, t=t, schedule=SCHEDULE, seed=3, channel_groups=groups, prediction_type=prediction_type,
        hidden=hidden, **options,
    )  # fmt: skip
    rising = torch.arange(1.0, loss.numel() + 1, dtype=loss.dtype).reshape(loss.shape)
    return [loss.detach(), *torch.autograd.grad(loss, [leaves[k] for k in needs], rising)]


def step(given, kind="ddpm", clip=True, **source):
    """The step and the gradients of pred and sample."""
    leaves = {k: v.detach().requires_grad_() for k, v in given.items()}
    t = torch.arange(given["pred"].shape[0]) * 100
    function = ops.ddpm_step if kind == "ddpm" else ops.ddim_step
    options = {"prediction_type": "epsilon", "clip_sample": clip} | ({} if kind == "ddpm" else {"eta": 0.5})
    out = function(leaves["pred"], t, leaves["sample"], SCHEDULE, **options, **source)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad(out, list(leaves.values()), weight)]


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize(("shape", "groups"), [((2, 7, 70, 69), (6, 1)), ((1, 3, 190, 187), (2, 1)), ((3, 1), (1,))])
def test_sums_of_many_segments(assert_close, shape, groups, prediction_type):
    given = tensors(shape, "pred", "x0")
    found = loss_step(given, ("pred", "x0"), groups, prediction_type=prediction_type)
    exact = {k: v.double() for k, v in given.items()}
    expected = loss_step(exact, ("pred", "x0"), groups, function=reference.denoising_loss, prediction_type=prediction_type)
    for got, want in zip(found, expected, strict=True):
        assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_do_not_depend_on_strides(layout, dtype):
    groups, change = (7, 13), LAYOUTS[layout]
    given = tensors((3, 20, 13, 17), "pred", "x0", dtype=dtype)
    for name in given:
        moved = given | {name: change(given[name])}
        plain = {k: v.contiguous() for k, v in moved.items()}
        pairs = zip(loss_step(moved, list(given), groups), loss_step(plain, list(given), groups), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), name
    noise = tensors((3, 20, 13, 17), "noise", dtype=dtype)["noise"]
    given = {"pred": given["pred"], "sample": given["x0"]}
    for name in given:
        moved = given | {name: change(given[name])}
        plain = {k: v.contiguous() for k, v in moved.items()}
        for source in ({"seed": 1}, {"noise": change(noise)}, {}):
            still = {k: v.contiguous() if k == "noise" else v for k, v in source.items()}
            pairs = zip(step(moved, **source), step(plain, **still), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), (name, source)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_gradients_only_where_they_are_needed(prediction_type):
    given, groups = tensors((3, 20, 5, 17), "pred", "x0"), (7, 13)
    loss, *both = loss_step(given, ("pred", "x0"), groups, prediction_type=prediction_type)
    for name, want in zip(("pred", "x0"), both, strict=True):
        alone, got = loss_step(given, (name,), groups, prediction_type=prediction_type)
        assert torch.equal(alone, loss) and torch.equal(got, want)


def runs():
    yield loss_step(tensors((3, 5, 133, 101), "pred", "x0"), ("pred", "x0"), (2, 3))
    yield loss_step(
        tensors((3, 5, 11, 13), "pred", "x0"), ("pred", "x0"), (2, 3), origin=torch.arange(6).reshape(3, 2),
        extent=(90, 70),
    )  # fmt: skip
    for kind in ("ddpm", "ddim"):
        yield step(tensors((3, 5, 133, 101), "pred", "sample"), kind, seed=9)


def test_bits_do_not_depend_on_threads():
    found = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        found.append([x for run in runs() for x in run])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_every_level():
    found = []
    for level in NATIVE.cpu_isas():
        NATIVE.set_cpu_isa(level)
        found.append([x for run in runs() for x in run])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            # where the clamp cuts, the last bit of x0 decides: a few gradients may fall on the other side
            far = (a - b).abs() > 1e-5 * (1.0 + a.abs())
            assert far.double().mean() < 1e-5


def test_nan_passes_the_clamp():
    given = tensors((3, 40), "pred", "sample")
    given["pred"][1, 3] = torch.nan
    out, on_pred, _ = step(given)
    assert out[1, 3].isnan() and out.isnan().sum() == 1 and on_pred.isfinite().all()


def test_float64_takes_the_reference():
    with backends.use_backend(None):
        for op in ("q_sample", "denoising_loss", "diffusion_step"):
            assert backends.choose(op, "cpu", torch.float64)[0] == "reference"
            assert backends.choose(op, "cpu", torch.float32)[0] == "cpu"


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"loss": torch.empty(2, 3)}, ValueError, r"loss has shape \(2, 3\); expected \(2, 2\)"),
        ({"grad_loss": torch.empty(2, 2)}, ValueError, "loss and grad_loss must be given one without the other"),
        ({"x0": torch.empty(2, 3, 5)}, ValueError, r"x0 has shape \(2, 3, 5\); expected \(2, 3, 4\)"),
        ({"pred": torch.empty(2, 3, 4).double()}, TypeError, "pred has dtype float64"),
        ({"prediction": 2}, ValueError, "x0 is None, but the target needs it"),
        ({"prediction": 3}, ValueError, "prediction is not 0, 1 or 2"),
        ({"channel_groups": [1, 1]}, ValueError, "channel_groups does not sum"),
        ({"channel_groups": [3, 0]}, ValueError, "channel_groups has a size below 1"),
        ({"t": torch.tensor([0, 2])}, ValueError, "t has 2; it takes 0 to 1"),
        ({"t": torch.zeros(3).long()}, ValueError, r"t has shape \(3,\)"),
        ({"hidden": torch.zeros(2, 3).bool()}, ValueError, r"hidden has shape \(2, 3\)"),
        ({"sqrt_rest": torch.ones(4)}, ValueError, r"sqrt_rest has shape \(4,\); expected \(2,\)"),
    ],
)
def test_bad_arguments_never_reach_a_kernel(changes, error, sentence):
    given = {
        "loss": torch.empty(2, 2), "grad_loss": None, "grad_pred": None, "grad_x0": None, "pred": torch.empty(2, 3, 4),
        "x0": None, "t": torch.zeros(2).long(), "sqrt_abar": torch.ones(2), "sqrt_rest": torch.ones(2), "hidden": None,
        "prediction": 0, "channel_groups": [1, 2], "seed": 0, "stream": 0, "sample_ids": None, "origin": None,
        "extent_h": 0, "extent_w": 0, "num_threads": 1,
    }  # fmt: skip
    NATIVE.denoising_loss(**given)
    with pytest.raises(error, match=f"denoising_loss: {sentence}"):
        NATIVE.denoising_loss(**given | changes)
