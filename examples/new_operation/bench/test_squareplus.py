"""squareplus on the CPU against the plain formula, forward and with backward."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends, ops


@pytest.mark.parametrize("n", [1 << 16, 1 << 22])
def test_forward_backward(benchmark, n):
    x = torch.randn(n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.ones(n)

    def step(backend, x=x, grad=grad):
        with backends.use_backend(backend):
            out = ops.squareplus(x)
        return out, *torch.autograd.grad(out, x, grad)

    few = x.detach()[:999].requires_grad_()
    exact = few.detach().double().requires_grad_()
    for got, want in zip(step("cpu", few, grad[:999]), step("reference", exact, grad[:999].double()), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    best = race({"ours": lambda: step("cpu"), "plain": lambda: step("reference")})
    report(benchmark, f"squareplus fwd+bwd {n}", best, ratio=best["plain"] / best["ours"])
    assert best["plain"] >= best["ours"]
