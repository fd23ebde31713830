"""Attention between the channels inside each group of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import autocast, call_kernel, call_plain, cast, define, gradients, needs_grad, register_triton

backends.register_plain("group_channel_attention", "reference", reference.group_channel_attention)

define(
    "group_channel_attention",
    "fwd",
    "Tensor q, Tensor k, Tensor v, Tensor temperature, int groups",
    lambda q, *_: [torch.empty_like(q)],
)
define(
    "group_channel_attention",
    "bwd",
    "Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor temperature, int groups, bool[] needs",
    lambda grad_out, q, k, v, temperature, groups, needs: gradients((q, k, v, temperature), needs),
)


def _workspace(native, q, temperature, groups, backward):
    threads = torch.get_num_threads()
    elements = native.group_channel_attention_workspace(*q.shape, groups, backward, threads)
    return temperature.new_empty(elements), threads


def _native_forward(outputs, q, k, v, temperature, groups):
    native = _native.load()
    workspace, threads = _workspace(native, q, temperature, groups, False)
    native.group_channel_attention_fwd(outputs[0], q, k, v, temperature, groups, workspace, threads)


def _native_backward(outputs, grad_out, q, k, v, temperature, groups, needs):
    native = _native.load()
    workspace, threads = _workspace(native, q, temperature, groups, True)
    native.group_channel_attention_bwd(*outputs, grad_out, q, k, v, temperature, groups, workspace, threads)


def _native_obstacle(facts):
    size = facts.get("group_size", 1)
    return f"a group has {size} channels; the kernel takes up to 256" if size > 256 else None


backends.register(
    "group_channel_attention",
    "cpu",
    forward=_native_forward,
    backward=_native_backward,
    supports=_native_obstacle,
)


def _triton_obstacle(facts):
    size = facts.get("group_size", 1)
    return f"a group has {size} channels; the Triton kernel takes up to 64" if size > 64 else None


register_triton("group_channel_attention", _triton_obstacle)


def group_channel_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | float, *, groups: int) -> Tensor:
    """Channel (transposed) attention inside each group of d = C/groups channels: out = softmax(tau Q^ K^') V.

    Q^ and K^ are q and k with each channel divided by its L2 norm over L (at least 1e-12); the softmax runs over the
    channels of k (Zamir et al., "Restormer", arXiv 2111.09881, eq. 1). q comes from the branch, k and v from the guide.

    Args:
        q, k, v: (batch, C, L), one dtype of float32, float16, bfloat16 (float64 on the CPU), any strides; cast under
            autocast. Flatten (batch, C, H, W) maps first.
        temperature: tau, a number, a 0-d or one-element tensor, or (groups,); any float dtype.
        groups: divides C.

    Returns:
        (batch, C, L) in q's dtype, computed in float32.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(batch C d L) time. The norms are divided out of the Gram matrix, so no normalised copy of q or k is made.

    Examples:
        >>> q = k = torch.eye(2).reshape(1, 2, 2)
        >>> v = torch.tensor([[[1.0, 1.0], [3.0, 3.0]]])
        >>> group_channel_attention(q, k, v, 100.0, groups=1)[0]  # each channel attends to itself
        tensor([[1., 1.],
                [3., 3.]])
    """
    check.main("q", q, 3, "(batch, C, L)")
    channels, length = q.shape[1:]
    check.at_least_one("q", length, "length")
    groups = check.groups(groups, channels, "q")
    check.a_tensor("k", k)
    check.a_tensor("v", v)
    q, k, v = autocast(q, k, v)
    for name, x in (("k", k), ("v", v)):
        check.beside(name, x, q, (q.dtype,))
        check.shape(name, x, q.shape, "q's shape")
    real = torch.float64 if q.dtype is torch.float64 else torch.float32
    if isinstance(temperature, Tensor):
        check.beside("temperature", temperature, q)
        if tuple(temperature.shape) not in ((), (1,), (groups,)):
            raise ValueError(
                f"temperature has shape {tuple(temperature.shape)}; it takes () or (groups,) = ({groups},)"
            )
    elif isinstance(temperature, str) or not hasattr(type(temperature), "__float__"):
        raise TypeError(f"temperature is {type(temperature).__name__}; it takes a number or a tensor")
    else:
        temperature = torch.full((), check.real("temperature", temperature), dtype=real, device=q.device)

    facts = {"needs_grad": needs_grad(q, k, v, temperature), "group_size": channels // groups, "length": length}
    backend, _ = backends.choose("group_channel_attention", q.device.type, q.dtype, **facts)
    plain = backends.plain("group_channel_attention", backend)
    if plain is not None:
        return call_plain(plain, q.device.type, q, k, v, temperature, groups=groups)
    return call_kernel("group_channel_attention", backend, (q, k, v, cast(temperature, real).expand(groups)), (groups,))
