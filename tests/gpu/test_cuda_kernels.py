"""What only the chip can show of the CUDA kernels: the CPU's bits, capture into a graph, no wait for the device."""

import pytest
import torch

from bdgf_fast import backends, ops
from bdgf_fast.diffusion import Schedule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif("cuda" not in backends.available("q_sample", "cuda"), reason="the extension was built without CUDA"),
]
SCHEDULE = Schedule.linear()


@pytest.fixture(autouse=True)
def on_cuda_kernels():
    with backends.use_backend("cuda"):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 11, 11), (256, 182, 11, 11), (2, 3, 500, 501), (70_000, 3, 1, 1)])
def test_the_bits_are_the_cpus(shape, dtype):
    t = torch.arange(shape[0]) % 1000
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    with backends.use_backend("cpu"):
        normals = ops.philox_normal(shape, 11, stream=3, dtype=dtype, device="cpu")
        noisy = ops.q_sample(x0, t, SCHEDULE, 11)
    assert torch.equal(ops.philox_normal(shape, 11, stream=3, dtype=dtype, device="cuda").cpu(), normals)
    for memory in (torch.contiguous_format, torch.channels_last):
        there = x0.cuda().contiguous(memory_format=memory)
        assert torch.equal(ops.q_sample(there, t.cuda(), SCHEDULE, 11).cpu(), noisy)


def test_a_training_step_is_captured_into_a_graph():
    """A new seed and new timesteps reach the replay; nothing in the step waits for the device."""
    x0, scale = torch.randn(8, 6, 11, 11, device="cuda"), torch.tensor(0.5, device="cuda", requires_grad=True)
    t, seed = torch.randint(0, 1000, (8,), device="cuda"), torch.tensor(1, device="cuda")
    schedule = SCHEDULE.to(torch.device("cuda"))

    def step():
        noisy = ops.q_sample(x0, t, schedule, seed)
        loss = ops.denoising_loss(noisy * scale, t, schedule, seed, x0=x0, channel_groups=(4, 2)).sum()
        (slope,) = torch.autograd.grad(loss, scale)
        return loss.detach(), slope

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for value in (5, 6):
        seed.fill_(value)
        t.copy_(torch.randint(0, 1000, (8,), device="cuda"))
        graph.replay()
        expected = step()
        assert torch.equal(captured[0], expected[0]) and torch.equal(captured[1], expected[1])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
