"""Value, mean and standard deviation of every channel over square boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import call_kernel, call_plain, define, gradients, needs_grad, register_triton

backends.register_plain("box_statistics", "reference", reference.box_statistics)


def channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie closer together than neighbouring pixels: then so do those of the result."""
    return x.shape[1] > 1 and x.stride(1) < x.stride(3)


def _allocate(x, radii):
    reach = max(radii, default=0)
    shape = (x.shape[0], x.shape[1] * (1 + 2 * len(radii)), x.shape[2] - 2 * reach, x.shape[3] - 2 * reach)
    order = torch.channels_last if channels_last(x) else torch.contiguous_format
    return [torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)]


define("box_statistics", "fwd", "Tensor x, int[] radii", _allocate)
define(
    "box_statistics",
    "bwd",
    "Tensor grad_out, Tensor x, int[] radii, bool[] needs",
    lambda grad_out, x, radii, needs: gradients((x,), needs),
)


def _native_call(function, written, x, radii, backward):
    native, threads = _native.load(), torch.get_num_threads()
    floats = native.box_statistics_workspace(x, written, max(radii, default=0), backward, threads)
    return getattr(native, function), torch.empty(floats, dtype=torch.float32), threads


def _native_forward(outputs, x, radii):
    run, space, threads = _native_call("box_statistics_fwd", outputs[0], x, radii, False)
    run(outputs[0], x, radii, space, threads)


def _native_backward(outputs, grad_out, x, radii, needs):
    run, space, threads = _native_call("box_statistics_bwd", outputs[0], x, radii, True)
    run(outputs[0], grad_out, x, radii, space, threads)


def _supports_native(facts):
    return "it has no float64; the reference takes it" if facts["dtype"] is torch.float64 else None


backends.register("box_statistics", "cpu", forward=_native_forward, backward=_native_backward, supports=_supports_native)
register_triton("box_statistics")


def box_statistics(x: Tensor, radii: Sequence[int]) -> Tensor:
    """Each channel's value at the centre, then mean and standard deviation over the box of every radius.

    mean[p] = E x and deviation[p] = sqrt(max(E x^2 - mean^2, 0) + 1e-6), E being the mean over the (2 radius + 1)^2 pixels around
    p. Every window is summed in the same order, wherever it is, so a pixel's values are the same to the bit whichever
    tile of a scene they are computed in.

    Args:
        x: (batch, C, H, W), float32, float16 or bfloat16 (float64 on the CPU, by the reference), any strides.
        radii: of the boxes, in pixels, each 0 or more; with reach = max(radii), H and W are at least 2 reach + 1.

    Returns:
        (batch, C (1 + 2 len(radii)), H - 2 reach, W - 2 reach) in x's dtype, computed in float32: C channels each of centre,
        mean of the first radius, its deviation, mean of the second and so on. Channels-last where x is.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: some 4 log2(2 radius + 1) additions for each pixel, channel and radius. Nothing but x is kept for the backward.

    Examples:
        >>> x = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> box_statistics(x, [1])[0, :, 0, 0]  # centre, mean, standard deviation
        tensor([4.0000, 4.0000, 2.5820])
    """
    check.main("x", x, 4, "(batch, C, H, W)")
    if isinstance(radii, int) or not all(isinstance(r, int) and not isinstance(r, bool) for r in radii):
        raise TypeError(f"radii is {radii!r}; it takes a sequence of ints")
    radii = list(radii)
    if min(radii, default=0) < 0:
        raise ValueError(f"radii is {radii}; it takes 0 or more each")
    reach = max(radii, default=0)
    if min(x.shape[2:]) < 2 * reach + 1:
        side = 2 * reach + 1
        raise ValueError(f"x is {x.shape[2]} x {x.shape[3]} pixels; a box of radius {reach} takes {side} x {side}")
    facts = {"needs_grad": needs_grad(x), "radius": reach, "pixels": x.shape[2] * x.shape[3]}
    backend, _ = backends.choose("box_statistics", x.device.type, x.dtype, **facts)
    plain = backends.plain("box_statistics", backend)
    if plain is not None:
        return call_plain(plain, x.device.type, x, radii)
    return call_kernel("box_statistics", backend, (x,), (radii,))
