"""What this machine can do at most: exps, copied bytes and multiply-adds per second. The figures others are divided by."""

from __future__ import annotations

import time

import torch

from bdgf_fast import _native


def _best(call, rounds: int = 7) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def exp_rate() -> float:
    """exps per second of our vector exp looping over a 16 KiB buffer per thread.

    A try takes some 20 ms: in one of a millisecond two threads that woke on one core have not been parted yet, and the rate
    is half of what it is.
    """
    return max(_native.load().bench_exp(torch.get_num_threads(), 60_000) for _ in range(8))


def torch_exp_rate() -> float:
    """exps per second of torch.exp on a tensor that stays in the second-level cache (256 KiB a thread)."""
    x = torch.rand(65536 * torch.get_num_threads())
    out = torch.empty_like(x)
    return x.numel() * 20 / _best(lambda: [torch.exp(x, out=out) for _ in range(20)])


def copy_bandwidth() -> float:
    """Bytes per second read plus written by a copy of 512 MiB."""
    source = torch.ones(128 << 20)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _best(lambda: target.copy_(source), 4)


def sgemm_rate() -> float:
    """f32 operations per second of torch.mm on 1024 x 1024 matrices."""
    a, b, out = torch.rand(1024, 1024), torch.rand(1024, 1024), torch.empty(1024, 1024)
    return 2 * 1024**3 / _best(lambda: torch.mm(a, b, out=out))


def measure() -> dict[str, float]:
    """All limits, in units per second."""
    return {
        "exp": exp_rate(),
        "torch_exp": torch_exp_rate(),
        "copy_bytes": copy_bandwidth(),
        "sgemm_flops": sgemm_rate(),
    }
