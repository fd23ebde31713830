"""Statistics of boxes: sums down the columns go to a workspace, sums along the rows make the statistics.

A lane computes one value of the result; neighbouring lanes follow the order of x in memory. Some of the samples, or of the
channels, are taken at a time, so that the workspace stays within its limit. A product and a sum are never fused: a pixel's value
would depend on how the compiler specialised the launch, hence on the tile's size.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..ops.box_statistics import channels_last
from ._launch import cdiv, launch, workspace, workspace_limit

BLOCK = 512
WARPS = 4
EPSILON = tl.constexpr(1e-6)


@triton.jit
def _position(n, channels, height, width, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr):
    """Sample, channel, row and column of the values of a program, and which are there."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if CHANNELS_LAST:
        c, p = i % channels, i // channels
        return p // width // height, c, p // width % height, p % width, i < n
    q = i // width
    return q // height // channels, q // height % channels, q % height, i % width, i < n


@triton.jit
def box_columns(
    sums, sums2, x, x2, n, channels, height, width, rows, before, window, s_b, s_c, s_y, s_x, x_b, x_c, x_y, x_x,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of x and x2 (x^2 without one) over `window` rows from row - before on, 0 outside of 0 ... rows - 1."""
    b, c, y, column, there = _position(n, channels, height, width, CHANNELS_LAST, BLOCK)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    at = b * x_b + c * x_c + column * x_x
    for d in range(window):
        row = y + (d - before)
        seen = there & (row >= 0) & (row < rows)
        value = tl.load(x + at + row * x_y, seen, 0.0).to(tl.float32)
        first += value
        if x2 is not None:
            second += tl.load(x2 + at + row * x_y, seen, 0.0)
        else:
            second += value * value
    to = b * s_b + c * s_c + y * s_y + column * s_x
    tl.store(sums + to, first, there)
    tl.store(sums2 + to, second, there)


@triton.jit
def _along(sums, sums2, at, column, columns, before, window, s_x, there, BLOCK: tl.constexpr):
    """Sums of the column sums over `window` columns from column - before on, 0 outside."""
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    for d in range(window):
        at_column = column + (d - before)
        seen = there & (at_column >= 0) & (at_column < columns)
        first += tl.load(sums + at + at_column * s_x, seen, 0.0)
        second += tl.load(sums2 + at + at_column * s_x, seen, 0.0)
    return first, second


@triton.jit
def box_moments(
    mean, deviation, sums, sums2, n, channels, height, width, window, o_b, o_c, o_y, o_x, s_b, s_c, s_y, s_x, share,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean and deviation of every window, from the sums of its columns; `share` is 1 / (pixels of a window)."""
    b, c, y, column, there = _position(n, channels, height, width, CHANNELS_LAST, BLOCK)
    at = b * s_b + c * s_c + y * s_y
    first, second = _along(sums, sums2, at, column, width + window - 1, 0, window, s_x, there, BLOCK)
    average = first * share
    variance = second * share - average * average
    variance = tl.where(variance < 0.0, 0.0, variance)  # NaN stays
    to = b * o_b + c * o_c + y * o_y + column * o_x
    tl.store(mean + to, average.to(mean.dtype.element_ty), there)
    tl.store(deviation + to, tl.sqrt(variance + EPSILON).to(mean.dtype.element_ty), there)


@triton.jit
def box_slopes(
    a, q, sums, sums2, grad_mean, grad_deviation, n, channels, height, width, window, o_b, o_c, o_y, o_x, s_b, s_c, s_y, s_x,
    a_b, a_c, a_y, a_x, share, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """q = g_d / (A d), and a = g_m / A - q m, of a window of A pixels with mean m, deviation d and their gradients."""
    b, c, y, column, there = _position(n, channels, height, width, CHANNELS_LAST, BLOCK)
    at = b * s_b + c * s_c + y * s_y
    first, second = _along(sums, sums2, at, column, width + window - 1, 0, window, s_x, there, BLOCK)
    average = first * share
    variance = second * share - average * average
    of = b * o_b + c * o_c + y * o_y + column * o_x
    slope = tl.load(grad_deviation + of, there, 0.0).to(tl.float32) * share / tl.sqrt(tl.maximum(variance, 0.0) + EPSILON)
    slope = tl.where(variance > 0.0, slope, 0.0)  # in a constant window all values are the mean
    to = b * a_b + c * a_c + y * a_y + column * a_x
    tl.store(a + to, tl.load(grad_mean + of, there, 0.0).to(tl.float32) * share - slope * average, there)
    tl.store(q + to, slope, there)


@triton.jit
def box_gradient(
    gradient, sums, sums2, x, n, channels, height, width, columns, before, window, g_b, g_c, g_y, g_x, s_b, s_c, s_y, s_x,
    x_b, x_c, x_y, x_x, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add to `gradient`, for each x_j, the sum of a + x_j q over the windows that hold it, from the column sums of a and q."""
    b, c, y, column, there = _position(n, channels, height, width, CHANNELS_LAST, BLOCK)
    at = b * s_b + c * s_c + y * s_y
    first, second = _along(sums, sums2, at, column, columns, before, window, s_x, there, BLOCK)
    value = tl.load(x + b * x_b + c * x_c + y * x_y + column * x_x, there, 0.0).to(tl.float32)
    to = gradient + b * g_b + c * g_c + y * g_y + column * g_x
    tl.store(to, tl.load(to, there, 0.0) + first + value * second, there)


def _run(kernel, shape, last, *arguments):
    batch, channels, height, width = shape
    n = batch * channels * height * width
    tensors = [t for t in arguments if t is None or hasattr(t, "stride")]
    rest = arguments[len(tensors) :]
    launch(
        kernel, cdiv(n, BLOCK), *tensors, n, channels, height, width, *rest,
        CHANNELS_LAST=last, BLOCK=BLOCK, num_warps=WARPS, fp_fusion=False,
    )  # fmt: skip


def _maps(x, last, count, height, width):
    """`count` f32 maps of the samples and channels of x, ordered in memory as x is."""
    batch, channels = x.shape[:2]
    if last:
        return workspace(x, count, batch, height, width, channels).permute(0, 1, 4, 2, 3)
    return workspace(x, count, batch, channels, height, width)


def _parts(x, floats_a_plane, *tensors):
    """Slices (samples, channels) of maps whose workspace stays within the limit."""
    batch, channels = x.shape[:2]
    planes = max(1, workspace_limit(x, *tensors) // (4 * floats_a_plane))
    samples, some = max(1, planes // channels), min(planes, channels)
    return [(slice(b, b + samples), c, min(c + some, channels)) for b in range(0, batch, samples) for c in range(0, channels, some)]


def _inner(x, margin):
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]


def _statistics(x, channels, i, samples, low, high):
    """Mean and deviation of the radius i, of some samples and channels, in a result or its gradient."""
    first = (1 + 2 * i) * channels
    return tuple(x[samples, start + low : start + high] for start in (first, first + channels))


def _window_columns(x, last, reach, radius):
    """Sums of x and x^2 down the columns of every window, and the window's side."""
    around, window = _inner(x, reach - radius), 2 * radius + 1
    sums, sums2 = _maps(x, last, 2, x.shape[2] - 2 * reach, around.shape[3])
    _run(box_columns, sums.shape, last, sums, sums2, around, None, around.shape[2], 0, window, *sums.stride(), *around.stride())
    return sums, sums2, window


def forward(outputs, x, radii):
    out = outputs[0]
    reach, channels = max(radii, default=0), x.shape[1]
    out[:, :channels].copy_(_inner(x, reach))
    if x.numel() == 0:
        return
    last = channels_last(x)
    for samples, low, high in _parts(x, 2 * out.shape[2] * x.shape[3], out):
        for i, radius in enumerate(radii):
            sums, sums2, window = _window_columns(x[samples, low:high], last, reach, radius)
            mean, deviation = _statistics(out, channels, i, samples, low, high)
            strides = (*mean.stride(), *sums.stride())
            _run(box_moments, mean.shape, last, mean, deviation, sums, sums2, window, *strides, 1.0 / window**2)


def backward(outputs, grad_out, x, radii, needs):
    grad_x = outputs[0]
    reach, channels = max(radii, default=0), x.shape[1]
    if x.numel() == 0:
        return
    height, width = grad_out.shape[2:]
    last = channels_last(x)
    for samples, low, high in _parts(x, 5 * x.shape[2] * x.shape[3], grad_out, grad_x):
        part = x[samples, low:high]
        gradient = _maps(part, last, 1, *x.shape[2:])[0]
        gradient.zero_()
        _inner(gradient, reach).copy_(grad_out[samples, low:high])
        for i, radius in enumerate(radii):
            sums, sums2, window = _window_columns(part, last, reach, radius)
            grads = _statistics(grad_out, channels, i, samples, low, high)
            a, q = _maps(part, last, 2, height, width)
            strides = (*grads[0].stride(), *sums.stride(), *a.stride())
            _run(box_slopes, a.shape, last, a, q, sums, sums2, *grads, window, *strides, 1.0 / window**2)
            before = reach + radius  # pixel j lies in the windows of the outputs j - before ... j - before + window - 1
            sums, sums2 = _maps(part, last, 2, x.shape[2], width)
            _run(box_columns, sums.shape, last, sums, sums2, a, q, height, before, window, *sums.stride(), *a.stride())
            strides = (*gradient.stride(), *sums.stride(), *part.stride())
            _run(box_gradient, part.shape, last, gradient, sums, sums2, part, width, before, window, *strides)
        grad_x[samples, low:high].copy_(gradient)
