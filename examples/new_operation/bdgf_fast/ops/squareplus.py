"""Squareplus, a smooth ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import call_kernel, call_plain, define, needs_grad, register_triton

backends.register_plain("squareplus", "reference", reference.squareplus)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


define("squareplus", "fwd", "Tensor x, float b", lambda x, b: [_like(x)])
define("squareplus", "bwd", "Tensor grad_out, Tensor x, float b, bool[] needs", lambda grad_out, x, b, needs: [_like(x)])


def _native_forward(outputs, x, b):
    _native.load().squareplus_fwd(outputs[0], x.contiguous(), b, torch.get_num_threads(), _native.stream_of(x))


def _native_backward(outputs, grad_out, x, b, needs):
    tensors = (outputs[0], grad_out.contiguous(), x.contiguous())
    _native.load().squareplus_bwd(*tensors, b, torch.get_num_threads(), _native.stream_of(x))


def _no_float64(facts):
    return "the kernels take float32, float16 and bfloat16" if facts["dtype"] is torch.float64 else None


for backend in ("cpu", "cuda"):
    backends.register("squareplus", backend, forward=_native_forward, backward=_native_backward, supports=_no_float64)
register_triton("squareplus")


def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    """A smooth ReLU (Barron, Squareplus: a softplus-like algebraic rectifier, arXiv 2112.11687).

    out = (x + sqrt(x^2 + b)) / 2, elementwise.

    Args:
        x: any shape, float32, float16 or bfloat16 (float64 on the reference).
        b: a positive number; 0 would be the ReLU itself, which has no gradient at 0.

    Returns:
        The shape and dtype of x, contiguous, computed in float32.

    Raises:
        ValueError, TypeError: an argument is not accepted; the message names it.

    Complexity: O(n) time for n elements; each is read once and written once.

    Example:
        >>> squareplus(torch.tensor([-1.5, 0.0, 1.5]))
        tensor([0.5000, 1.0000, 2.0000])
    """
    check.a_tensor("x", x)
    check.main("x", x, x.dim(), "any shape")
    b = check.real("b", b)
    if not b > 0:
        raise ValueError(f"b is {b}; it takes a positive number")
    backend, _ = backends.choose("squareplus", x.device.type, x.dtype, needs_grad=needs_grad(x))
    plain = backends.plain("squareplus", backend)
    if plain is not None:
        return call_plain(plain, x.device.type, x, b)
    return call_kernel("squareplus", backend, (x,), (b,))
