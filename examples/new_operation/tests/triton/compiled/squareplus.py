"""What is compiled of squareplus."""

import torch

from bdgf_fast import ops

REGISTERS = {"squareplus_fwd": 40, "squareplus_bwd": 48}


def _call(dtype):
    out = ops.squareplus(torch.empty(5000, dtype=dtype).requires_grad_())
    out.backward(torch.empty_like(out))


CALLS = [_call]
