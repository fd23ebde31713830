"""selective_scan_2d on the CPU against gathered copies around our own scan: time, and memory beyond inputs and outputs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from race import race, rates, report

import bdgf_fast
from bdgf_fast import ops

BATCH, DIM, HEIGHT, WIDTH, STATES = SHAPE = (64, 96, 11, 11, 16)
LENGTH = HEIGHT * WIDTH


def inputs(batch=BATCH):
    """x, delta, A, B, C, D; delta, B and C in the order in which each direction visits the pixels."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    A = -torch.exp(torch.rand(4, DIM, STATES, generator=g) * 2)
    B, C = normal(batch, 4, STATES, LENGTH), normal(batch, 4, STATES, LENGTH)
    return normal(batch, DIM, HEIGHT, WIDTH), normal(batch, 4, DIM, LENGTH) - 2, A, B, C, normal(4, DIM)


def ours(x, delta, A, B, C, D):
    return ops.selective_scan_2d(x, delta, A, B, C, D, order="scan")


def gathered(x, delta, A, B, C, D):
    """VMamba's way: four copies of x in scan order, one scan over 4 dim channels, four copies of y merged."""
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    copies = torch.stack([rows, columns, rows.flip(2), columns.flip(2)], 1)
    y = ops.selective_scan(
        copies.flatten(1, 2), delta.flatten(1, 2), A.flatten(0, 1), B, C, D.flatten(), delta_softplus=True
    ).view_as(copies)
    by_rows, by_columns = y[:, 0] + y[:, 2].flip(2), y[:, 1] + y[:, 3].flip(2)
    return by_rows.view_as(x) + by_columns.view(*x.shape[:2], WIDTH, HEIGHT).transpose(2, 3)


def step(scan, arguments, weight):
    out = scan(*arguments)
    return [out] if weight is None else [out, *torch.autograd.grad(out, arguments, weight)]


def extra_mib(scan: str, backward: bool) -> float:
    """The peak of a call in a fresh process, less what it returns."""
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.run(
        [sys.executable, __file__, scan, str(int(backward)), str(torch.get_num_threads())],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(run.stdout)


def measure_memory(scan, backward):
    def status(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    arguments = [x.requires_grad_(backward) for x in inputs()]
    weight = torch.ones(BATCH, DIM, HEIGHT, WIDTH) if backward else None
    step(scan, arguments, weight)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    results = step(scan, arguments, weight)
    return status("VmHWM") - before - sum(x.numel() * x.element_size() for x in results) / 2**20


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward_backward"])
def test_four_directions(benchmark, backward):
    few = [x.double() if x.dim() < 4 else x[:2].double() for x in inputs()]
    with bdgf_fast.use_backend("reference"):
        expected = ours(*few)
    arguments = inputs()
    for scan in (ours, gathered):
        torch.testing.assert_close(scan(*arguments)[:2].double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    arguments = [x.requires_grad_(backward) for x in arguments]
    weight = torch.randn(BATCH, DIM, HEIGHT, WIDTH) if backward else None
    for mine, theirs in zip(*(step(scan, arguments, weight) for scan in (ours, gathered)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())

    best = race({"ours": lambda: step(ours, arguments, weight), "gathered copies": lambda: step(gathered, arguments, weight)}, 3)
    exps = (1 + backward) * 4 * BATCH * DIM * LENGTH * STATES
    memory = {f"{name}_extra_mib": extra_mib(scan, backward) for name, scan in (("ours", "ours"), ("theirs", "gathered"))}
    what = "fwd+bwd" if backward else "fwd"
    report(benchmark, f"selective_scan_2d {what} {SHAPE}, 4 directions", best, wanted=1.5,
           exp_share=exps / best["ours"] / rates()[1], **memory)  # fmt: skip


if __name__ == "__main__":
    name, backward, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(measure_memory({"ours": ours, "gathered": gathered}[name], bool(int(backward))))
