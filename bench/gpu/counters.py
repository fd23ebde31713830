"""What one call of each operation executes on the GPU, by the hardware's counters (needs ncu, of Nsight Compute).

    python bench/gpu/counters.py [--out FILE]

Writes one row per kernel: its time under the profiler, warp instructions, bytes of device memory, registers, active warps and
issue slots. The clocks are left alone, so times differ a little from those of run.py; the counts do not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

METRICS = {
    "ns": "gpu__time_duration.sum",
    "warp_instructions": "smsp__inst_executed.sum",
    "special_functions": "smsp__inst_executed_pipe_xu.sum",
    "dram_bytes": "dram__bytes.sum",
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "warps_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "shared_wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "registers": "launch__registers_per_thread",
    "blocks": "launch__grid_size",
    "threads": "launch__block_size",
    "shared_bytes": "launch__shared_mem_per_block",
}


def program() -> None:
    """Every operation once, forward and backward, on each of its GPU backends: what ncu watches."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    import peers

    from bdgf_fast import backends, ops
    from bdgf_fast.diffusion import Schedule

    def randn(*shape, dtype=torch.float32):
        return torch.randn(shape, device="cuda", dtype=dtype)

    def run(op, call, inputs):
        for name in [b for b in backends.available(op, "cuda") if b in ("cuda", "triton")]:
            leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
            with backends.use_backend(name):
                out = call(*leaves)
                if out.requires_grad:
                    torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)
            torch.cuda.synchronize()

    def scan(batch, length, dtype):
        u, delta = randn(batch, 128, length, dtype=dtype), randn(batch, 128, length, dtype=dtype) - 2
        B, C = randn(batch, 16, length, dtype=dtype), randn(batch, 16, length, dtype=dtype)
        return [u, delta, -torch.exp(randn(128, 16)), B, C, randn(128)]

    for length, dtype in ((49, torch.float32), (121, torch.float32), (256, torch.float32), (256, torch.bfloat16)):
        inputs = scan(256, length, dtype)
        run("selective_scan", lambda *x: ops.selective_scan(*x, delta_softplus=True), inputs)
        try:
            peer = peers.build("selective_scan_cuda")
            u, delta, A, B, C, D = inputs
            out, x, *_ = peer.fwd(u, delta, A, B[:, None], C[:, None], D, None, None, True)
            rest = (D, None, None, torch.ones_like(u), x, out, None, True, False)
            peer.bwd(u, delta, A, B[:, None], C[:, None], *rest)
        except Exception as error:
            print(f"without mamba_ssm: {error}", file=sys.stderr)
    side = [randn(256, 128, 16, 16), randn(256, 4, 128, 256) - 2, -torch.exp(randn(4, 128, 16))]
    run("selective_scan_2d", ops.selective_scan_2d, side + [randn(256, 4, 16, 256), randn(256, 4, 16, 256), randn(128)])
    conv = [randn(1024, 128, 49), randn(128, 4), randn(128)]
    run("causal_conv1d", lambda *x: ops.causal_conv1d(*x, "silu"), conv)
    for dtype in (torch.float32, torch.bfloat16):
        run("cross_attention", ops.cross_attention, [randn(1024, 8, 49, 16, dtype=dtype) for _ in range(3)])
        qkv = [randn(1024, 64, 49, dtype=dtype) for _ in range(3)]
        run("group_channel_attention", lambda *x: ops.group_channel_attention(*x, torch.ones(8, device="cuda"), groups=8), qkv)
    for batch, side in ((1024, 7), (512, 16), (128, 32)):
        weights = [randn(4, 8, 64), randn(4, 8), randn(4, 32, 8), randn(4, 32)]
        gate = [randn(batch, 128, side, side), randn(batch, 128, side, side), *weights]
        run("group_channel_gate", lambda *x: ops.group_channel_gate(*x, groups=4), gate)
    schedule, t = Schedule.linear().to(torch.device("cuda")), torch.randint(0, 1000, (1024,), device="cuda")
    run("philox_normal", lambda: ops.philox_normal((1024, 64, 32, 32), 3, device="cuda"), [])
    run("q_sample", lambda x0: ops.q_sample(x0, t, schedule, 3), [randn(1024, 64, 32, 32)])
    run("denoising_loss", lambda p: ops.denoising_loss(p, t, schedule, 3, channel_groups=(64, 1)), [randn(1024, 65, 32, 32)])
    run("box_statistics", lambda x: ops.box_statistics(x, (2, 6, 18)), [randn(4, 64, 256, 256)])


def rows(text: str) -> list[dict]:
    """The rows of ncu's CSV: one per kernel."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('"ID"'))
    found: dict[str, dict] = {}
    for line in csv.DictReader(lines[start:]):
        row = found.setdefault(line["ID"], {"kernel": line["Kernel Name"]})
        name = next((k for k, v in METRICS.items() if v == line["Metric Name"]), None)
        if name is not None:
            value = line["Metric Value"].replace(",", "")
            row[name] = float(value) if value not in ("", "n/a") else None
    return list(found.values())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path(os.environ.get("RESULTS") or "out") / "counters.json")
    arguments.add_argument("--program", action="store_true", help="only make the calls")
    args = arguments.parse_args()
    if args.program:
        program()
        return 0
    command = ["ncu", "--clock-control", "none", "--csv", "--print-units", "base", "--metrics", ",".join(METRICS.values())]
    names = "regex:scan|conv|attention|gate|philox|q_sample|loss|step|statistic|box|sum"
    run = subprocess.run([*command, "-k", names, sys.executable, __file__, "--program"], capture_output=True, text=True)
    try:
        found = rows(run.stdout)
    except StopIteration:
        print(run.stdout[-3000:], run.stderr[-3000:], file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in found:
        print({k: v for k, v in row.items() if v is not None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
