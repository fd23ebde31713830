"""What is compiled of group_channel_attention: every size of group in the table, both layouts."""

import torch

from bdgf_fast import ops

REGISTERS = {"group_channel_attention_fwd": 255, "group_channel_attention_bwd": 255}


def _call(size, length, transposed=False):
    def call(dtype):
        shape = (2, length, 4 * size) if transposed else (2, 4 * size, length)
        q, k, v = (torch.empty(shape, dtype=dtype, requires_grad=True) for _ in range(3))
        given = [x.transpose(1, 2) if transposed else x for x in (q, k, v)]
        out = ops.group_channel_attention(*given, torch.ones(4, requires_grad=True), groups=4)
        out.backward(torch.empty_like(out))

    return call


CALLS = [_call(size, 121) for size in (8, 32, 64)] + [_call(32, 256, transposed=True)]
