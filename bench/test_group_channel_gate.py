"""group_channel_gate on the CPU against the plain definition run eagerly, forward and with backward."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends, ops

# batch, C, side, groups, hidden, channels last, smallest ratio forward and backward
CASES = [
    (64, 64, 11, 4, 8, False, 1.0),
    (256, 64, 11, 4, 8, False, 4.0),
    (256, 64, 11, 4, 8, True, 1.0),
    (256, 128, 7, 4, 16, False, 1.0),
    (64, 256, 32, 8, 8, False, 1.0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[:5])) + ("last" if c[5] else ""))
def test_forward_backward(benchmark, case):
    batch, channels, side, groups, hidden, last, wanted = case
    g = torch.Generator().manual_seed(0)
    images = [torch.randn(batch, channels, side, side, generator=g) for _ in range(3)]
    if last:
        images = [x.contiguous(memory_format=torch.channels_last) for x in images]
    x, guide, weight = images
    each = channels // groups
    shapes = [(groups, hidden, 2 * each), (groups, hidden), (groups, each, hidden), (groups, each)]
    tensors = [t.requires_grad_() for t in (x, guide, *(0.3 * torch.randn(s, generator=g) for s in shapes))]

    def step(backend, inputs=tensors, grad=weight):
        with backends.use_backend(backend):
            out = ops.group_channel_gate(*inputs, groups=groups)
        return out, *torch.autograd.grad(out, inputs, grad)

    few = [t.detach()[:4].requires_grad_() if t.dim() == 4 else t for t in tensors]
    exact = [t.detach().double().requires_grad_() for t in few]
    for got, want in zip(step("cpu", few, weight[:4]), step("reference", exact, weight[:4].double()), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
    best = race({"ours": lambda: step("cpu"), "eager": lambda: step("reference")})
    ratio = best["eager"] / best["ours"]
    moved = 4 * (3 * x.numel() + 5 * x.numel())  # forward x, guide, out; backward grad, x and both gradients, grad again in cache
    report(benchmark, f"group_channel_gate fwd+bwd {case[:6]}", best, ratio=ratio, copy_bytes=moved, wanted=wanted)
