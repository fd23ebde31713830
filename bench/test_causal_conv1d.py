"""causal_conv1d on the CPU against torch's conv1d and silu, forward and with backward, in both layouts."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends, ops

CASES = [(64, 128, 49), (64, 128, 121), (64, 256, 256), (16, 128, 1024), (50000, 32, 4)]


@pytest.mark.parametrize("tokens", [False, True], ids=["BDL", "BLD"])
@pytest.mark.parametrize("shape", CASES, ids=lambda c: "x".join(map(str, c)))
def test_forward_backward(benchmark, shape, tokens):
    batch, dim, length = shape
    g = torch.Generator().manual_seed(0)
    made = [torch.randn((batch, length, dim) if tokens else shape, generator=g) for _ in range(2)]
    x, grad = (t.transpose(1, 2) if tokens else t for t in made)
    tensors = [t.requires_grad_() for t in (x, torch.randn(dim, 4, generator=g), torch.randn(dim, generator=g))]

    def step(backend, inputs=tensors, grad=grad):
        with backends.use_backend(backend):
            out = ops.causal_conv1d(*inputs, "silu")
        return out, *torch.autograd.grad(out, inputs, grad)

    few = [x.detach()[:4].requires_grad_(), *tensors[1:]]
    exact = [t.detach().double().requires_grad_() for t in few]
    for got, want in zip(step("cpu", few, grad[:4]), step("reference", exact, grad[:4].double()), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
    best = race({"ours": lambda: step("cpu"), "conv1d": lambda: step("reference")})
    report(benchmark, f"causal_conv1d fwd+bwd {shape} {'BLD' if tokens else 'BDL'}", best, ratio=best["conv1d"] / best["ours"])
    assert best["conv1d"] >= best["ours"]
