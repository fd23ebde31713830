"""Where torch's own attention is faster than the kernel: measured, written by bench/cross_attention_table.py.

(instruction set level, float32 or 16 bit, with backward) -> {(L, d): SDPA's time over the kernel's}. Measured with torch 2.13.0
on two cores of an AMD Zen 5 processor, the rows with amx on an Intel Xeon; without mask, bias and dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LEAST = 0.95  # below it the call goes to torch


def processor(level: str) -> str:
    """The table's name of this processor at a level: matrix tiles (AMX) make torch's bfloat16 products much faster."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return f"{level} amx" if level == "avx512" and tiles() else level


def ratio(level: str | None, bits: str, needs_grad: bool, length: int, depth: int) -> float | None:
    """The entry measured nearest to (length, depth), where torch is the faster one; else None."""
    entries = {} if level is None else TABLE.get((level, bits, needs_grad), {})
    if not any(value < LEAST for value in entries.values()):
        return None  # the sizes are not looked at: compiled code stays free of guards on them
    lengths, depths = (sorted({at[i] for at in entries}) for i in (0, 1))
    value = entries[_nearest(length, lengths), _nearest(depth, depths)]
    return value if value < LEAST else None


def _nearest(size: int, measured: Sequence[int]) -> int:
    """By the ratio of sizes."""
    for low, high in zip(measured, measured[1:], strict=False):
        if size * size <= low * high:
            return low
    return measured[-1]


TABLE: dict[tuple[str, str, bool], dict[tuple[int, int], float]] = {
    ("avx2", "float32", False): {
        (49, 8): 4.8, (49, 16): 3.18, (49, 32): 2.02, (49, 64): 1.47,
        (121, 8): 3.71, (121, 16): 2.32, (121, 32): 1.86, (121, 64): 1.55,
        (256, 8): 2.42, (256, 16): 1.34, (256, 32): 1.24, (256, 64): 1.19,
        (1024, 8): 2.15, (1024, 16): 1.12, (1024, 32): 1.11, (1024, 64): 1.1,
    },
    ("avx2", "float32", True): {
        (49, 8): 4.55, (49, 16): 2.7, (49, 32): 1.89, (49, 64): 1.49,
        (121, 8): 3.32, (121, 16): 1.92, (121, 32): 1.55, (121, 64): 1.36,
        (256, 8): 2.5, (256, 16): 1.32, (256, 32): 1.21, (256, 64): 1.18,
        (1024, 8): 2.73, (1024, 16): 1.34, (1024, 32): 1.23, (1024, 64): 1.17,
    },
    ("avx2", "16 bit", False): {
        (49, 8): 3.6, (49, 16): 2.4, (49, 32): 1.68, (49, 64): 1.29,
        (121, 8): 3.13, (121, 16): 1.98, (121, 32): 1.55, (121, 64): 1.32,
        (256, 8): 2.2, (256, 16): 1.21, (256, 32): 1.09, (256, 64): 1.02,
        (1024, 8): 2.01, (1024, 16): 1.06, (1024, 32): 0.99, (1024, 64): 0.95,
    },
    ("avx2", "16 bit", True): {
        (49, 8): 15.16, (49, 16): 10.35, (49, 32): 6.02, (49, 64): 3.54,
        (121, 8): 7.37, (121, 16): 5.38, (121, 32): 3.37, (121, 64): 2.13,
        (256, 8): 2.65, (256, 16): 2.04, (256, 32): 1.44, (256, 64): 1.11,
        (1024, 8): 1.42, (1024, 16): 1.28, (1024, 32): 0.89, (1024, 64): 0.48,
    },
    ("avx512", "float32", False): {
        (49, 8): 7.46, (49, 16): 5.25, (49, 32): 3.01, (49, 64): 2.16,
        (121, 8): 8.09, (121, 16): 5.21, (121, 32): 4.18, (121, 64): 3.39,
        (256, 8): 6.48, (256, 16): 3.28, (256, 32): 2.87, (256, 64): 2.62,
        (1024, 8): 5.84, (1024, 16): 2.77, (1024, 32): 2.59, (1024, 64): 2.45,
    },
    ("avx512", "float32", True): {
        (49, 8): 5.84, (49, 16): 3.84, (49, 32): 2.53, (49, 64): 2.11,
        (121, 8): 5.22, (121, 16): 3.28, (121, 32): 2.86, (121, 64): 2.44,
        (256, 8): 4.44, (256, 16): 2.43, (256, 32): 2.45, (256, 64): 2.3,
        (1024, 8): 5.22, (1024, 16): 2.7, (1024, 32): 2.67, (1024, 64): 2.35,
    },
    ("avx512", "16 bit", False): {
        (49, 8): 4.5, (49, 16): 4.85, (49, 32): 3.56, (49, 64): 2.63,
        (121, 8): 6.69, (121, 16): 4.65, (121, 32): 3.67, (121, 64): 3.06,
        (256, 8): 5.28, (256, 16): 2.97, (256, 32): 2.66, (256, 64): 2.43,
        (1024, 8): 4.93, (1024, 16): 2.66, (1024, 32): 2.44, (1024, 64): 2.28,
    },
    ("avx512", "16 bit", True): {
        (49, 8): 18.81, (49, 16): 18.32, (49, 32): 10.71, (49, 64): 6.34,
        (121, 8): 16.07, (121, 16): 7.89, (121, 32): 6.87, (121, 64): 4.58,
        (256, 8): 4.66, (256, 16): 5.19, (256, 32): 3.94, (256, 64): 2.76,
        (1024, 8): 5.5, (1024, 16): 2.19, (1024, 32): 3.11, (1024, 64): 0.97,
    },
}
