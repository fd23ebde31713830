"""What is compiled of q_sample: long samples, hidden channels by either mode, a scene's pixels, and the gradient."""

import torch

from bdgf_fast import ops
from bdgf_fast.diffusion import Schedule

REGISTERS = {"q_sample_kernel": 128}
SCHEDULE = Schedule.linear()


def _call(shape, **options):
    def call(dtype):
        x0 = torch.empty(shape, dtype=dtype, requires_grad=True)
        out = ops.q_sample(x0, 7, SCHEDULE, 3, **options)
        out.backward(torch.empty_like(out))

    return call


HIDDEN = torch.zeros(4, 64, dtype=torch.bool)
CALLS = [
    _call((16, 64, 256)),
    _call((4, 64, 11, 11), channel_mask=HIDDEN),
    _call((4, 64, 11, 11), channel_mask=HIDDEN, mask_mode="noise"),
    _call((4, 64, 11, 11), origin=torch.zeros(4, 2, dtype=torch.int64), extent=(300, 500)),
]
