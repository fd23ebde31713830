"""Ours against baselines, call by call in turn.

Turns make a busy moment hit everyone alike; the minimum of each is compared. `wanted` is the ratio (the fastest
baseline over ours) aimed at: the summary shows where it is missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from bdgf_fast import _native


def race(calls: Mapping[str, Callable[[], object]], seconds: float = 3.0, rounds: int = 40) -> dict[str, float]:
    """Fewest seconds of each call, over `rounds` turns or as many as `seconds` allow (at least three)."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    for turn in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() > end:
            break
    return best


def rates() -> tuple[float, float]:
    """f32 operations per second of a 1024^3 torch.mm and exps per second of our vector exp, now."""
    a, b, out = torch.rand(1024, 1024), torch.rand(1024, 1024), torch.empty(1024, 1024)
    seconds = race({"mm": lambda: torch.mm(a, b, out=out)}, 0.3)["mm"]
    exp = max(_native.load().bench_exp(torch.get_num_threads(), 60_000) for _ in range(3))
    return 2 * 1024**3 / seconds, exp


def report(benchmark, group: str, best: Mapping[str, float], **facts) -> None:
    """Put a race into the benchmark's JSON (its own timing is one call of nothing)."""
    benchmark.group = group
    benchmark.extra_info.update({f"{name}_ms": 1e3 * value for name, value in best.items()}, **facts)
    benchmark.pedantic(lambda: None, rounds=1)
    figures = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in best.items())
    print(f"\n{group}: {figures}, " + ", ".join(f"{k} {v:.2f}" for k, v in facts.items()))
