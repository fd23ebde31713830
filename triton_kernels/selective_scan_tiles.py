"""What the scan's kernels share: how a tile lies over threads, and how it walks a sequence or the pixels of an image.

A tile is N states x DIM channels in registers, of shape (NR, DR, DW, NL, DL): n = nr * NL + nl, d = (dr * DW + dw) * DL
+ dl. NL * DL are the lanes of a warp, DW the warps, NR * DR what a thread holds; Triton gives the last axes to lanes
first, so the shape is the layout. Sums over states cost log2(NL) shuffles, sums over channels log2(DL). Steps are read T
at a time as (DR, DW, DL, T), along L where L is contiguous, and split into their columns.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def split4(x, REVERSE: tl.constexpr):
    """(..., 4) as its four columns, the last one first if REVERSE."""
    even, odd = tl.split(tl.reshape(x, x.shape[:-1] + (2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    if REVERSE:
        return x3, x2, x1, x0
    else:  # noqa: RET505  (Triton takes the return of one branch)
        return x0, x1, x2, x3


@triton.jit
def join4(x, REVERSE: tl.constexpr):
    """The inverse of split4."""
    if REVERSE:
        joined = tl.join(tl.join(x[3], x[1]), tl.join(x[2], x[0]))
    else:
        joined = tl.join(tl.join(x[0], x[2]), tl.join(x[1], x[3]))
    return tl.reshape(joined, x[0].shape + (4,))


@triton.jit
def when(condition, mask):
    """mask & condition, a scalar (the interpreter makes integers of that)."""
    return tl.where(condition, mask, False)


@triton.jit
def over_states(x):
    """(NR, NL) spread over a tile."""
    return x[:, None, None, :, None]


@triton.jit
def over_channels(x):
    """(DR, DW, DL) spread over a tile."""
    return x[None, :, :, None, :]


@triton.jit
def sum_states(x):
    """A tile to (DR, DW, DL)."""
    return tl.sum(tl.sum(x, 0), 2)


@triton.jit
def states(N, NR: tl.constexpr, NL: tl.constexpr):
    """The states of a tile (NR, NL), and which are there."""
    n = tl.arange(0, NR)[:, None] * NL + tl.arange(0, NL)[None, :]
    return n, n < N


@triton.jit
def channels(tile, dim_of_group, WIDE: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, DL: tl.constexpr):
    """(group, channels (DR, DW, DL), which are there) of a channel tile; a tile lies within one group."""
    tiles = tl.cdiv(dim_of_group, DR * DW * DL)
    d = tl.arange(0, DR)[:, None, None] * DW + tl.arange(0, DW)[None, :, None]
    d = d * DL + tl.arange(0, DL)[None, None, :] + (tile % tiles) * (DR * DW * DL)
    group = tile // tiles
    return group, index(d + group * dim_of_group, WIDE), d < dim_of_group


@triton.jit
def positions(first, end, length, direction, height, width, REVERSE: tl.constexpr, IMAGE: tl.constexpr, T: tl.constexpr):
    """(step, pixel) of T steps from `first`: where direction 0 rows, 1 columns, 2 and 3 reversed, finds them.

    A reversed sequence is read forwards, T at a time, and its columns are taken in reverse.
    """
    if REVERSE:
        pixel = length - first - T + tl.arange(0, T)
        step = length - 1 - pixel
    else:
        step = first + tl.arange(0, T)
        pixel = step
        if IMAGE:
            pixel = tl.where(direction >= 2, length - 1 - step, step)
            pixel = tl.where(direction % 2 == 1, (pixel % height) * width + pixel // height, pixel)
    return step, pixel


@triton.jit
def index(x, WIDE: tl.constexpr):
    """What is multiplied with a stride: 64 bits if offsets within a sample need them (to a sample they always have)."""
    return x.to(tl.int64) if WIDE else x


@triton.jit
def pixel_offset(pixel, width, along, across, IMAGE: tl.constexpr):
    """Offset of pixels in a tensor with strides (along rows, across a row), or of steps with stride `across`."""
    return (pixel // width) * along + (pixel % width) * across if IMAGE else pixel * across


@triton.jit
def softplus(x):
    """log(1 + exp(x)), linear above 20; the rounding of 1 + exp(x) is put back."""
    small = tl.exp(tl.minimum(x, 20.0))
    above = 1.0 + small
    return tl.where(x > 20.0, x, tl.log(above) + (small - (above - 1.0)) / above)


@triton.jit
def spread(rows, steps):
    """Offsets of rows (...) and of T steps as (..., T)."""
    return tl.expand_dims(rows, len(rows.shape)) + tl.reshape(steps, (1,) * len(rows.shape) + (steps.shape[0],))


@triton.jit
def load_steps(base, rows, steps, mask):
    """base[rows + steps] in float32."""
    return tl.load(base + spread(rows, steps), mask, 0.0).to(tl.float32)


@triton.jit
def activate(raw, inside, SOFTPLUS: tl.constexpr):
    """Delta as it enters the recurrence: 0 where nothing is there."""
    return tl.where(inside, softplus(raw) if SOFTPLUS else raw, 0.0)
