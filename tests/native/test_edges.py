"""Every operation on the CPU kernels at the edges of what it takes: strides past 31 bits, odd memory, subnormal numbers, infinities
and NaN in every input, steps that underflow, sizes past a kernel's limits, length 1, worker processes."""

from __future__ import annotations

import math
import mmap
import tempfile

import pytest
import torch
from levels import LEVELS, level

from bdgf_fast import backends, ops
from bdgf_fast.diffusion import Schedule

SCHEDULE = Schedule.linear(50)
T = torch.tensor([3, 40])
NOISE = {"t": T, "schedule": SCHEDULE, "seed": 7}
LOSS = NOISE | {"channel_groups": (1, 2), "prediction_type": "v_prediction"}
STEP = {"t": T, "schedule": SCHEDULE, "prediction_type": "epsilon", "seed": 4}


def scan(**x):
    return ops.selective_scan(**x, delta_softplus=True)


# operation -> (call, shapes of its inputs with 2 samples and an odd length of 1 or more)
CASES = {
    "selective_scan": (scan, lambda n: {"u": (2, 5, n), "delta": (2, 5, n), "A": (5, 3), "B": (2, 3, n), "C": (2, 3, n),
                                        "D": (5,), "z": (2, 5, n), "delta_bias": (5,), "initial_state": (2, 5, 3)}),
    "selective_scan_2d": (lambda **x: ops.selective_scan_2d(**x), lambda n: {
        "x": (2, 5, 1, n), "delta": (2, 4, 5, n), "A": (4, 5, 3), "B": (2, 4, 3, n), "C": (2, 4, 3, n), "D": (5,)}),
    "causal_conv1d": (lambda **x: ops.causal_conv1d(**x, activation="silu"), lambda n: {
        "x": (2, 5, n), "weight": (5, 3), "bias": (5,)}),
    "box_statistics": (lambda x: ops.box_statistics(x, [1]), lambda n: {"x": (2, 3, 3, n + 2)}),
    "group_channel_gate": (lambda **x: ops.group_channel_gate(**x, groups=2), lambda n: {
        "x": (2, 6, 1, n), "guide": (2, 4, n, 1), "weight1": (2, 3, 5), "bias1": (2, 3), "weight2": (2, 3, 3), "bias2": (2, 3)}),
    "group_channel_attention": (lambda **x: ops.group_channel_attention(**x, groups=2), lambda n: {
        "q": (2, 6, n), "k": (2, 6, n), "v": (2, 6, n), "temperature": (2,)}),
    "cross_attention": (lambda **x: ops.cross_attention(**x), lambda n: {
        "query": (2, 3, n, 5), "key": (2, 3, n, 5), "value": (2, 3, n, 5), "attn_bias": (1, 3, n, n)}),
    "q_sample": (lambda **x: ops.q_sample(**x, **NOISE), lambda n: {"x0": (2, 3, 1, n)}),
    "denoising_loss": (lambda **x: ops.denoising_loss(**x, **LOSS), lambda n: {"pred": (2, 3, 1, n), "x0": (2, 3, 1, n)}),
    "ddpm_step": (lambda **x: ops.ddpm_step(**x, **STEP, clip_sample=True), lambda n: {"pred": (2, 3, n), "sample": (2, 3, n)}),
    "ddim_step": (lambda **x: ops.ddim_step(**x, **STEP, eta=0.5), lambda n: {"pred": (2, 3, n), "sample": (2, 3, n)}),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES)


def inputs(case, n=19, seed=0):
    g = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=g) for name, shape in CASES[case][1](n).items()}
    return found | ({"A": -found["A"].abs()} if "A" in found else {})


def forced(case, backend):
    """The operation on one backend."""

    def run(**tensors):
        with backends.use_backend(backend):
            return CASES[case][0](**tensors)

    return run


def compare(check_gradients, case, given):
    check_gradients(forced(case, "cpu"), forced(case, "reference"), given)


@pytest.mark.parametrize("isa", LEVELS)
@cases
def test_length_one(check_gradients, case, isa):
    with level(isa):
        compare(check_gradients, case, inputs(case, 1))


@cases
def test_strides_past_31_bits(check_gradients, case, tmp_path):
    """The axis before the last takes steps of 2^31 + 3 elements through memory of which only those pages exist."""
    given = inputs(case)
    name = next(iter(given))
    x, far = given[name], 2**31 + 3
    lines = x.shape[-2] if x.shape[-2] > 1 else x.shape[1]
    with tempfile.TemporaryFile(dir=tmp_path) as file:  # a file of holes
        file.truncate(4 * (lines * far + 4 * x.numel()))
        room = mmap.mmap(file.fileno(), 0)
    stride = list(x.stride())
    stride[-2 if x.shape[-2] > 1 else 1] = far
    strided = torch.frombuffer(room, dtype=torch.float32).as_strided(x.shape, stride)
    strided.copy_(x)
    compare(check_gradients, case, given | {name: strided})


def test_negative_steps_and_arrays_are_refused():
    array = torch.randn(2, 4, 9).numpy()[:, :, ::-1]
    with pytest.raises(TypeError, match="x is ndarray; it takes a tensor"):
        ops.causal_conv1d(array, torch.randn(4, 3))
    with pytest.raises(ValueError, match="negative"):  # torch itself has no such views
        torch.from_numpy(array)
    x, weight = torch.randn(2, 4, 9), torch.randn(4, 3)
    with backends.use_backend("cpu"):  # torch's dispatcher settles a negation that is only noted
        assert torch.equal(ops.causal_conv1d(torch._neg_view(x), weight), ops.causal_conv1d(-x, weight))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("case", ["causal_conv1d", "group_channel_gate", "group_channel_attention", "cross_attention", "q_sample"])
def test_subnormal_numbers_are_numbers(case, isa):
    """What the result is linear in, at 1e-40."""
    given = inputs(case)
    linear = {"causal_conv1d": "x", "group_channel_gate": "x", "group_channel_attention": "v", "cross_attention": "value",
              "q_sample": "x0"}[case]  # fmt: skip
    given[linear] = given[linear] * 1e-40
    if case == "causal_conv1d":
        given = {"x": given["x"], "weight": given["weight"]}
    options = {"channel_mask": torch.zeros(2, 3, dtype=torch.bool), "t": torch.tensor([0, 0]), "schedule": torch.ones(1), "seed": 1}
    call = {"causal_conv1d": ops.causal_conv1d, "q_sample": lambda **x: ops.q_sample(**x, **options)}.get(case, CASES[case][0])
    with level(isa), backends.use_backend("cpu"):
        got = call(**given)
    with backends.use_backend("reference"):
        want = call(**{k: x.double() for k, x in given.items()})
    assert 0 < want.abs().max() < 1e-37
    torch.testing.assert_close(got.double() * 1e40, want * 1e40, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@cases
def test_infinity_and_nan_arrive_where_the_reference_has_them(case, value):
    for name, x in inputs(case).items():
        if name == "A" and value == math.inf:
            continue  # a state that grows without bound: inf in one sum, NaN in another
        given = inputs(case)
        given[name].view(-1)[x.numel() // 2] = value
        with torch.no_grad():
            got = forced(case, "cpu")(**given)
            want = forced(case, "reference")(**{k: x.double() for k, x in given.items()})
        assert torch.equal(got.isfinite(), want.isfinite()), name
        assert torch.equal(got.isnan(), want.isnan()), name


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("size", [90.0, 1e4, 1e30])
@pytest.mark.parametrize("case", ["selective_scan", "selective_scan_2d"])
def test_steps_so_large_that_the_decay_underflows(check_gradients, case, size, isa):
    """exp(delta A) is 0, and nothing of the state before is left; B 1 / delta keeps the drive in range."""
    given = inputs(case)
    given["delta"] = given["delta"].abs() * size + size
    given["A"] = given["A"] - 1.0
    given["B"] = given["B"] / size
    with level(isa):
        compare(check_gradients, case, given)


def test_sizes_past_the_kernels_limits_take_the_general_path(check_gradients):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 160, generator=g) for _ in range(3))
    with pytest.raises(ValueError, match="depth is 160; the kernel takes up to 128"), backends.use_backend("cpu"):
        ops.cross_attention(q, k, v)
    deep = {"query": q, "key": k, "value": v}
    check_gradients(CASES["cross_attention"][0], forced("cross_attention", "reference"), deep)
    wide = {name: torch.randn(1, 300, 7, generator=g) for name in "qkv"}
    with pytest.raises(ValueError, match="a group has 300 channels"), backends.use_backend("cpu"):
        ops.group_channel_attention(**wide, temperature=1.0, groups=1)
    got = ops.group_channel_attention(**wide, temperature=1.0, groups=1)
    with backends.use_backend("reference"):
        want = ops.group_channel_attention(**{n: x.double() for n, x in wide.items()}, temperature=1.0, groups=1)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    many = {"u": (1, 3, 6), "delta": (1, 3, 6), "A": (3, 300), "B": (1, 300, 6), "C": (1, 300, 6)}
    given = {name: torch.randn(shape, generator=g) for name, shape in many.items()}
    given["A"] = -given["A"].abs()
    check_gradients(scan, forced("selective_scan", "reference"), given)


class Steps(torch.utils.data.Dataset):
    """Each operation and its gradients."""

    def __len__(self):
        return len(CASES)

    def __getitem__(self, i):
        case = list(CASES)[i]
        leaves = {name: x.requires_grad_() for name, x in inputs(case, 33).items()}
        out = forced(case, "cpu")(**leaves)
        return torch.cat([x.flatten() for x in (out.detach(), *torch.autograd.grad(out.sum(), list(leaves.values())))])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers_make_whole_steps():
    want = [Steps()[i] for i in range(len(CASES))]  # the parent has used threads by now
    loader = torch.utils.data.DataLoader(Steps(), None, num_workers=2, timeout=120, multiprocessing_context="fork")
    for got, expected in zip(loader, want, strict=True):
        assert torch.equal(got, expected)
