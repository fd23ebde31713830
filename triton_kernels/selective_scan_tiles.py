"""What the scan's kernels share: how a tile lies over threads, where its steps lie in memory, and how they are loaded.

A tile is N states x DIM channels in registers, of shape (NR, DR, DW, NL, DL): n = nr * NL + nl, d = (dr * DW + dw) * DL
+ dl. NL * DL are the lanes of a warp, DW the warps, NR * DR what a thread holds; Triton gives the last axes to lanes
first, so the shape is the layout. A sum over states costs log2(NL) shuffles, a sum over channels log2(DL). T steps are read
at a time as (DR, DW, DL, T), along L where L is contiguous, and split into T values of shape (DR, DW, DL), one for each step.

The kernels are compiled as one function each: Triton inlines everything that is called here. Their strides are named after the
tensor and the axis: u_b, u_d, u_h and u_l are those of u over batch, channels, rows of an image and steps (or pixels of a row);
_k, _g and _n are directions, groups and states, _r is rows, _s the partial results of dB and dC; gu_b is the batch stride of the
gradient of u, and so on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


class Call(NamedTuple):
    """What is known when a kernel is compiled: how a sequence is read, and which of the inputs share what."""

    softplus: Any
    reverse: Any  # from the last step to the first
    image: Any  # the steps are pixels of an image
    pixels: Any  # delta, B and C lie in the order of the pixels, not in that of the steps
    shared: Any  # one delta for all directions
    divide: Any  # pixels are divided into rows and columns: an image whose rows do not follow each other
    wide: Any  # offsets within a sample need 64 bits
    constant_b: Any
    constant_c: Any


class Tile(NamedTuple):
    """Channels and states of a tile, and which of them exist."""

    d: Any  # (DR, DW, DL)
    d_exists: Any
    n: Any  # (NR, NL)
    n_exists: Any
    exists: Any  # both, over the tile
    matrix: Any  # offsets in a contiguous (dim, N)


class Parameters(NamedTuple):
    """What does not depend on the step. b and c are zeros unless B and C are constant."""

    A2: Any  # A log2(e), over the tile
    D: Any  # (DR, DW, DL)
    bias: Any
    b: Any  # over the tile
    c: Any


class Row(NamedTuple):
    """Where the inputs of a row begin, with their strides (`u_row` is that of an image's rows), and how its steps follow."""

    u: Any
    u_channel: Any
    u_row: Any
    u_step: Any
    delta: Any
    delta_channel: Any
    delta_step: Any
    B: Any
    B_state: Any
    B_step: Any
    C: Any
    C_state: Any
    C_step: Any
    end: Any  # one past the last step of the row
    length: Any  # of the whole sequence
    direction: Any  # see positions
    height: Any
    width: Any


class Steps(NamedTuple):
    """T steps: where they are in tensors in the order of u, and of B and C; masks of what exists of them."""

    pixel: Any  # (T,)
    order: Any
    inside: Any  # (DR, DW, DL, T)
    states_inside: Any  # (NR, NL, T)


@triton.jit
def split4(x, REVERSE: tl.constexpr):
    """The four entries of the last axis of (..., 4), the last one first if REVERSE."""
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
    """The states of a tile (NR, NL), and which of them exist."""
    n = tl.arange(0, NR)[:, None] * NL + tl.arange(0, NL)[None, :]
    return n, n < N


@triton.jit
def make_tile(d, d_exists, n, n_exists, N, one):
    """A tile of channels and states. `one` is 1, which must be hidden from the compiler: where it sees neighbours in memory it
    changes the layout of the whole tile."""
    exists = over_states(n_exists) & over_channels(d_exists)
    return Tile(d, d_exists, n, n_exists, exists, over_channels(d) * N + over_states(n * one))


@triton.jit
def channels(tile, dim_of_group, WIDE: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, DL: tl.constexpr):
    """(group, channels (DR, DW, DL), which of them exist) of a channel tile; a tile lies within one group."""
    tiles = tl.cdiv(dim_of_group, DR * DW * DL)
    d = tl.arange(0, DR)[:, None, None] * DW + tl.arange(0, DW)[None, :, None]
    d = d * DL + tl.arange(0, DL)[None, None, :] + (tile % tiles) * (DR * DW * DL)
    group = tile // tiles
    return group, index(d + group * dim_of_group, WIDE), d < dim_of_group


@triton.jit
def positions(first, length, direction, height, width, REVERSE: tl.constexpr, IMAGE: tl.constexpr, T: tl.constexpr):
    """(step, pixel) of T steps from `first` on. Direction 0 goes along the rows of an image, 1 down its columns, 2 and 3 likewise,
    reversed.

    A reversed sequence (REVERSE) is read forwards in memory, T steps at a time, and split4 then gives the last of them first.
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
    """An index to be multiplied with a stride: in 64 bits if offsets within a sample need them (the sample's index always is)."""
    return x.to(tl.int64) if WIDE else x


@triton.jit
def pixel_offset(pixel, width, row_stride, step_stride, IMAGE: tl.constexpr):
    """Offset of pixels in a tensor whose image rows, and whose pixels of a row, have these strides; or of steps."""
    return (pixel // width) * row_stride + (pixel % width) * step_stride if IMAGE else pixel * step_stride


@triton.jit
def softplus(x):
    """log(1 + exp(x)), linear above 20; the last term corrects for the rounding of 1 + exp(x)."""
    small = tl.exp(tl.minimum(x, 20.0))
    above = 1.0 + small
    return tl.where(x > 20.0, x, tl.log(above) + (small - (above - 1.0)) / above)


@triton.jit
def silu(x):
    """x times its sigmoid."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def decayed(x, d, A2):
    """a x, the state over a tile after the decay of a step; d is delta of that step, (DR, DW, DL)."""
    return tl.exp2(over_channels(d) * A2) * x


@triton.jit
def spread(offsets, steps):
    """The offsets of channels or states (...) plus those of T steps, (..., T)."""
    return tl.expand_dims(offsets, len(offsets.shape)) + tl.reshape(steps, (1,) * len(offsets.shape) + (steps.shape[0],))


@triton.jit
def widened(x):
    """x in float32. 16 bits are widened in two parts: a bfloat16 by its bytes, a float16 by its sign and magnitude. Triton 3.6
    would move a single widening, with all that is computed from it (softplus!), behind the broadcast of x over the tile, and
    compute it as often as there are states."""
    if x.dtype == tl.float32:
        return x
    elif x.dtype == tl.bfloat16:  # noqa: RET505  (Triton takes the return of one branch)
        bits = x.to(tl.uint16, bitcast=True)
        return (((bits >> 8).to(tl.uint32) << 24) | ((bits & 0xFF).to(tl.uint32) << 16)).to(tl.float32, bitcast=True)
    else:
        bits = x.to(tl.uint16, bitcast=True)
        magnitude = (bits & 0x7FFF).to(x.dtype, bitcast=True).to(tl.float32)
        return (magnitude.to(tl.uint32, bitcast=True) | ((bits >> 15).to(tl.uint32) << 31)).to(tl.float32, bitcast=True)


@triton.jit
def load_steps(base, offsets, steps, mask):
    """The elements of `base` at these offsets and steps (see spread), in float32."""
    return widened(tl.load(base + spread(offsets, steps), mask, 0.0))


@triton.jit
def activate(raw, inside, SOFTPLUS: tl.constexpr):
    """Delta as it enters the recurrence: 0 where nothing is there."""
    return tl.where(inside, softplus(raw) if SOFTPLUS else raw, 0.0)


@triton.jit
def load_parameters(A, B, C, D, bias, tile, first, N: tl.constexpr, call):
    """The parameters of a tile; `first` is the direction times dim: the row of A, D and bias where the direction begins."""
    A2 = tl.load(A + first * N + tile.matrix, tile.exists, 0.0) * LOG2E
    zeros = tl.zeros(tile.d.shape, tl.float32)
    bias_of_tile = zeros
    if bias is not None:
        bias_of_tile = tl.load(bias + first + tile.d, tile.d_exists, 0.0)
    D_of_tile = zeros
    if D is not None:
        D_of_tile = tl.load(D + first + tile.d, tile.d_exists, 0.0)
    b = tl.load(B + tile.matrix, tile.exists, 0.0) if call.constant_b else tl.zeros(A2.shape, tl.float32)
    c = tl.load(C + tile.matrix, tile.exists, 0.0) if call.constant_c else tl.zeros(A2.shape, tl.float32)
    return Parameters(A2, D_of_tile, bias_of_tile, b, c)


@triton.jit
def load_state(state, offset, channel_stride, state_stride, tile, one):
    """A tile of states at `offset` of a tensor whose channels and states have these strides, zeros where there is no tensor."""
    x = tl.zeros(tile.exists.shape, tl.float32)
    if state is not None:
        x += tl.load(state + offset + state_offsets(tile, channel_stride, state_stride, one), tile.exists, 0.0)
    return x


@triton.jit
def state_offsets(tile, channel_stride, state_stride, one):
    """Offsets of a tile in a tensor whose channels and states have these strides."""
    return over_channels(tile.d) * channel_stride + over_states(tile.n * one) * state_stride


@triton.jit
def bounds(r, segments, segment, length):
    """(sample in 64 bits, first step, one past the last step) of row r, where a sample has `segments` rows of `segment` steps."""
    begin = (r % segments) * segment
    return tl.zeros((), tl.int64) + r // segments, begin, tl.minimum(begin + segment, length)


@triton.jit
def steps_at(first, row, tile, call, T: tl.constexpr):
    """Steps first ... first + T - 1."""
    step, pixel = positions(first, row.length, row.direction, row.height, row.width, call.reverse, call.image, T)
    pixel = index(pixel, call.wide)
    order = pixel if call.pixels else index(step, call.wide)
    inside = tile.d_exists[:, :, :, None] & (step < row.end)[None, None, None, :]
    states_inside = tile.n_exists[:, :, None] & (step < row.end)[None, None, :]
    return Steps(pixel, order, inside, states_inside)


@triton.jit
def load_inputs(row, at, tile, bias, call):
    """(delta + bias, delta as it enters the recurrence, u) of T steps, (DR, DW, DL, T) each."""
    order = at.pixel if call.shared else at.order
    raw = load_steps(row.delta, tile.d * row.delta_channel, order * row.delta_step, at.inside) + bias[:, :, :, None]
    delta = activate(raw, at.inside, call.softplus)
    pixels = pixel_offset(at.pixel, row.width, row.u_row, row.u_step, call.divide)
    return raw, delta, load_steps(row.u, tile.d * row.u_channel, pixels, at.inside)


@triton.jit
def load_matrix(matrix, state_stride, step_stride, at, tile, constant, CONSTANT: tl.constexpr, call):
    """B or C of T steps, each over a tile."""
    if CONSTANT:
        return constant, constant, constant, constant
    else:  # noqa: RET505  (Triton takes the return of one branch)
        loaded = load_steps(matrix, index(tile.n, call.wide) * state_stride, at.order * step_stride, at.states_inside)
        x0, x1, x2, x3 = split4(loaded, call.reverse)
        return over_states(x0), over_states(x1), over_states(x2), over_states(x3)


@triton.jit
def store_sum(pointer, value, scratch, k, K: tl.constexpr, inside):
    """Store the sum of `value` over directions k = 0 ... K - 1, one call each.

    The sum so far lies in `scratch`, in float32, or in the output itself, if that is float32 and `scratch` None.
    """
    out: tl.constexpr = pointer.dtype.element_ty
    if K == 1:
        tl.store(pointer, value.to(out), inside)
    elif scratch is None:
        value += tl.load(pointer, when(k > 0, inside), 0.0)
        tl.store(pointer, value.to(out), inside)
    else:
        value += tl.load(scratch, when(k > 0, inside), 0.0)
        tl.store(scratch, value, when(k < K - 1, inside))
        tl.store(pointer, value.to(out), when(k == K - 1, inside))
