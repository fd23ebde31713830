"""torch's element-wise functions on the CPU, made to give the same bits from their first call on.

torch computes them by Intel MKL's vector functions, and MKL finds each one's kernel on its first call. Where that call
comes from several threads at once, one of them can be given a kernel of low accuracy: half of a tensor's cosines were off by
up to 1.5e-4 in 7 of 97 processes on a loaded machine, in none of 68 with the calls below (torch 2.13.0 with MKL 2024.2;
pytorch/pytorch issue 188792). A call on one element runs on one thread and settles it.
"""

from __future__ import annotations

import torch

# What ATen/cpu/vml.h gives to MKL; erfinv and trunc are there, and harmless.
FUNCTIONS = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip


def settle() -> None:
    """Call each function once, in either precision: about 2 ms."""
    for dtype in (torch.float32, torch.float64):
        x = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(x)
