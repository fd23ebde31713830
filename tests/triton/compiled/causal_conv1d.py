"""What is compiled of causal_conv1d: an image patch's sequence, odd and even, and rows of a few steps."""

import torch

from bdgf_fast import ops

REGISTERS = {
    "causal_conv1d_fwd": 128, "causal_conv1d_fwd_dense": 48, "causal_conv1d_bwd": 168, "causal_conv1d_bwd_dense": 128,
}  # fmt: skip


def _call(batch, dim, length, width, activation, channels_last=False):
    def call(dtype):
        shape = (batch, length, dim) if channels_last else (batch, dim, length)
        x = torch.empty(shape, dtype=dtype, requires_grad=True)
        weight, bias = torch.empty(dim, width, requires_grad=True), torch.empty(dim, requires_grad=True)
        out = ops.causal_conv1d(x.transpose(1, 2) if channels_last else x, weight, bias, activation)
        out.backward(torch.empty_like(out))

    return call


CALLS = [_call(8, 128, 49, 4, "silu"), _call(8, 128, 256, 4, "silu", channels_last=True), _call(64, 32, 4, 2, None)]
