"""A kernel with more live values than registers: what test_compile must be able to see."""

import torch
import triton
import triton.language as tl
from bdgf_fast.triton_kernels._launch import Launch


@triton.jit
def spilling(x, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    kept = tl.load(x + at)
    total = kept
    for i in range(8):
        total = total * kept + tl.load(x + BLOCK * i + at)
        tl.debug_barrier()
    tl.store(x + at, total * kept)


LAUNCH = Launch(spilling, 1, {"x": torch.zeros(1), "BLOCK": 8192},
                {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True})  # fmt: skip
