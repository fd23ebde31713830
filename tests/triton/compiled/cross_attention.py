"""What is compiled of cross_attention: the shapes of every row of the tables, with mask and bias and with neither."""

import torch

from bdgf_fast import ops

REGISTERS = {
    "cross_attention_fwd": 255, "cross_attention_bwd": 255, "cross_attention_bwd_query": 254, "cross_attention_bwd_bias": 200,
}  # fmt: skip


def _call(length, depth, extras=True, dropout_p=0.0):
    def call(dtype):
        q, k, v = (torch.empty(2, 4, length, depth, dtype=dtype, requires_grad=True) for _ in range(3))
        options = {}
        if extras:
            options["key_mask"] = torch.ones(2, length, dtype=torch.bool)
            options["attn_bias"] = torch.empty(1, 4, length, length, dtype=dtype, requires_grad=True)
        out = ops.cross_attention(q, k, v, dropout_p=dropout_p, seed=3, **options)
        out.backward(torch.empty_like(out))

    return call


CALLS = [
    *(_call(length, depth) for length, depth in ((9, 8), (49, 16), (49, 32), (256, 32), (300, 64), (300, 128))),
    *(_call(length, depth, extras=False) for length, depth in ((25, 16), (300, 64))),
    *(_call(length, depth, dropout_p=0.1) for length, depth in ((49, 32), (121, 32), (300, 64))),
]
