"""What is compiled of group_channel_gate: on chip and in two passes, both layouts, one source and both."""

import torch

from bdgf_fast import ops

REGISTERS = {
    "group_channel_gate_fwd": 160, "group_channel_gate_bwd": 200, "group_channel_gate_sums": 128, "group_channel_gate_mlp": 168,
    "group_channel_gate_scale": 96, "group_channel_gate_mlp_bwd": 192, "group_channel_gate_weights": 96,
}  # fmt: skip


def _call(channels, side, groups, hidden, last=False, source="both"):
    def call(dtype):
        x, guide = (torch.empty(2, channels, side, side, dtype=dtype) for _ in range(2))
        if last:
            x, guide = (t.to(memory_format=torch.channels_last) for t in (x, guide))
        each = channels // groups
        inputs = each * (2 if source == "both" else 1)
        shapes = [(groups, hidden, inputs), (groups, hidden), (groups, each, hidden), (groups, each)]
        parameters = [torch.empty(s, requires_grad=True) for s in shapes]
        out = ops.group_channel_gate(x.requires_grad_(), guide.requires_grad_(), *parameters, groups=groups, gate_source=source)
        out.backward(torch.empty_like(out))

    return call


CALLS = [
    _call(64, 7, 8, 4),
    _call(64, 11, 4, 8),
    _call(64, 11, 4, 8, last=True),
    _call(64, 11, 4, 8, source="x"),
    _call(128, 16, 4, 16),
    _call(256, 7, 1, 64),
    _call(256, 32, 4, 32, last=True),
    _call(256, 32, 4, 32, source="guide"),
]
