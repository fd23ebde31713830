"""The harness: one run holds ours, the baselines and the limits, on the same inputs, and says so when the machine was busy.

Every case first passes a gate (`check`): a wrong result is never timed. The exp limit is measured before and after; a
run in which the two differ by more than 10 % is marked as disturbed in its JSON, and `summary.py` refuses it.
"""

from __future__ import annotations

import os

# A spinning OpenMP team on a shared core turns a millisecond into many: threads sleep when they wait. Set before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import ctypes  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: else large results are handed back and cleared by the system again at every call,
    ours and the baselines' alike, and the time of that (20 MB: some 3 ms) depends on what ran before."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for any block
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def pytest_configure(config):
    keep_freed_memory()
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    if not getattr(config.option, "collectonly", False):
        import limits

        config.bdgf_limits = limits.measure()


def pytest_benchmark_update_machine_info(config, machine_info):
    import limits

    before, after = config.bdgf_limits, limits.measure()
    drift = abs(after["exp"] / before["exp"] - 1)
    machine_info["bdgf"] = {
        "limits": {name: max(before[name], after[name]) for name in before},
        "before": before,
        "after": after,
        "disturbed": drift > 0.10,
        "exp_limit_counts": max(before["exp"], after["exp"]) >= 2 * max(before["torch_exp"], after["torch_exp"]),
        "load": os.getloadavg(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


@pytest.fixture
def measure(benchmark):
    """measure(call, check=None, group=..., who=..., **facts): gate, then time; facts land in the JSON."""

    def run(call, *, group: str, who: str, check=None, **facts):
        start = time.perf_counter()
        result = call()  # warm-up and the gate's input
        once = time.perf_counter() - start
        if check is not None:
            check(result)
        del result
        slow = once > 2  # baselines of seconds: their one round more is not moved by a millisecond
        if not slow:
            start = time.perf_counter()
            call()
            once = time.perf_counter() - start
        rounds = 1 if slow else max(3, min(40, int(1.5 / max(once, 1e-4))))
        benchmark.group = group
        benchmark.extra_info.update(who=who, **facts)
        benchmark.pedantic(call, rounds=rounds, iterations=max(1, int(2e-4 / max(once, 1e-7))), warmup_rounds=0 if slow else 1)

    return run
