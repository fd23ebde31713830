"""What some Triton kernels execute for one shape each on sm_90 under the Triton that Python finds: JSON on standard output.

test_executed.py runs this in a process of its own for each version of Triton.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench/gpu"))
import launches  # noqa: E402
import predict  # noqa: E402
import triton_launches  # noqa: E402

OTHERS = ("causal_conv1d (1024, 128, 49) float32", "cross_attention (1024, 8, 49, 16) float32")


def main() -> None:
    import torch
    import triton

    every = triton_launches.cases()
    cases = {name: every[name] for name in OTHERS}
    for dtype in (torch.float32, torch.bfloat16):  # so many rows that every program has one
        cases |= launches.scan_case(64, 128, 49, 16, dtype)
    rows, kernels = triton_launches.record(cases)
    found = {f"{row['case']} {row['direction']}": predict.instructions_per_unit(predict.row_of(row, kernels)) for row in rows}
    local = sorted({k.name for k in kernels.values() if k.stack or k.local})
    print(json.dumps({"triton": triton.__version__, "instructions": found, "local memory": local}))


if __name__ == "__main__":
    main()
