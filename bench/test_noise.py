"""The noise operations on the CPU against torch.randn, arithmetic and per-modality mse_loss, and against copying."""

import pytest
import torch
from torch.nn.functional import mse_loss

import bdgf_fast
from bdgf_fast import ops
from bdgf_fast.diffusion import Schedule

SHAPE, GROUPS = (256, 182, 11, 11), (144, 38)
BYTES = 4 * 256 * 182 * 11 * 11
SCHEDULE = Schedule.linear()


def inputs():
    g = torch.Generator().manual_seed(0)
    x0, pred = torch.randn(SHAPE, generator=g), torch.randn(SHAPE, generator=g)
    return x0, pred, torch.randint(0, 1000, SHAPE[:1], generator=g)


def columns(t):
    tables = SCHEDULE.sqrt_alphas_cumprod[t], SCHEDULE.sqrt_one_minus_alphas_cumprod[t]
    return (table.reshape(-1, 1, 1, 1) for table in tables)


def is_standard_normal(x):
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01


def first_samples_agree(reference_call):
    """A gate: the first four samples against float64."""
    with bdgf_fast.use_backend("reference"):
        expected = reference_call()

    def check(found):
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got[:4].double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())

    return check


@pytest.mark.parametrize("who", ["ours", "torch.randn"])
def test_philox_normal(measure, who):
    call = (lambda: ops.philox_normal(SHAPE, 1)) if who == "ours" else lambda: torch.randn(SHAPE)
    measure(call, group=f"normals {SHAPE}", who=who, check=is_standard_normal, copy_bytes=BYTES)


@pytest.mark.parametrize("addresses", ["sample", "scene"])
@pytest.mark.parametrize("who", ["ours", "torch.randn + arithmetic"])
def test_q_sample(measure, who, addresses):
    x0, _, t = inputs()
    if addresses == "sample":
        where = {}
    else:
        corner = torch.randint(0, 1000, (SHAPE[0], 2), generator=torch.Generator().manual_seed(1))
        where = {"origin": corner, "extent": (1011, 1011)}
    if who == "ours":
        few = {k: v[:4] if k == "origin" else v for k, v in where.items()}
        gate = first_samples_agree(lambda: [ops.q_sample(x0[:4].double(), t[:4], SCHEDULE, 1, **few)])
        measure(lambda: ops.q_sample(x0, t, SCHEDULE, 1, **where), group=f"q_sample by {addresses} {SHAPE}", who=who,
                check=lambda found: gate([found]), copy_bytes=2 * BYTES)  # fmt: skip
        return

    def eager():
        a, r = columns(t)
        return a * x0 + r * torch.randn(SHAPE)

    measure(eager, group=f"q_sample by {addresses} {SHAPE}", who=who, copy_bytes=2 * BYTES)


def per_modality(pred, target):
    """(batch, M) mean squared errors as one writes them in torch."""
    pairs = zip(pred.split(GROUPS, 1), target.split(GROUPS, 1), strict=True)
    return torch.stack([mse_loss(p, y, reduction="none").flatten(1).mean(1) for p, y in pairs], 1)


def summed(pred, target):
    """Scalar losses, one a modality: less than (batch, M), and the least that torch can do."""
    pairs = zip(pred.split(GROUPS, 1), target.split(GROUPS, 1), strict=True)
    return torch.stack([mse_loss(p, y) for p, y in pairs])


@pytest.mark.parametrize("who", ["ours", "mse_loss (batch, M)", "mse_loss (M,)", "randn + mse_loss (batch, M)"])
def test_denoising_loss_forward_backward(measure, who):
    _, pred, t = inputs()
    pred.requires_grad_()
    noise = torch.randn(SHAPE)
    ones = torch.ones(SHAPE[0], len(GROUPS))

    def ours(pred=pred, t=t, ones=ones):
        loss = ops.denoising_loss(pred, t, SCHEDULE, 1, channel_groups=GROUPS)
        return loss, *torch.autograd.grad(loss, pred, ones)

    def eager():
        target = torch.randn(SHAPE) if who.startswith("randn") else noise
        loss = (summed if "(M,)" in who else per_modality)(pred, target)
        return loss, *torch.autograd.grad(loss.sum(), pred)

    few = pred[:4].detach().double().requires_grad_()
    gate = first_samples_agree(lambda: [x.detach() for x in ours(few, t[:4], ones[:4].double())])
    mine = who == "ours"
    measure(ours if mine else eager, group=f"denoising_loss fwd+bwd {SHAPE}", who=who,
            check=(lambda found: gate([x.detach() for x in found])) if mine else None, copy_bytes=3 * BYTES)  # fmt: skip


@pytest.mark.parametrize("who", ["ours", "torch.randn + arithmetic"])
def test_ddpm_step(measure, who):
    sample, pred, _ = inputs()
    t = torch.full(SHAPE[:1], 500)

    def ours():
        return ops.ddpm_step(pred, t, sample, SCHEDULE, prediction_type="epsilon", seed=1)

    abar, before = SCHEDULE.alphas_cumprod[500].item(), SCHEDULE.alphas_cumprod[499].item()
    beta = 1 - abar / before
    on_x0, on_sample = before**0.5 * beta / (1 - abar), (abar / before) ** 0.5 * (1 - before) / (1 - abar)
    deviation = ((1 - before) / (1 - abar) * beta) ** 0.5

    def eager():
        x0 = (sample - (1 - abar) ** 0.5 * pred) / abar**0.5
        return on_x0 * x0 + on_sample * sample + deviation * torch.randn(SHAPE)

    def check(found):
        mean = eager() - found  # the means cancel, and two independent noises are left
        assert abs(mean.mean()) < 0.01 and abs(mean.std() / (deviation * 2**0.5) - 1) < 0.01

    measure(ours if who == "ours" else eager, group=f"ddpm_step {SHAPE}", who=who, check=check, copy_bytes=3 * BYTES)
