"""What is compiled of ddpm_step and ddim_step: drawn noise, given noise, none, with and without the clamp."""

import torch

from bdgf_fast import ops
from bdgf_fast.diffusion import Schedule

REGISTERS = {"diffusion_step_fwd": 96, "diffusion_step_bwd": 96}
SCHEDULE = Schedule.linear()


def _call(clip, channels_last=False, **options):
    def call(dtype):
        pred, sample = (torch.empty(4, 64, 16, 16, dtype=dtype) for _ in range(2))
        if channels_last:
            pred, sample = (x.to(memory_format=torch.channels_last) for x in (pred, sample))
        if "noise" in options:
            options["noise"] = torch.empty_like(sample)
        out = ops.ddpm_step(
            pred.requires_grad_(), 7, sample.requires_grad_(), SCHEDULE, prediction_type="epsilon", clip_sample=clip, **options
        )
        out.backward(torch.empty_like(out))

    return call


CALLS = [_call(True, seed=3), _call(False), _call(True, noise=None), _call(True, seed=3, channels_last=True)]
