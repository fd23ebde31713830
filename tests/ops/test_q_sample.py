"""q_sample on every backend: against float64, against its own bit contract, addresses, layouts, gradients."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

OP = "q_sample"
SCHEDULE = Schedule.linear()
KERNELS = ("cpu", "cuda", "triton")


def inputs(shape, dtype=torch.float32, device="cpu"):
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(shape, generator=g).to(device, dtype)
    t = torch.randint(0, 1000, (shape[0],), generator=g).to(device)
    mask = (torch.rand(shape[:2], generator=g) < 0.4).to(device)
    return x0, t, mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 7), (4, 6, 11, 11), (2, 3, 50, 47), (2, 2, 3, 2, 5), (0, 3, 2)])
@pytest.mark.parametrize("mode", [None, "zero", "noise"])
def test_agrees_with_float64(target, check_gradients, shape, dtype, mode):
    x0, t, mask = inputs(shape, dtype, target.device)
    options = {"stream": 5} if mode is None else {"stream": 5, "channel_mask": mask, "mask_mode": mode}
    exact = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    check_gradients(
        lambda x0: ops.q_sample(x0, t, SCHEDULE, 2**63 + 1, **options),
        lambda x0: reference.q_sample(x0, t.cpu(), SCHEDULE, 2**63 + 1, **exact),
        {"x0": x0},
    )


def by_contract(x0, t, seed, **address):
    """Two products and a sum, each rounded on its own, of the op's own float32 normals; one rounding to x0's dtype."""
    eps = ops.philox_normal(x0.shape, seed, dtype=torch.float32, device=x0.device, **address)
    column = (-1, *[1] * (x0.dim() - 1))
    schedule = SCHEDULE.to(x0.device)
    a, r = schedule.sqrt_alphas_cumprod[t].reshape(column), schedule.sqrt_one_minus_alphas_cumprod[t].reshape(column)
    return (a * x0.float() + r * eps).to(x0.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 7, 11, 11), (2, 4, 6001), (5, 3)])
def test_bits_are_the_contract(target, shape, dtype):
    if target.backend not in KERNELS:
        pytest.skip("bits are the kernels' promise")
    x0, t, _ = inputs(shape, dtype, target.device)
    ids = torch.arange(shape[0], device=target.device) * 3 - 1
    options = {"sample_ids": ids, "stream": 2**31}
    assert torch.equal(ops.q_sample(x0, t, SCHEDULE, -9, **options), by_contract(x0, t, -9, **options))


def test_hidden_channels(target):
    x0, t, mask = inputs((4, 9, 11, 11), device=target.device)
    plain = ops.q_sample(x0, t, SCHEDULE, 3)
    zero = ops.q_sample(x0, t, SCHEDULE, 3, channel_mask=mask)
    noise = ops.q_sample(x0, t, SCHEDULE, 3, channel_mask=mask, mask_mode="noise")
    assert torch.equal(zero[~mask], plain[~mask]) and torch.equal(noise[~mask], plain[~mask])
    assert not zero[mask].any()
    expected = reference.philox_normal(x0.shape, 3, purpose="mask_fill", dtype=torch.float32)[mask.cpu()]
    torch.testing.assert_close(noise[mask].cpu(), expected, rtol=2e-6, atol=1e-6)
    transposed = mask.t().contiguous().t()
    assert torch.equal(ops.q_sample(x0, t, SCHEDULE, 3, channel_mask=transposed), zero)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced", "flipped_batch", "expanded", "one_pixel"])
def test_any_strides(target, layout, dtype):
    x0, t, mask = inputs((3, 20, 13, 17), dtype, target.device)
    other = {
        "channels_last": lambda: x0.to(memory_format=torch.channels_last),
        "transposed": lambda: x0.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": lambda: torch.stack([x0, x0 + 1], -1)[..., 0],
        "flipped_batch": lambda: x0.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "expanded": lambda: x0[:, :1].expand(3, 20, 13, 17),
        "one_pixel": lambda: x0[:, :, :1, :1],
    }[layout]()
    for options in ({}, {"channel_mask": mask, "mask_mode": "noise"}):
        expected = ops.q_sample(other.contiguous(), t, SCHEDULE, 3, **options)
        assert torch.equal(ops.q_sample(other, t, SCHEDULE, 3, **options), expected)
        grads = []
        for x in (other, other.contiguous()):
            leaf = x.detach().requires_grad_()
            out = ops.q_sample(leaf, t, SCHEDULE, 3, **options)
            grads += torch.autograd.grad(
                out, leaf, x0.transpose(2, 3).contiguous().transpose(2, 3)[:, :, : x.shape[2], : x.shape[3]]
            )
        assert torch.equal(*grads)


@pytest.mark.parametrize("mode", [None, "noise"])
def test_a_scenes_pixels_do_not_depend_on_the_tile(target, mode):
    x0, t, mask = inputs((1, 3, 40, 150), device=target.device)
    ids = torch.zeros(1, dtype=torch.int64, device=target.device)
    options = {"sample_ids": ids} | ({} if mode is None else {"channel_mask": mask, "mask_mode": mode})
    scene = ops.q_sample(x0, t, SCHEDULE, 4, **options)
    for y, x, h, w in ((0, 0, 40, 150), (3, 5, 11, 11), (39, 149, 1, 1), (7, 1, 2, 130)):
        origin = torch.tensor([[y, x]], device=target.device)
        tile = x0[:, :, y : y + h, x : x + w]
        assert torch.equal(
            ops.q_sample(tile, t, SCHEDULE, 4, origin=origin, extent=(40, 150), **options),
            scene[:, :, y : y + h, x : x + w],
        )


def test_a_sample_does_not_depend_on_its_batch(target):
    x0, t, _ = inputs((6, 3, 7), device=target.device)
    whole = ops.q_sample(x0, t, SCHEDULE, 4)
    ids = torch.tensor([4, 1], device=target.device)
    assert torch.equal(ops.q_sample(x0[ids], t[ids], SCHEDULE, 4, sample_ids=ids), whole[ids])
    seed, stream = (torch.tensor(v, device=target.device) for v in (4, 0))
    assert torch.equal(ops.q_sample(x0, t, SCHEDULE, seed, stream=stream), whole)
    assert torch.equal(ops.q_sample(x0, t, SCHEDULE.alphas_cumprod, 4), whole)


def test_a_timestep_for_all(target):
    x0, _, _ = inputs((3, 2, 5), device=target.device)
    t = torch.full((3,), 17, device=target.device)
    expected = ops.q_sample(x0, t, SCHEDULE, 4)
    assert torch.equal(ops.q_sample(x0, 17, SCHEDULE, 4), expected)
    assert torch.equal(ops.q_sample(x0, t[0].int(), SCHEDULE, 4), expected)


@pytest.mark.parametrize("value", [-1, 1000])
def test_a_timestep_out_of_range(target, value):
    x0, t, _ = inputs((3, 2, 5), device=target.device)
    t[1] = value
    if target.device == "cpu":
        with pytest.raises(ValueError, match=f"t has {value}; it takes 0 to 999"):
            ops.q_sample(x0, t, SCHEDULE, 4)
    else:
        out = ops.q_sample(x0, t, SCHEDULE, 4)
        assert out[1].isnan().all() and out[[0, 2]].isfinite().all()


def test_is_the_same_for_any_thread_count_and_level(target):
    if target.backend != "cpu":
        pytest.skip("threads and levels are the CPU kernels'")
    from bdgf_fast import _native

    native, before = _native.load(), torch.get_num_threads()
    level = native.cpu_isa()
    x0, t, mask = inputs((3, 5, 83, 101))
    found = []
    try:
        for threads, isa in [(n, level) for n in (1, 2, 3)] + [(1, isa) for isa in native.cpu_isas()]:
            torch.set_num_threads(threads)
            native.set_cpu_isa(isa)
            found.append(ops.q_sample(x0, t, SCHEDULE, 9, channel_mask=mask, mask_mode="noise"))
    finally:
        torch.set_num_threads(before)
        native.set_cpu_isa(level)
    assert all(torch.equal(found[0], x) for x in found[1:])


def test_float64_takes_the_reference():
    x0, t, _ = inputs((2, 3, 4), torch.float64)
    assert backends.choose(OP, "cpu", torch.float64)[0] == "reference"
    x0.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.q_sample(x, t, SCHEDULE, 1), x0)
