"""What is compiled of selective_scan: the usual shape, and every kernel and option that makes code of its own."""

import torch

from bdgf_fast import ops

REGISTERS = {
    "selective_scan_fwd": 255,
    "selective_scan_bwd": 255,
    "selective_scan_borders": 40,
    "selective_scan_adjoint": 168,
    "selective_scan_partial_sums": 128,
}

EXCEPTIONS = {
    ("selective_scan_bwd", "N=256"): "a warp holds all 256 states of a channel, eight a thread, with T steps of B and C each"
}


def _call(batch, dim, length, states, *, groups=1, constant="", z=False, plain=False, reverse=False, transposed=False, last=False,
          always=False):  # fmt: skip
    """`plain`: neither D, bias nor softplus. `always`: in every dtype, not in float32 alone, where most registers go."""

    def call(dtype):
        if not always and dtype is not torch.float32:
            return

        def empty(*shape, dtype=dtype):
            if transposed and len(shape) == 3:
                return torch.empty(shape[0], shape[2], shape[1], dtype=dtype).transpose(1, 2).requires_grad_()
            return torch.empty(shape, dtype=dtype).requires_grad_()

        def parameter(*shape):
            return torch.empty(shape).requires_grad_()

        matrix = (batch, states, length) if groups == 1 else (batch, groups, states, length)
        B, C = (parameter(dim, states) if name in constant else empty(*matrix) for name in "BC")
        u, delta = empty(batch, dim, length), empty(batch, dim, length)
        D, bias = (None if plain else parameter(dim) for _ in range(2))
        gate = empty(batch, dim, length) if z else None
        initial = parameter(batch, dim, states) if last else None
        found = ops.selective_scan(u, delta, parameter(dim, states), B, C, D, gate, bias, not plain, last,
                                   initial_state=initial, reverse=reverse)  # fmt: skip
        outputs = found if last else (found,)
        torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])

    return call


CALLS = [
    _call(64, 64, 49, 16),
    _call(64, 128, 64, 16, z=True, transposed=True),
    _call(1, 128, 4096, 16, z=True, reverse=True, last=True, always=True),
    _call(2, 192, 33, 8, groups=2, constant="BC", plain=True),
    _call(2, 16, 9, 256),
]
