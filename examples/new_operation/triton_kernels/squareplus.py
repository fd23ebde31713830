"""Squareplus: a block of elements a program."""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import cdiv, launch

BLOCK = 1024  # elements of a program


@triton.jit
def squareplus_fwd(out, x, b, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n, 0.0).to(tl.float32)
    tl.store(out + i, (0.5 * (v + tl.sqrt(v * v + b))).to(out.dtype.element_ty), i < n)


@triton.jit
def squareplus_bwd(grad_x, grad_out, x, b, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n, 0.0).to(tl.float32)
    grad = tl.load(grad_out + i, i < n, 0.0).to(tl.float32)
    tl.store(grad_x + i, (0.5 * grad * (1.0 + v / tl.sqrt(v * v + b))).to(grad_x.dtype.element_ty), i < n)


def forward(outputs, x, b) -> None:
    """Launcher for `bdgf::squareplus_fwd`."""
    n = x.numel()
    launch(squareplus_fwd, cdiv(n, BLOCK), outputs[0], x.contiguous(), b, n, BLOCK=BLOCK, num_warps=4)


def backward(outputs, grad_out, x, b, needs) -> None:
    """Launcher for `bdgf::squareplus_bwd`."""
    n = x.numel()
    tensors = (outputs[0], grad_out.contiguous(), x.contiguous())
    launch(squareplus_bwd, cdiv(n, BLOCK), *tensors, b, n, BLOCK=BLOCK, num_warps=4)
