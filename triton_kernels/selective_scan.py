"""Launchers of bdgf::selective_scan; the kernels are in selective_scan_fwd.py and selective_scan_bwd.py.

Considered on paper and rejected: threads along L, as in published kernels (at L = 49 a third of the threads work, and B and C are
read again for every channel); states across all lanes (five shuffles a step for y); one thread for each channel (160 shuffles a
step for dB and dC). A warp of 4 lanes for states x 8 for channels needs the fewest shuffles for both sums.
"""

from __future__ import annotations

from torch import Tensor

from . import selective_scan_launch
from .selective_scan_launch import Scan


def _scan(u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse) -> Scan:
    B, C = (x.contiguous() if x.dim() == 2 else _with_groups(x) for x in (B, C))
    D, delta_bias = (None if x is None else x.contiguous()[None] for x in (D, delta_bias))
    return Scan(u, delta[:, None], A.contiguous()[None], B, C, D, z, delta_bias, initial_state, softplus, reverse)


def _with_groups(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x[:, None]


def _zero(*outputs: Tensor | None) -> None:
    for x in outputs:
        if x is not None:
            x.zero_()


def forward(outputs, *arguments):
    tensors, (softplus, _, reverse, _) = arguments[:9], arguments[9:]
    out, last_state = (*outputs, None)[:2]
    if out.numel() == 0:
        _zero(last_state)
        return
    selective_scan_launch.forward(_scan(*tensors, softplus, reverse), out, last_state)


def backward(outputs, grad_out, grad_last_state, *arguments):
    tensors, (_, softplus, _, reverse, _, _) = arguments[:9], arguments[9:]
    if tensors[0].numel() == 0:
        _zero(*outputs)
        return
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial = outputs
    grads = {
        "u": grad_u, "delta": _under(grad_delta, 1), "A": _under(grad_A, 0), "D": _under(grad_D, 0), "z": grad_z,
        "bias": _under(grad_bias, 0), "initial": grad_initial,
    }  # fmt: skip
    grads |= {"B": grad_B, "C": grad_C}
    for name in "BC":
        if grads[name] is not None and grads[name].dim() == 3:
            grads[name] = grads[name][:, None]
    selective_scan_launch.backward(_scan(*tensors, softplus, reverse), grads, grad_out, grad_last_state)


def _under(x: Tensor | None, axis: int) -> Tensor | None:
    return None if x is None else x.unsqueeze(axis)
