"""Launchers of bdgf::selective_scan_2d: the scan's kernels with the directions as index arithmetic, merged in float32.

One program goes through the directions of its channels one after the other; their outputs (and the gradients of x and of a
shared delta) are added up where they are stored if that is float32, in scratch of the program's own otherwise.
"""

from __future__ import annotations

from . import selective_scan_launch
from .selective_scan_launch import Scan


def _scan(x, delta, A, B, C, D, delta_bias, softplus, directions, pixel_order) -> Scan:
    D, delta_bias = (None if v is None else v.contiguous() for v in (D, delta_bias))
    return Scan(x, delta, A.contiguous(), B, C, D, None, delta_bias, None, softplus, directions=directions, pixels=pixel_order)


def forward(outputs, x, *arguments):
    if x.numel():
        selective_scan_launch.forward(_scan(x, *arguments), outputs[0], None)


def backward(outputs, grad_out, x, *arguments):
    if x.numel() == 0:
        for grad in outputs:
            if grad is not None:
                grad.zero_()
        return
    grads = dict(zip(("u", "delta", "A", "B", "C", "D", "bias"), outputs, strict=True)) | {"z": None, "initial": None}
    selective_scan_launch.backward(_scan(x, *arguments[:-1]), grads, grad_out, None)
