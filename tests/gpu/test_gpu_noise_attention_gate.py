"""Noise, attention and gates on a CUDA device: the CPU's bits, more rows than a grid's y holds, large tiles, memory.

Grids of values are tests/ops; streams, graphs and compilation are test_gpu_runtime.py.
"""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SCHEDULE = Schedule.linear()
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def triton():
    with backends.use_backend("triton"):
        yield


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(DEVICE, dtype)


def _attention(batch, dtype):
    given = {name: randn(batch, 4, 49, 16, dtype=dtype) for name in ("query", "key", "value")}
    mask = torch.ones(batch, 49, dtype=torch.bool, device=DEVICE)
    mask[:, 40:] = False
    return given | {"attn_bias": randn(1, 4, 49, 49)}, lambda **t: ops.cross_attention(**t, key_mask=mask, dropout_p=0.1, seed=3)


def _gate(batch, dtype):
    shapes = {"weight1": (4, 8, 32), "bias1": (4, 8), "weight2": (4, 16, 8), "bias2": (4, 16)}
    given = {"x": randn(batch, 64, 7, 7, dtype=dtype), "guide": randn(batch, 64, 7, 7, dtype=dtype)}
    return given | {k: randn(*s) for k, s in shapes.items()}, lambda **t: ops.group_channel_gate(**t, groups=4)


def _large_gate(batch, dtype):
    shapes = {"weight1": (1, 8, 512), "bias1": (1, 8), "weight2": (1, 256, 8), "bias2": (1, 256)}
    given = {"x": randn(batch, 256, 16, 16, dtype=dtype), "guide": randn(batch, 256, 16, 16, dtype=dtype)}
    return given | {k: randn(*s) for k, s in shapes.items()}, lambda **t: ops.group_channel_gate(**t, groups=1)


def _channel_attention(batch, dtype):
    given = {name: randn(batch, 64, 49, dtype=dtype) for name in ("q", "k", "v")}
    return given | {"temperature": torch.ones(4, device=DEVICE)}, lambda **t: ops.group_channel_attention(**t, groups=4)


def _steps(batch):
    return torch.arange(batch, device=DEVICE) % 1000


def _q_sample(batch, dtype):
    t = _steps(batch)
    return {"x0": randn(batch, 3, 7, 7, dtype=dtype)}, lambda x0: ops.q_sample(x0, t, SCHEDULE, 5, stream=1)


def _loss(batch, dtype):
    given, t = {name: randn(batch, 65, 7, 7, dtype=dtype) for name in ("pred", "x0")}, _steps(batch)
    options = {"t": t, "schedule": SCHEDULE, "seed": 3, "channel_groups": (64, 1), "prediction_type": "v_prediction"}
    return given, lambda **x: ops.denoising_loss(**x, **options)


def _step(batch, dtype):
    given, t = {name: randn(batch, 3, 7, 7, dtype=dtype) for name in ("pred", "sample")}, _steps(batch)
    return given, lambda **x: ops.ddpm_step(**x, t=t, schedule=SCHEDULE, prediction_type="sample", seed=3)


CASES = {
    "cross_attention": _attention, "group_channel_gate": _gate, "a large group_channel_gate": _large_gate,
    "group_channel_attention": _channel_attention, "q_sample": _q_sample, "denoising_loss": _loss, "diffusion_step": _step,
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


def run(given, call):
    """The output and every gradient."""
    leaves = {k: x.detach().requires_grad_() for k, x in given.items()}
    out = call(**leaves)
    return [out.detach(), *torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out))]


@dtypes
def test_normals_have_the_cpus_bits(dtype):
    ids = torch.arange(70_000) * 3 - 1
    origin = torch.stack([torch.arange(70_000) - 7, torch.arange(70_000) % 991], 1)
    for options in ({}, {"sample_ids": ids, "origin": origin, "extent": (80_000, 1000)}):
        found = []
        for device, backend in ((DEVICE, "triton"), ("cpu", "cpu")):
            there = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
            with backends.use_backend(backend):
                found.append(ops.philox_normal((70_000, 3, 3, 7), -5, stream=9, dtype=dtype, device=device, **there).cpu())
        assert torch.equal(*found)


@dtypes
@pytest.mark.parametrize("mode", [None, "zero", "noise"])
def test_q_sample_has_the_cpus_bits(dtype, mode):
    x0, t = randn(300, 64, 11, 11, dtype=dtype), _steps(300)
    hidden = torch.rand(300, 64, generator=torch.Generator().manual_seed(0)) < 0.4
    for laid in (x0, x0.to(memory_format=torch.channels_last)):
        found = []
        for device, backend in ((DEVICE, "triton"), ("cpu", "cpu")):
            options = {} if mode is None else {"channel_mask": hidden.to(device), "mask_mode": mode}
            with backends.use_backend(backend):
                found.append(ops.q_sample(laid.to(device), t.to(device), SCHEDULE, 2**63 + 1, **options).cpu())
        assert torch.equal(*found)


@cases
@dtypes
def test_more_than_65535_rows(case, dtype):
    """The last samples of a large batch are those of a small one, where they are not counted; all are finite."""
    if case == "a large group_channel_gate":
        pytest.skip("its rows are channels")
    given, call = CASES[case](70_000, dtype)
    few = {k: x[-3:] if x.shape[0] == 70_000 else x for k, x in given.items()}
    with torch.no_grad():
        out = call(**given)
        assert out.isfinite().all()
        if case in ("group_channel_gate", "group_channel_attention"):  # the others count their samples
            torch.testing.assert_close(out[-3:], call(**few), rtol=0, atol=0)
    assert all(x.isfinite().all() for x in run(given, call))


@cases
@dtypes
def test_the_same_on_repeat(case, dtype):
    given, call = CASES[case](129, dtype)
    first = run(given, call)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, run(given, call), strict=True))


def test_a_seed_in_a_cuda_graph():
    seed, stream = (torch.zeros((), dtype=torch.int64, device=DEVICE) for _ in range(2))
    ops.philox_normal((64, 100), seed, stream=stream, dtype=torch.float32)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = ops.philox_normal((64, 100), seed, stream=stream, dtype=torch.float32)
    for value in (3, 2**40 + 1):
        seed.fill_(value)
        stream.fill_(value + 1)
        graph.replay()
        assert torch.equal(out, ops.philox_normal((64, 100), value, stream=value + 1, dtype=torch.float32, device=DEVICE))


@cases
@pytest.mark.parametrize("dtype", [torch.float16])
def test_memory(case, dtype):
    """Beyond inputs, outputs and gradients at most 32 MiB or 10 %."""
    given, call = CASES[case](2048, dtype)
    run(given, call)
    leaves = {k: x.detach().requires_grad_() for k, x in given.items()}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = call(**leaves)
    grads = torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out))
    torch.cuda.synchronize()
    made = sum(x.numel() * x.element_size() for x in (out, *grads)) + out.numel() * out.element_size()
    moved = made + sum(x.numel() * x.element_size() for x in leaves.values())
    assert torch.cuda.max_memory_allocated() - before - made <= max(32 << 20, moved // 10)


@dtypes
@pytest.mark.parametrize("shape", [(49, 49, 16), (121, 121, 32), (256, 256, 32), (300, 70, 64), (130, 140, 128)])
def test_attention_against_float64(check_gradients, shape, dtype):
    rows, columns, depth = shape
    given = {"query": randn(3, 2, rows, depth, dtype=dtype)}
    given |= {name: randn(3, 2, columns, depth, dtype=dtype) for name in ("key", "value")}
    mask = torch.rand(3, columns, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    bias = randn(1, 2, rows, columns)
    check_gradients(
        lambda **t: ops.cross_attention(**t, key_mask=mask.to(DEVICE), dropout_p=0.1, seed=5),
        lambda **t: reference.cross_attention(**t, key_mask=mask, dropout_p=0.1, seed=5),
        given | {"attn_bias": bias},
    )


def test_a_timestep_out_of_range_is_nan():
    t = torch.tensor([3, 1000, -1], device=DEVICE)
    for out in (
        ops.q_sample(randn(3, 2, 5), t, SCHEDULE, 1),
        ops.denoising_loss(randn(3, 2, 5), t, SCHEDULE, 1, channel_groups=(2,)),
        ops.ddpm_step(randn(3, 2, 5), t, randn(3, 2, 5), SCHEDULE, prediction_type="sample"),
    ):
        assert out[0].isfinite().all() and out[1:].isnan().all()
