"""Timing, limits and the results file of the GPU benchmarks: one JSON per GPU, written after every case."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import triton
import triton.language as tl

RESULTS = Path(__file__).parents[1] / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on a CPU the cases can be walked through, not timed


def captured(call: Callable[[], object]) -> Callable[[], object] | None:
    """A CUDA graph's replay of `call`, so that the host's share of a launch is not timed; None where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except Exception:
        torch.cuda.synchronize()
        return None
    return graph.replay


def seconds(call: Callable[[], object], budget: float = 0.15) -> float:
    """Median seconds of a call by CUDA events, with the L2 cache overwritten before each."""
    call()
    if DEVICE == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    rounds = max(5, min(50, int(budget / max(time.perf_counter() - start, 1e-5))))
    flush = torch.empty(64 << 20, dtype=torch.int32, device=DEVICE)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for before, after in events:
        flush.zero_()
        before.record()
        call()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(1e-3 * before.elapsed_time(after) for before, after in events)


def peak_bytes(call: Callable[[], object]) -> int:
    """What a call allocates at most beyond what was there, its results included."""
    if DEVICE == "cpu":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@triton.jit
def _exps(out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = at.to(tl.float32) * 1e-9
    for _ in range(count):
        x = tl.exp2(x) - 1.5
    tl.store(out + at, x)


def limits() -> dict[str, float]:
    """Per second: bytes read plus written by a copy of 1 GiB, exps of a loop of nothing else, f32 operations of a GEMM."""
    source = torch.ones(256 << 20, device=DEVICE)
    target = torch.empty_like(source)
    found = {"copy_bytes": 2 * source.nbytes / seconds(lambda: target.copy_(source), 0.3)}
    programs, block, count = 132 * 64, 512, 256
    out = torch.empty(programs * block, device=DEVICE)
    found["exp"] = programs * block * count / seconds(lambda: _exps[(programs,)](out, count, BLOCK=block, num_warps=4))
    a = torch.randn(4096, 4096, device=DEVICE)
    found["sgemm_flops"] = 2 * 4096**3 / seconds(lambda: a @ a)
    return found


class Results:
    """bench/results/<gpu>.json, complete after every `add`; the folder that RESULTS names gets a copy.

    With `once`, each call is made a single time and nothing is timed: what has to be compiled is compiled.
    """

    def __init__(self, path: Path | None = None, once: bool = False) -> None:
        name = torch.cuda.get_device_name().lower().replace(" ", "-") if DEVICE == "cuda" else "walk-through"
        self.path, self.once = path or RESULTS / f"{name}.json", once
        self.data: dict = {"gpu": name, "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
                           "limits": {}, "benchmarks": []}  # fmt: skip

    def write(self) -> None:
        if self.once:
            return
        for folder in (self.path.parent, *([Path(os.environ["RESULTS"])] if os.environ.get("RESULTS") else [])):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / self.path.name).write_text(json.dumps(self.data, indent=1) + "\n")

    def add(self, group: str, calls: Mapping[str, Callable[[], object]], wanted: float | None = None, **work: float) -> None:
        """Time `calls` ("ours ..." and peers) on the same inputs. `work`: exp, copy_bytes, ... that the group must do.

        "ms" is the time on the GPU (replays of a CUDA graph, where the call can be captured), "eager_ms" that of plain calls.
        """
        row: dict = {"group": group, "wanted": wanted, "ms": {}, "eager_ms": {}, "peak_mb": {}, "failed": {}}
        for who, call in calls.items():
            try:
                if self.once:
                    call()
                    continue
                row["eager_ms"][who] = 1e3 * seconds(call)
                replay = captured(call) if DEVICE == "cuda" else None
                row["ms"][who] = 1e3 * seconds(replay) if replay else row["eager_ms"][who]
                row["peak_mb"][who] = peak_bytes(call) / 2**20
            except Exception as error:  # a wrong result, or a peer that does not take the shape, or does not fit
                row["failed"][who] = f"{type(error).__name__}: {str(error)[:200]}"
            replay = None
            if DEVICE == "cuda":
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
        ours = {who: ms for who, ms in row["ms"].items() if who.startswith("ours")}
        peers = {who: ms for who, ms in row["ms"].items() if who not in ours}
        if ours:
            best = min(ours.values())
            row["ratio"] = min(peers.values()) / best if peers else None
            shares = {unit: amount / (1e-3 * best) / self.data["limits"].get(unit, float("inf")) for unit, amount in work.items()}
            row["share_of_limit"] = max(shares.values(), default=None)
        self.data["benchmarks"].append(row)
        self.write()
        print(group, {k: round(v, 3) for k, v in row["ms"].items()}, "ratio", row.get("ratio"), "share", row.get("share_of_limit"),
              *row["failed"].items(), flush=True)  # fmt: skip


def summary(data: dict) -> str:
    """The results as a Markdown table."""
    lines = ["| operation, shape | ms | ratio to the fastest peer (aim) | share of the limit |", "|---|---|---|---|"]
    for row in data["benchmarks"]:
        times = ", ".join(f"{who} {ms:.3f}" for who, ms in row["ms"].items())
        ratio = f"{row['ratio']:.2f}x" if row.get("ratio") else "-"
        share = f"{100 * row['share_of_limit']:.0f} %" if row.get("share_of_limit") else "-"
        lines.append(f"| {row['group']} | {times} | {ratio} ({row['wanted'] or '-'}) | {share} |")
    return "\n".join(lines)
