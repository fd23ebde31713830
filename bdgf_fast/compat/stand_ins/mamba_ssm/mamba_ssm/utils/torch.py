"""Stand-in: torch's decorators for autograd functions under autocast, on a GPU."""

import functools

import torch.amp

custom_fwd = functools.partial(torch.amp.custom_fwd, device_type="cuda")
custom_bwd = functools.partial(torch.amp.custom_bwd, device_type="cuda")

__all__ = ["custom_bwd", "custom_fwd"]
