"""The memory a CPU kernel takes inside a call: 1 MiB a thread and 5 % of inputs, outputs and gradients, no more.

Each measurement has a process of its own: warm up, set the peak back through /proc/self/clear_refs, call, read VmHWM.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bdgf_fast import backends

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc/self/clear_refs")

SCRIPT = """
import sys
import torch
from bdgf_fast import backends, ops
from bdgf_fast.diffusion import Schedule

op, backend = sys.argv[1:]
torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(shape, generator=g)


def decay(*shape):
    return -randn(*shape).abs() - 0.5


t = torch.tensor([3, 700] * 16)
schedule = Schedule.linear()
B, D, L, N = 32, 64, 512, 16



def forest():  # 100 trees, each a chain of 199 nodes
    own = torch.arange(199)
    inner = (own % 2 == 0) & (own < 198)
    child = torch.stack([torch.where(inner, own + 1, own), torch.where(inner, own + 2, own)], 1)
    root = 199 * torch.arange(100)
    child = (child + root[:, None, None]).flatten(0, 1)
    feature = torch.randint(300, (19900,), generator=g)
    x, *tables = randn(20000, 300), feature.int(), randn(19900) - 1, child.int(), randn(19900, 13), root.int()
    return [], lambda: ops.decision_forest(x, *tables)


cases = {
    "decision_forest": forest,
    "selective_scan": lambda: (
        [randn(B, D, L), randn(B, D, L), decay(D, N), randn(B, N, L), randn(B, N, L), randn(D), randn(B, D, L),
         randn(D)],
        lambda *a: ops.selective_scan(*a, delta_softplus=True)),
    "selective_scan, a scene": lambda: (
        [randn(1, 128, 50000), randn(1, 128, 50000) - 2, decay(128, N), randn(1, N, 50000), randn(1, N, 50000), randn(128)],
        lambda *a: ops.selective_scan(*a, delta_softplus=True)),
    "selective_scan, a few tokens": lambda: (
        [randn(50000, 32, 4), randn(50000, 32, 4) - 2, decay(32, N), randn(50000, N, 4), randn(50000, N, 4), randn(32)],
        lambda *a: ops.selective_scan(*a, delta_softplus=True)),
    "selective_scan_2d": lambda: (
        [randn(B, D, 16, 32), randn(B, 4, D, L), decay(4, D, N), randn(B, 4, N, L), randn(B, 4, N, L), randn(D)],
        lambda *a: ops.selective_scan_2d(*a)),
    "causal_conv1d": lambda: ([randn(B, D, 4 * L), randn(D, 4), randn(D)], lambda *a: ops.causal_conv1d(*a, "silu")),
    "box_statistics": lambda: ([randn(B, 64, 64, 64)], lambda x: ops.box_statistics(x, [2, 5])),
    "group_channel_gate": lambda: (
        [randn(B, 64, 32, 32), randn(B, 32, 32, 32), randn(4, 8, 24), randn(4, 8), randn(4, 16, 8), randn(4, 16)],
        lambda *a: ops.group_channel_gate(*a, groups=4)),
    "group_channel_attention": lambda: (
        [randn(B, 64, 2048), randn(B, 64, 2048), randn(B, 64, 2048), randn(4).exp()],
        lambda *a: ops.group_channel_attention(*a, groups=4)),
    "cross_attention": lambda: (
        [randn(B, 8, 512, 32), randn(B, 8, 512, 32), randn(B, 8, 512, 32)],
        lambda *a: ops.cross_attention(*a, dropout_p=0.1, seed=3)),
    "philox_normal": lambda: ([], lambda: ops.philox_normal((B, 64, 32, 32), 3)),
    "q_sample": lambda: ([randn(B, 64, 32, 32)], lambda x0: ops.q_sample(x0, t, schedule, 3)),
    "denoising_loss": lambda: (
        [randn(B, 64, 32, 32), randn(B, 64, 32, 32)],
        lambda pred, x0: ops.denoising_loss(
            pred, t, schedule, 3, x0=x0, prediction_type="v_prediction", channel_groups=(32, 32))),
    "diffusion_step": lambda: (
        [randn(B, 64, 32, 32), randn(B, 64, 32, 32)],
        lambda pred, x: ops.ddpm_step(pred, t, x, schedule, prediction_type="epsilon", seed=3, clip_sample=True)),
}
inputs, call = cases[op]()
for x in inputs:
    x.requires_grad_()


def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def run(grad):
    out = call(*inputs)
    return [out, *(torch.autograd.grad(out, inputs, grad) if inputs else ())]


with backends.use_backend(backend):
    out = call(*inputs).detach()
    grad = torch.ones_like(out)
    del out
    run(grad)
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    before = status("VmRSS")
    results = run(grad)
peak = status("VmHWM") - before
bytes_of = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)
print(peak, bytes_of(results), bytes_of(inputs) + bytes_of([grad]))
"""


def measure(op: str, backend: str) -> tuple[float, float]:
    """(bytes taken beyond outputs and gradients, bytes allowed)."""
    # Large blocks go back to the system when they are freed: what was freed before must not hide what is taken now.
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, op, backend], env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    peak, results, inputs = map(int, run.stdout.split())
    return peak - results, 2 * 2**20 + 0.05 * (results + inputs)


EXTREME = ["selective_scan, a scene", "selective_scan, a few tokens"] if "cpu" in backends.available("selective_scan") else []


@pytest.mark.parametrize("op", [*(op for op in backends.operations() if "cpu" in backends.available(op)), *EXTREME])
def test_workspace_of_the_cpu_kernels(op):
    taken, allowed = measure(op, "cpu")
    assert taken <= allowed, f"{op} takes {taken / 2**20:.1f} MiB inside the call; {allowed / 2**20:.1f} MiB are allowed"


def test_the_measurement_sees_a_materialised_tensor():
    """The plain definition of q_sample makes its noise: the same measurement has to say so."""
    taken, allowed = measure("q_sample", "reference")
    assert taken > allowed
