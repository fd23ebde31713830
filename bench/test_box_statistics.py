"""box_statistics on the CPU against averages by avg_pool2d, forward and with backward.

The limit is the machine's copy bandwidth."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends, ops, reference

# shape, radii, channels-last
CASES = [((1, 144, 202, 202), [5], False), ((1, 15, 228, 228), [2, 5, 6, 18], False), ((1, 64, 202, 202), [5], True)]


def _map(shape, last):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last) if last else x


def _name(direction, shape, radii, last):
    return f"box_statistics {direction} {shape} {radii}{' channels-last' if last else ''}"


@pytest.mark.parametrize(("shape", "radii", "last"), CASES, ids=str)
def test_forward(benchmark, shape, radii, last):
    x = _map(shape, last)

    def run(backend, x=x):
        with backends.use_backend(backend):
            return ops.box_statistics(x, radii)

    few = x[:, :3]
    torch.testing.assert_close(run("cpu", few).double(), reference.box_statistics(few.double(), radii), rtol=1e-4, atol=1e-5)
    moved = x.nbytes + run("cpu").nbytes
    best = race({"ours": lambda: run("cpu"), "avg_pool2d": lambda: run("reference")})
    report(
        benchmark, _name("fwd", shape, radii, last), best, ratio=best["avg_pool2d"] / best["ours"], copy_bytes=moved, wanted=15.0,
    )  # fmt: skip
    assert best["avg_pool2d"] >= best["ours"]


@pytest.mark.parametrize(("shape", "radii", "last"), [((8, 64, 50, 50), [5], True), ((8, 15, 50, 50), [2, 5], False)], ids=str)
def test_forward_backward(benchmark, shape, radii, last):
    x = _map(shape, last).requires_grad_()

    def step(backend, x=x):
        with backends.use_backend(backend):
            out = ops.box_statistics(x, radii)
        return out, *torch.autograd.grad(out, x, torch.ones_like(out))

    few = x.detach()[:1, :3].requires_grad_()
    for got, want in zip(step("cpu", few), step("reference", few.detach().double().requires_grad_()), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
    best = race({"ours": lambda: step("cpu"), "avg_pool2d": lambda: step("reference")})
    report(benchmark, _name("fwd+bwd", shape, radii, last), best, ratio=best["avg_pool2d"] / best["ours"])
    assert best["avg_pool2d"] >= best["ours"]
