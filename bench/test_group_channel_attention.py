"""group_channel_attention on the CPU against the plain definition run eagerly, forward and with backward."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends, ops

# batch, C, L, groups, smallest ratio forward and backward
CASES = [(64, 64, 121, 8, 1.0), (256, 64, 121, 8, 4.0), (256, 64, 49, 8, 1.0), (64, 256, 256, 8, 1.0), (16, 128, 1024, 4, 0.95)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[:4])))
def test_forward_backward(benchmark, case):
    batch, channels, length, groups, wanted = case
    g = torch.Generator().manual_seed(0)
    q, k, v, weight = (torch.randn(batch, channels, length, generator=g) for _ in range(4))
    tensors = [t.requires_grad_() for t in (q, k, v, torch.ones(groups))]

    def step(backend, inputs=tensors, grad=weight):
        with backends.use_backend(backend):
            out = ops.group_channel_attention(*inputs, groups=groups)
        return out, *torch.autograd.grad(out, inputs, grad)

    few = [t.detach()[:4].requires_grad_() if t.dim() == 3 else t for t in tensors]
    exact = [t.detach().double().requires_grad_() for t in few]
    for got, want in zip(step("cpu", few, weight[:4]), step("reference", exact, weight[:4].double()), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
    best = race({"ours": lambda: step("cpu"), "eager": lambda: step("reference")})
    ratio = best["eager"] / best["ours"]
    moved = 4 * (4 + 7) * q.numel()  # forward q, k, v and out; backward q, k, v, grad and three gradients
    report(benchmark, f"group_channel_attention fwd+bwd {case[:4]}", best, ratio=ratio, copy_bytes=moved, wanted=wanted)
