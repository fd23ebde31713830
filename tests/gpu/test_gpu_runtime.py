"""What only a CUDA runtime shows, for every operation and kernel: streams, graphs, repetition, compilation, memory.

The grids of values and gradients are the tests of tests/ops, which run on CUDA tensors too: `pytest -m gpu` selects both.
"""

from __future__ import annotations

import pytest
import torch
from ops.test_library import CASES

from bdgf_fast import backends, ops
from bdgf_fast.nn import SS2D, Mamba

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

OPERATION = {"scan": "selective_scan", "scan_2d": "selective_scan_2d", "conv": "causal_conv1d", "boxes": "box_statistics",
             "gate": "group_channel_gate", "channel_attention": "group_channel_attention", "attention": "cross_attention",
             "noising": "q_sample", "loss": "denoising_loss", "step": "diffusion_step"}  # fmt: skip
# Every case with every kernel that this installation has for it; one row that says so where there is none.
KERNELS = [(case, name) for case in CASES for name in backends.available(OPERATION[case], "cuda") if name in ("cuda", "triton")]
kernels = pytest.mark.parametrize(("case", "backend"), KERNELS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
PARAMETERS = ("A", "D", "delta_bias", "initial_state", "weight", "bias", "weight1", "bias1", "weight2", "bias2", "temperature",
              "attn_bias", "weights")  # fmt: skip


def to_cuda(value):
    if isinstance(value, torch.Tensor):
        return value.cuda()
    return value.to("cuda") if hasattr(value, "sqrt_alphas_cumprod") else value


def prepared(case, dtype=torch.float32):
    """(leaves on the GPU, call): parameters stay float32, what the case keeps to itself moves along."""
    tensors, call = CASES[case](torch.float32)
    for cell in call.__closure__ or ():
        if isinstance(cell.cell_contents, dict):
            cell.cell_contents = {k: to_cuda(v) for k, v in cell.cell_contents.items()}
        elif isinstance(cell.cell_contents, torch.Tensor):
            cell.cell_contents = cell.cell_contents.cuda()
    leaves = {k: (x if k in PARAMETERS else x.to(dtype)).cuda().requires_grad_() for k, x in tensors.items()}
    return leaves, call


def run(leaves, call):
    """Outputs and gradients of one step."""
    found = call(**leaves)
    outputs = [x for x in (found if isinstance(found, tuple) else (found,)) if x.is_floating_point()]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), [torch.ones_like(x) for x in outputs], allow_unused=True)
    return [x.detach() for x in outputs] + [g for g in gradients if g is not None]


def assert_same(found, expected):
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@kernels
@dtypes
def test_repetition_side_stream_and_graph(case, backend, dtype):
    """Bitwise the same on repeat, on another stream, and replayed from a CUDA graph with new inputs."""
    leaves, call = prepared(case, dtype)
    with backends.use_backend(backend):
        expected = run(leaves, call)
        for _ in range(3):
            assert_same(run(leaves, call), expected)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            on_side = run(leaves, call)
            run(leaves, call)
        torch.cuda.current_stream().wait_stream(side)
        assert_same(on_side, expected)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run(leaves, call)
        for x in captured:
            x.fill_(float("nan"))
        graph.replay()
        assert_same(captured, expected)
        with torch.no_grad():
            first = next(iter(leaves.values()))
            first.mul_(0.5)
        graph.replay()
        assert_same(captured, run(leaves, call))


@kernels
def test_compiles_without_a_graph_break(case, backend):
    leaves, call = prepared(case)
    with backends.use_backend(backend):
        expected = call(**leaves)
        torch._dynamo.reset()
        found = torch.compile(lambda x: call(**x), fullgraph=True, backend="aot_eager")(leaves)
    pairs = zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_without_the_extension_cuda_tensors_go_to_triton():
    for op in OPERATION.values():
        if "triton" in backends.available(op, "cuda") and "cuda" not in backends.available(op, "cuda"):
            assert backends.choose(op, "cuda", torch.float32)[0] == "triton", op


@pytest.mark.parametrize("block", ["mamba", "ss2d"])
def test_a_training_step_in_a_graph(block):
    """Forward, backward and optimiser of a block of ours, captured once and replayed: the parameters of eager steps."""
    torch.manual_seed(0)
    model = (Mamba(32, d_state=8) if block == "mamba" else SS2D(16, d_state=8)).cuda()
    x = torch.randn(4, 20, 32, device="cuda") if block == "mamba" else torch.randn(4, 5, 5, 16, device="cuda")
    start = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)

    def step():
        optimiser.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        optimiser.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimiser.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    model.load_state_dict(start)
    for _ in range(5):
        graph.replay()
    replayed = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(start)
    for _ in range(5):
        step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(replayed[name], value, msg=name)
    for name, value in model.named_parameters():  # a step that rounding swallows changes nothing
        if (1e-2 * value.grad.abs() > 1e-6 * value.abs()).any():
            assert not torch.equal(start[name], value), name


B, D, L, N = 64, 128, 256, 16
MEMORY = {
    "selective_scan": lambda g: [g(B, D, L), g(B, D, L), -g(D, N).abs(), g(B, N, L), g(B, N, L), g(D), g(B, D, L)],
    "selective_scan_2d": lambda g: [g(B, D, 16, 16), g(B, 4, D, L), -g(4, D, N).abs(), g(B, 4, N, L), g(B, 4, N, L), g(D)],
    "causal_conv1d": lambda g: [g(B, D, 4 * L), g(D, 4), g(D)],
    "cross_attention": lambda g: [g(B, 8, 512, 32), g(B, 8, 512, 32), g(B, 8, 512, 32)],
}


@pytest.mark.parametrize("op", MEMORY)
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_peak_memory(op, backend):
    """Workspace inside a call: 32 MiB, or 10 % of inputs, outputs and gradients, by torch's peak counter."""
    if backend not in backends.available(op, "cuda"):
        pytest.skip(f"{op} has no {backend} kernel here")
    inputs = [x.requires_grad_() for x in MEMORY[op](lambda *shape: torch.randn(shape, device="cuda"))]
    options = {"delta_softplus": True} if op == "selective_scan" else {}
    function = getattr(ops, op)
    with backends.use_backend(backend):
        for _ in range(2):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            out = function(*inputs, **options)
            forward = torch.cuda.max_memory_allocated() - before - out.nbytes
            weight = torch.ones_like(out)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            gradients = torch.autograd.grad(out, inputs, weight)
            backward = torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in gradients)
            held = sum(x.nbytes for x in (*inputs, *gradients, out, weight))
            del out, gradients, weight
    limit = max(32 << 20, held // 10) + (1 << 20)  # the allocator rounds
    assert forward <= limit and backward <= limit, (forward, backward, limit)
