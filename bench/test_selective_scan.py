"""selective_scan on the CPU, forward and with backward, against three plain-PyTorch scans and the exp limit."""

import pytest
import torch
from baselines_scan import BASELINES

import bdgf_fast
from bdgf_fast import ops

SHAPES = [(64, 128, 49, 16), (64, 128, 121, 16), (64, 128, 256, 16), (1, 128, 50000, 16), (50000, 32, 4, 16)]


def inputs(batch, dim, length, states, seed=0):
    g = torch.Generator().manual_seed(seed)
    u, delta = torch.randn(batch, dim, length, generator=g), torch.randn(batch, dim, length, generator=g) - 2
    A = -torch.exp(torch.rand(dim, states, generator=g) * 2)
    B, C = torch.randn(batch, states, length, generator=g), torch.randn(batch, states, length, generator=g)
    return u, delta, A, B, C, torch.randn(dim, generator=g)


def gate(arguments, call):
    """Compare a few batch rows with the float64 reference before anything is timed."""
    u, delta, A, B, C, D = arguments
    few = slice(0, min(2, len(u)))
    length = min(u.shape[2], 512)  # a scan is causal: its beginning does not depend on the rest
    cut = [x[few, :, :length].double() for x in (u, delta)] + [A.double()]
    cut += [x[few, :, :length].double() for x in (B, C)] + [D.double()]
    with bdgf_fast.use_backend("reference"):
        expected = ops.selective_scan(*cut, delta_softplus=True)

    def check(result):
        got = result[few, :, :length].double()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())

    return check


def ours(*arguments):
    return ops.selective_scan(*arguments, delta_softplus=True)


CASES = [(shape, who) for shape in SHAPES for who in ("ours", *BASELINES)]


def runnable(shape, who):
    """Baselines that would keep (batch, dim, L, N) several times over, or loop 50,000 times in backward, take minutes."""
    batch, dim, length, states = shape
    if who == "ours":
        return True
    if length > 4096:
        return who == "pscan" or who == "loop"
    return True


cases = pytest.mark.parametrize(
    ("shape", "who"), [c for c in CASES if runnable(*c)], ids=lambda v: "x".join(map(str, v)) if isinstance(v, tuple) else v
)


@cases
def test_forward(measure, shape, who):
    arguments = inputs(*shape)
    scan = ours if who == "ours" else BASELINES[who]
    batch, dim, length, states = shape
    with torch.no_grad():
        measure(lambda: scan(*arguments), group=f"selective_scan fwd {shape}", who=who, check=gate(arguments, scan),
                exp=batch * dim * length * states)


@cases
def test_forward_backward(measure, shape, who):
    arguments = [x.requires_grad_() for x in inputs(*shape)]
    scan = ours if who == "ours" else BASELINES[who]
    batch, dim, length, states = shape
    weight = torch.randn(batch, dim, length, generator=torch.Generator().manual_seed(1))

    def step():
        return torch.autograd.grad(scan(*arguments), arguments, weight)

    measure(step, group=f"selective_scan fwd+bwd {shape}", who=who, exp=2 * batch * dim * length * states,
            check=gradient_gate(arguments, weight))


def gradient_gate(arguments, weight):
    """Gradients of a small leading part against float64, where the part is the whole (per batch row: u and delta)."""
    u, delta, A, B, C, D = arguments
    few = slice(0, min(2, len(u)))
    if u.shape[2] > 4096:
        return lambda gradients: [_finite(g) for g in gradients]
    cut = [x.detach()[few].double().requires_grad_() for x in (u, delta)] + [A.detach().double()]
    cut += [x.detach()[few].double() for x in (B, C)] + [D.detach().double()]
    with bdgf_fast.use_backend("reference"):
        out = ops.selective_scan(*cut, delta_softplus=True)
    expected = torch.autograd.grad(out, cut[:2], weight[few].double())

    def check(gradients):
        for got, want in zip(gradients[:2], expected, strict=True):
            torch.testing.assert_close(got[few].double(), want, rtol=1e-4, atol=2e-5 * want.abs().max().item())

    return check


def _finite(gradient):
    assert torch.isfinite(gradient).all()
