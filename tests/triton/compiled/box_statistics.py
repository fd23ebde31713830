"""What is compiled of box_statistics: planes with several radii, and channels-last maps."""

import torch

from bdgf_fast import ops

REGISTERS = {"box_columns": 80, "box_moments": 96, "box_slopes": 96, "box_gradient": 96}


def _call(shape, radii, channels_last=False):
    def call(dtype):
        order = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.empty(shape, dtype=dtype, memory_format=order).requires_grad_()
        out = ops.box_statistics(x, radii)
        out.backward(torch.empty_like(out))

    return call


CALLS = [_call((1, 15, 64, 64), [2, 5]), _call((1, 64, 40, 40), [5], channels_last=True)]
