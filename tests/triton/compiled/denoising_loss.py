"""What is compiled of denoising_loss: every target, hidden modalities, channels-last, a scene's pixels."""

import torch

from bdgf_fast import ops
from bdgf_fast.diffusion import Schedule

REGISTERS = {"denoising_loss_kernel": 128}
SCHEDULE = Schedule.linear()


def _call(prediction_type, channels_last=False, **options):
    def call(dtype):
        pred, x0 = (torch.empty(4, 65, 11, 11, dtype=dtype) for _ in range(2))
        if channels_last:
            pred, x0 = (x.to(memory_format=torch.channels_last) for x in (pred, x0))
        given = {"x0": x0.requires_grad_()} if prediction_type != "epsilon" or "hidden" in options else {}
        loss = ops.denoising_loss(
            pred.requires_grad_(), 7, SCHEDULE, 3, channel_groups=(64, 1), prediction_type=prediction_type, **given, **options
        )
        loss.backward(torch.empty_like(loss))

    return call


HIDDEN = torch.zeros(4, 2, dtype=torch.bool)
CALLS = [
    _call("epsilon"),
    _call("sample"),
    _call("v_prediction"),
    _call("epsilon", hidden=HIDDEN),
    _call("v_prediction", channels_last=True, hidden=HIDDEN),
    _call("epsilon", origin=torch.zeros(4, 2, dtype=torch.int64), extent=(300, 500)),
]
