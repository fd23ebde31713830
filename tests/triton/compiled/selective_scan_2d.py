"""What is compiled of selective_scan_2d: four directions of a patch, and a shared delta in VMamba's order."""

import torch

from bdgf_fast import ops

REGISTERS = {"selective_scan_fwd": 255, "selective_scan_bwd": 255, "selective_scan_partial_sums": 128}


def _call(side, *, directions=4, order="pixel", shared=False, always=False):
    """`always`: in every dtype, not in float32 alone, where most registers go."""

    def call(dtype):
        if not always and dtype is not torch.float32:
            return
        batch, dim, states = 64, 64, 16
        x = torch.empty(batch, dim, side, side, dtype=dtype, requires_grad=True)
        delta = torch.empty(batch, 1 if shared else directions, dim, side * side, dtype=dtype, requires_grad=True)
        B, C = (torch.empty(batch, directions, states, side * side, dtype=dtype, requires_grad=True) for _ in range(2))
        A = torch.empty(directions, dim, states, requires_grad=True)
        D, bias = (torch.empty(dim, requires_grad=True) for _ in range(2))
        out = ops.selective_scan_2d(x, delta, A, B, C, D, delta_bias=bias, directions=directions, order=order)
        out.backward(torch.empty_like(out))

    return call


CALLS = [_call(7, always=True), _call(8, order="scan", shared=True)]
