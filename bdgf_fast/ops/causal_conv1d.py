"""Depthwise causal convolution along a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import autocast, call_kernel, call_plain, cast, define, gradients, needs_grad, register_triton

backends.register_plain("causal_conv1d", "reference", reference.causal_conv1d)

define(
    "causal_conv1d",
    "fwd",
    "Tensor x, Tensor weight, Tensor? bias, bool silu",
    lambda x, *_: [torch.empty_like(x)],
)
define(
    "causal_conv1d",
    "bwd",
    "Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, bool silu, bool[] needs",
    lambda grad_out, x, weight, bias, silu, needs: gradients((x, weight, bias), needs),
)


def _native_forward(outputs, x, weight, bias, silu):
    bias = None if bias is None else bias.contiguous()
    _native.load().causal_conv1d_fwd(outputs[0], x, weight.contiguous(), bias, silu, torch.get_num_threads())


def _native_backward(outputs, grad_out, x, weight, bias, silu, needs):
    bias = None if bias is None else bias.contiguous()
    found = [g if g is None or i == 0 else g.contiguous() for i, g in enumerate(outputs)]
    _native.load().causal_conv1d_bwd(*found, grad_out, x, weight.contiguous(), bias, silu, torch.get_num_threads())
    for output, values in zip(outputs, found, strict=True):
        if output is not values:  # the gradient of a parameter that is not contiguous
            output.copy_(values)


backends.register("causal_conv1d", "cpu", forward=_native_forward, backward=_native_backward)
register_triton("causal_conv1d")


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """Depthwise causal convolution, a drop-in for causal_conv1d's `causal_conv1d_fn`.

    out[b, d, l] = act(bias[d] + sum_w weight[d, w] x[b, d, l - width + 1 + w]), x being 0 before the first step.

    Args:
        x: (batch, dim, L), float32, float16 or bfloat16 (float64 on the CPU), any strides; cast under autocast.
        weight: (dim, width), width 2 to 4, any float dtype.
        bias: (dim,), any float dtype.
        activation: None, "silu" or its other name "swish".

    Returns:
        (batch, dim, L) in x's dtype (the autocast dtype under autocast), computed in float32.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(batch dim L width) time; one read of x and one write. The backward computes the activation again.

    Examples:
        >>> x, weight = torch.ones(1, 2, 4), torch.ones(2, 3)
        >>> causal_conv1d(x, weight)[0, 0]
        tensor([1., 2., 3., 3.])
    """
    check.main("x", x, 3, "(batch, dim, L)")
    dim, length = x.shape[1:]
    check.at_least_one("x", length, "length")
    check.a_tensor("weight", weight, 2, "(dim, width)")
    check.beside("weight", weight, x)
    if weight.shape[0] != dim or not 2 <= weight.shape[1] <= 4:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; it takes (dim, width) = ({dim}, 2 to 4)")
    if bias is not None:
        check.beside("bias", bias, x)
        check.shape("bias", bias, (dim,), "(dim,)")
    check.choice("activation", activation, (None, "silu", "swish"))

    (x,) = autocast(x)
    facts = {"needs_grad": needs_grad(x, weight, bias), "width": weight.shape[1], "length": length}
    backend, _ = backends.choose("causal_conv1d", x.device.type, x.dtype, **facts)
    plain = backends.plain("causal_conv1d", backend)
    if plain is not None:
        return call_plain(plain, x.device.type, x, weight, bias, activation)
    real = torch.float64 if x.dtype is torch.float64 else torch.float32
    tensors = (x, cast(weight, real), cast(bias, real))
    return call_kernel("causal_conv1d", backend, tensors, (activation is not None,))
