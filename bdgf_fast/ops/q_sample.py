"""The forward process of a diffusion model, noise drawn in registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _native, backends, reference
from ..reference import tables
from . import _check as check
from ._library import call_kernel, call_plain, define, gradients, needs_grad, register_triton
from ._noise import (
    ADDRESS_SCALARS,
    ADDRESS_TENSORS,
    address,
    check_range,
    launch_address,
    length,
    supports_native,
    timesteps,
)

backends.register_plain("q_sample", "reference", reference.q_sample)

_TENSORS = f"Tensor x0, Tensor t, Tensor sqrt_abar, Tensor sqrt_rest, Tensor? channel_mask, {ADDRESS_TENSORS}"
_SCALARS = f"bool fill_with_noise, {ADDRESS_SCALARS}"

define("q_sample", "fwd", f"{_TENSORS}, {_SCALARS}", lambda x0, *_: [torch.empty_like(x0)])
define(
    "q_sample",
    "bwd",
    f"Tensor grad_out, {_TENSORS}, {_SCALARS}, bool[] needs",
    lambda grad_out, *arguments: gradients(arguments[:9], arguments[-1]),
)


def backward(outputs, grad_out, x0, t, sqrt_abar, sqrt_rest, channel_mask, *_) -> None:
    """Launcher for every backend: one read and one write of x0's size, with a factor per sample and channel."""
    factor = tables.at(sqrt_abar, t).unsqueeze(1)
    if channel_mask is not None:
        factor = factor.masked_fill(channel_mask, 0.0)
    torch.mul(grad_out, factor.reshape(*factor.shape, *[1] * (x0.dim() - 2)), out=outputs[0])


def _native_run(outputs, x0, draw, t, sqrt_abar, sqrt_rest, channel_mask, *rest) -> None:
    *tensors, fill_with_noise, seed, stream, extent_h, extent_w = rest
    _native.load().q_sample(
        outputs[0], x0, t, sqrt_abar, sqrt_rest, channel_mask, draw, fill_with_noise,
        *launch_address(*tensors, seed, stream, extent_h, extent_w), torch.get_num_threads(), _native.stream_of(x0),
    )  # fmt: skip


def _native_forward(outputs, x0, *arguments) -> None:
    _native_run(outputs, x0, True, *arguments)


def _native_backward(outputs, grad_out, x0, *arguments) -> None:
    *tensors, _, seed, stream, extent_h, extent_w, _ = arguments
    _native_run(outputs, grad_out, False, *tensors, False, seed, stream, extent_h, extent_w)


for _backend in ("cpu", "cuda"):
    backends.register("q_sample", _backend, forward=_native_forward, backward=_native_backward, supports=supports_native)
register_triton("q_sample")


def q_sample(
    x0: Tensor,
    t: int | Tensor,
    schedule: Any,
    seed: int | Tensor,
    *,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
    origin: Tensor | None = None,
    extent: tuple[int, int] | None = None,
    channel_mask: Tensor | None = None,
    mask_mode: str = "zero",
) -> Tensor:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps (Ho et al., arXiv 2006.11239, eq. 4); eps is never stored.

    Args:
        x0: (batch, C, ...), float32, float16 or bfloat16 (float64 on the CPU), any strides.
        t: int64 (batch,) on x0's device, or one int. Out of range: ValueError on the CPU, NaN for that sample
            elsewhere.
        schedule: a `Schedule`, or a tensor of abar (T,). The coefficients are float32 whatever x0 is.
        seed, sample_ids, stream, origin, extent: the address of eps, as for `philox_normal`, whose values at that
            address eps takes (before they are rounded to x0's dtype).
        channel_mask: bool (batch, C), True = hidden.
        mask_mode: what a hidden channel holds: "zero", or "noise", standard normals drawn apart from other noise (never
            eps, which would give the target away).

    Returns:
        the noisy sample x_t, of x0's shape and dtype. Differentiable in x0.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(n) time for n elements; one read and one write.

    Examples:
        >>> abar = torch.tensor([1.0, 0.5])
        >>> x0 = torch.ones(2, 1, 3)
        >>> q_sample(x0, torch.tensor([0, 0]), abar, seed=1)[0]  # abar = 1: no noise yet
        tensor([[1., 1., 1.]])
    """
    check.a_tensor("x0", x0)
    if x0.dim() < 2:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}; it takes (batch, C, ...)")
    check.main("x0", x0, x0.dim(), "(batch, C, ...)")
    count = length(schedule)
    t = timesteps(t, x0, count)
    tensors, scalars = address(x0.shape, x0.device, seed, sample_ids, stream, origin, extent)
    if channel_mask is not None:
        check.beside("channel_mask", channel_mask, x0, (torch.bool,))
        check.shape("channel_mask", channel_mask, x0.shape[:2], "(batch, C)")
    check.choice("mask_mode", mask_mode, ("zero", "noise"))

    backend, _ = backends.choose("q_sample", x0.device.type, x0.dtype, needs_grad=needs_grad(x0))
    plain = backends.plain("q_sample", backend)
    if plain is not None:
        check_range(t, count)
        seed = scalars[0] if tensors[0] is None else tensors[0]
        stream = scalars[1] if tensors[2] is None else tensors[2]
        options: dict[str, Any] = {"sample_ids": sample_ids, "stream": stream, "origin": origin, "extent": extent}
        options.update(channel_mask=channel_mask, mask_mode=mask_mode)
        return call_plain(plain, x0.device.type, x0, t, schedule, seed, **options)
    sqrt_abar, sqrt_rest = tables.schedule_tables(schedule, x0.device)
    tensors = (x0, t, sqrt_abar, sqrt_rest, channel_mask, *tensors)
    return call_kernel("q_sample", backend, tensors, (mask_mode == "noise", *scalars))
