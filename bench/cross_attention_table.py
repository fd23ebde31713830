"""Measure cross_attention's kernel against torch's SDPA and write the table by which `ops.cross_attention` chooses.

    python bench/cross_attention_table.py [--threads 2]        (half a minute; keep the machine quiet)

Each entry is SDPA's time over the kernel's, the two timed in turn, for the best instruction set level of this machine (torch would
take it too); the others keep the entries they had.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from conftest import keep_freed_memory  # noqa: E402
from race import race  # noqa: E402

from bdgf_fast import _native, backends, ops  # noqa: E402
from bdgf_fast.ops import _cross_attention_table as module  # noqa: E402

LENGTHS, DEPTHS = (49, 121, 256, 1024), (8, 16, 32, 64)


def measure(dtype: torch.dtype, needs_grad: bool, length: int, depth: int) -> float:
    """SDPA's seconds over the kernel's at (batch, 4, length, depth), some 10^8 products of query and key."""
    batch = max(1, 10**8 // (4 * length**2 * depth))
    made = [torch.randn(batch, 4, length, depth).to(dtype).requires_grad_(needs_grad) for _ in range(4)]
    weight = made.pop().detach()

    def step(function):
        out = function(*made)
        return torch.autograd.grad(out, made, weight) if needs_grad else out

    with backends.use_backend("cpu"):
        calls = {"ours": lambda: step(ops.cross_attention), "sdpa": lambda: step(F.scaled_dot_product_attention)}
        best = race(calls, 0.3, 12)
    return round(best["sdpa"] / best["ours"], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    keep_freed_memory()
    native, table = _native.load(), dict(module.TABLE)
    for dtype in (torch.float32, torch.bfloat16):
        for needs_grad in (False, True):
            key = module.processor(native.cpu_isa()), "float32" if dtype is torch.float32 else "16 bit", needs_grad
            table[key] = {(n, d): measure(dtype, needs_grad, n, d) for n in LENGTHS for d in DEPTHS}
            print(key, table[key], flush=True)
    lines = [f"    {key!r}: {{\n" + "".join(
        "        " + ", ".join(f"({n}, {d}): {rows[n, d]}" for d in DEPTHS) + ",\n" for n in LENGTHS) + "    },\n"
        for key, rows in table.items()]  # fmt: skip
    path = Path(module.__file__)
    head, mark, _ = path.read_text().partition("TABLE: ")
    annotation = "dict[tuple[str, str, bool], dict[tuple[int, int], float]]"
    path.write_text(head + mark + annotation + " = {\n" + "".join(lines).replace("'", '"') + "}\n")


if __name__ == "__main__":
    main()
