"""The honest opponents of the CPU scan: what a good PyTorch user would write, and the parallel scan people install.

All take the plain case: u, delta (batch, dim, L); A (dim, N); B, C (batch, N, L); delta_softplus on; no gate.
"""

import torch
import torch.nn.functional as F


def materialised(u, delta, A, B, C, D):
    """exp(delta A) and delta B u as (batch, dim, L, N) tensors, then a loop over views of them (`unbind`)."""
    delta = F.softplus(delta)
    decay = torch.exp(delta[..., None] * A[:, None, :])
    drive = (delta * u)[..., None] * B.transpose(1, 2)[:, None]
    state, outputs = torch.zeros_like(decay[:, :, 0]), []
    for a, b, c in zip(decay.unbind(2), drive.unbind(2), C.unbind(2), strict=True):
        state = a * state + b
        outputs.append(torch.einsum("bdn,bn->bd", state, c))
    return torch.stack(outputs, 2) + D[:, None] * u


def inside(u, delta, A, B, C, D):
    """exp inside the loop over L: the least memory plain PyTorch can do."""
    delta = F.softplus(delta)
    state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for u_l, delta_l, b, c in zip(u.unbind(2), delta.unbind(2), B.unbind(2), C.unbind(2), strict=True):
        state = torch.exp(delta_l[..., None] * A) * state + (delta_l * u_l)[..., None] * b[:, None]
        outputs.append(torch.einsum("bdn,bn->bd", state, c))
    return torch.stack(outputs, 2) + D[:, None] * u


def parallel(u, delta, A, B, C, D):
    """mambapy's parallel scan."""
    from mambapy.pscan import pscan

    delta = F.softplus(delta).transpose(1, 2)
    decay = torch.exp(delta[..., None] * A)
    drive = (delta * u.transpose(1, 2))[..., None] * B.transpose(1, 2)[:, :, None]
    states = pscan(decay, drive)
    return (states @ C.transpose(1, 2)[..., None]).squeeze(3).transpose(1, 2) + D[:, None] * u


BASELINES = {"unbind": materialised, "loop": inside, "pscan": parallel}
