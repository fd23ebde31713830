"""Depthwise causal convolution: one read and one write, the taps from cache; the backward computes the activation again.

Dense tensors are taken as their elements follow each other in memory, in packs of four. Elsewhere a tile is BLOCK_B samples x
BLOCK_D channels (its rows) x BLOCK_L steps, so that rows of a few steps fill a program too. The backward keeps its gradients of
weight and bias in registers over all its samples, writes partial sums, and those are added up in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2, processors, workspace, workspace_limit
from .noise import signed
from .selective_scan_tiles import LOG2E, join4, split4

TILE = {"fwd": 512, "bwd": 512}  # elements of a tile
STEPS = {"rows": 128, "channels_last": 32}  # most steps of a tile, by the layout of x
WARPS = 4
DENSE_PACKS, DENSE_PACKS_BACKWARD = 256, 128  # of a program


@triton.jit
def _silu(x):
    return x / (1.0 + tl.exp2(-x * LOG2E))  # as exp(-x), whose smallest values do not count beside 1


@triton.jit
def _row(program, batch, dim, tiles_d, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr):
    """Sample and channel of the rows of a tile, and which of them are there."""
    rows = tl.arange(0, BLOCK_B * BLOCK_D)
    sample = (program // tiles_d) * BLOCK_B + rows // BLOCK_D
    channel = (program % tiles_d) * BLOCK_D + rows % BLOCK_D
    return sample.to(tl.int64), channel.to(tl.int64), (sample < batch) & (channel < dim)


@triton.jit
def causal_conv1d_fwd(
    out, x, weight, bias, batch, dim, length, tiles_d, tiles_l,
    out_b, out_d, out_l, x_b, x_d, x_l, weight_d, weight_w, bias_d,
    SILU: tl.constexpr, WIDTH: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    sample, channel, there = _row(program // tiles_l, batch, dim, tiles_d, BLOCK_B, BLOCK_D)
    step = (program % tiles_l) * BLOCK_L + tl.arange(0, BLOCK_L)
    row = x + (sample * x_b + channel * x_d)[:, None]
    y = tl.zeros((BLOCK_B * BLOCK_D, BLOCK_L), tl.float32)
    if bias is not None:
        y += tl.load(bias + channel * bias_d, there, 0.0)[:, None]
    for w in tl.static_range(WIDTH):
        at = step - (WIDTH - 1 - w)
        seen = there[:, None] & ((at >= 0) & (at < length))[None, :]
        tap = tl.load(weight + channel * weight_d + w * weight_w, there, 0.0)
        y += tap[:, None] * tl.load(row + at.to(tl.int64)[None, :] * x_l, seen, 0.0).to(tl.float32)
    if SILU:
        y = _silu(y)
    target = out + (sample * out_b + channel * out_d)[:, None] + step.to(tl.int64)[None, :] * out_l
    tl.store(target, y.to(out.dtype.element_ty), there[:, None] & (step < length)[None, :])


@triton.jit
def _quotient(n, factor, shift):
    """n // d of int32 n >= 0, where factor and shift are _divider(d)."""
    return (tl.umulhi(n.to(tl.uint32), factor.to(tl.uint32, bitcast=True)) >> shift.to(tl.uint32)).to(tl.int32)


@triton.jit
def _packs(at, N: tl.constexpr):
    """Pointers to the four elements of each pack, as [N, 4]."""
    return at[:, None] + tl.arange(0, 4)[None, :]


@triton.jit
def _place(first, dim, length, length_factor, length_shift, dim_factor, dim_shift):
    """Channel and step of elements, and the channel of the row that follows."""
    row = _quotient(first, length_factor, length_shift)
    channel = row - _quotient(row, dim_factor, dim_shift) * dim
    return channel, first - row * length, tl.where(channel + 1 == dim, 0, channel + 1)


@triton.jit
def _coefficients(weight, bias, channel, weight_d, weight_w, bias_d, WIDTH: tl.constexpr, N: tl.constexpr):
    """The taps of a channel, and after them its bias."""
    found = ()
    for w in tl.static_range(WIDTH):
        found = found + (tl.load(weight + channel * weight_d + w * weight_w),)
    shift = tl.zeros((N,), tl.float32)
    if bias is not None:
        shift += tl.load(bias + channel * bias_d)
    return found + (shift,)


@triton.jit
def _row_start(step, end, P: tl.constexpr, CROSS: tl.constexpr):
    """Counted from a pack that begins at this step of a row, which ends before `end`: where the row of element P starts."""
    start = -step
    if CROSS:
        start = tl.where(end <= P, end, start)
    return start


@triton.jit
def _chosen(own, following, end, P: tl.constexpr, CROSS: tl.constexpr):
    """Of element P of a pack: its row's, of what two rows have."""
    if CROSS:
        own = tl.where(end <= P, following, own)
    return own


@triton.jit(do_not_specialize=["length_factor", "length_shift", "dim_factor", "dim_shift"])
def causal_conv1d_fwd_dense(
    out, x, weight, bias, dim, length, elements, length_factor, length_shift, dim_factor, dim_shift, weight_d, weight_w, bias_d,
    SILU: tl.constexpr, WIDTH: tl.constexpr, CROSS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """N packs of four elements that follow each other in memory, each loaded at once together with the pack before it.

    CROSS: the length is no multiple of four, so that a pack may hold the end of one row and the start of the next.
    """
    unbounded = (tl.program_id(0) * N + tl.arange(0, N)) * 4
    first = tl.minimum(unbounded, elements - 4)  # those past the end compute the last pack again
    channel, step, next_channel = _place(first, dim, length, length_factor, length_shift, dim_factor, dim_shift)
    end = length - step
    # What is in front of the first row is loaded from it, and not used.
    window = split4(tl.load(x + _packs(tl.maximum(first - 4, 0), N)).to(tl.float32), False)
    window = window + split4(tl.load(x + _packs(first, N)).to(tl.float32), False)
    own = _coefficients(weight, bias, channel, weight_d, weight_w, bias_d, WIDTH, N)
    following = own
    if CROSS:
        following = _coefficients(weight, bias, next_channel, weight_d, weight_w, bias_d, WIDTH, N)
    outs = ()
    for j in tl.static_range(4):
        start = _row_start(step, end, j, CROSS)
        y = _chosen(own[WIDTH], following[WIDTH], end, j, CROSS)
        for w in tl.static_range(WIDTH):
            value = window[j + w + 5 - WIDTH]
            if w < WIDTH - 1:
                value = tl.where(start <= j + w + 1 - WIDTH, value, 0.0)
            y += _chosen(own[w], following[w], end, j, CROSS) * value
        if SILU:
            y = _silu(y)
        outs = outs + (y,)
    packs = join4(outs, False)
    tl.store(out + _packs(first, N), packs.to(out.dtype.element_ty), (unbounded < elements)[:, None])


@triton.jit
def _slope(y):
    """The derivative of silu."""
    sigmoid = 1.0 / (1.0 + tl.exp2(-y * LOG2E))
    return sigmoid * (1.0 + y * (1.0 - sigmoid))


@triton.jit(do_not_specialize=["length_factor", "length_shift", "dim_factor", "dim_shift"])
def causal_conv1d_bwd_dense(
    grad_x, partial, grad_out, x, weight, bias, dim, length, elements, period, periods, tiles, sample_programs,
    length_factor, length_shift, dim_factor, dim_shift, weight_d, weight_w, bias_d,
    SILU: tl.constexpr, WIDTH: tl.constexpr, CROSS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Program (p, tile) takes a tile's packs in every sample_programs-th period from p on; a period is one sample or several.

    An element hands back what the outputs up to WIDTH - 1 steps on receive, so that the activation of those is computed again in
    the pack after it too. The sums over the samples stay apart by element. partial: (sample_programs, WIDTH + 1, period).
    """
    tile, sample_program = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    at = (tile * N + tl.arange(0, N)) * 4  # in a period
    channel, step, next_channel = _place(at, dim, length, length_factor, length_shift, dim_factor, dim_shift)
    end = length - step
    own = _coefficients(weight, bias, channel, weight_d, weight_w, bias_d, WIDTH, N)
    following = own
    if CROSS:
        following = _coefficients(weight, bias, next_channel, weight_d, weight_w, bias_d, WIDTH, N)
    sums = ()
    for _ in tl.static_range(4 * (WIDTH + 1)):
        sums = sums + (tl.zeros((N,), tl.float32),)
    for n in range(sample_program, periods, sample_programs):
        unbounded = n * period + at
        there = (at < period) & (unbounded < elements)
        first = tl.minimum(unbounded, elements - 4)
        after = tl.minimum(first + 4, elements - 4)
        # What is in front of the first row and behind the last one is loaded from them, and not used.
        xs = split4(tl.load(x + _packs(tl.maximum(first - 4, 0), N)).to(tl.float32), False)
        xs = xs + split4(tl.load(x + _packs(first, N)).to(tl.float32), False)
        xs = xs + split4(tl.load(x + _packs(after, N)).to(tl.float32), False)
        gs = split4(tl.load(grad_out + _packs(first, N), there[:, None], 0.0).to(tl.float32), False)
        gs = gs + split4(tl.load(grad_out + _packs(after, N)).to(tl.float32), False)
        received, new = (), ()
        for p in tl.static_range(3 + WIDTH):
            row_start = _row_start(step, end, p, CROSS)
            g = gs[p]
            y = _chosen(own[WIDTH], following[WIDTH], end, p, CROSS)
            values = ()
            for w in tl.static_range(WIDTH):
                value = xs[p + w + 5 - WIDTH]
                if w < WIDTH - 1:
                    value = tl.where(row_start <= p + w + 1 - WIDTH, value, 0.0)
                values = values + (value,)
                y += _chosen(own[w], following[w], end, p, CROSS) * value
            if SILU:
                g *= _slope(y)
            received = received + (g,)
            if p < 4:
                for w in tl.static_range(WIDTH):
                    new = new + (sums[p * (WIDTH + 1) + w] + g * values[w],)
                new = new + (sums[p * (WIDTH + 1) + WIDTH] + g,)
        sums = new
        if grad_x is not None:
            outs = ()
            for j in tl.static_range(4):
                row_end = _chosen(end, end + length, end, j, CROSS)
                gradient = tl.zeros((N,), tl.float32)
                for p in tl.static_range(WIDTH):
                    g = received[j + p]
                    if p > 0:
                        g = tl.where(row_end > j + p, g, 0.0)
                    gradient += _chosen(own[WIDTH - 1 - p], following[WIDTH - 1 - p], end, j, CROSS) * g
                outs = outs + (gradient,)
            packs = join4(outs, False)
            tl.store(grad_x + _packs(first, N), packs.to(grad_x.dtype.element_ty), there[:, None])
    if partial is not None:
        for w in tl.static_range(WIDTH + 1):
            packs = join4((sums[w], sums[WIDTH + 1 + w], sums[2 * (WIDTH + 1) + w], sums[3 * (WIDTH + 1) + w]), False)
            to = partial + (sample_program * (WIDTH + 1) + w) * period
            tl.store(to + _packs(at, N), packs, (at < period)[:, None])


@triton.jit
def causal_conv1d_bwd(
    grad_x, partial, grad_out, x, weight, bias, batch, dim, length, tiles_b, tiles_d, sample_programs,
    gx_b, gx_d, gx_l, go_b, go_d, go_l, x_b, x_d, x_l, weight_d, weight_w, bias_d,
    SILU: tl.constexpr, WIDTH: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Program (p, channel tile) takes every sample_programs-th sample tile from p on.

    partial: (sample_programs, BLOCK_B, WIDTH + 1, dim).
    """
    program = tl.program_id(0)
    sample_program = program // tiles_d
    sums = ()
    for _ in tl.static_range(WIDTH + 1):
        sums = sums + (tl.zeros((BLOCK_B * BLOCK_D, BLOCK_L), tl.float32),)
    _, channel, _ = _row(program % tiles_d, batch, dim, tiles_d, BLOCK_B, BLOCK_D)
    taps = ()
    for w in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + channel * weight_d + w * weight_w, channel < dim, 0.0)[:, None],)
    shift = tl.zeros((BLOCK_B * BLOCK_D, 1), tl.float32)
    if bias is not None:
        shift += tl.load(bias + channel * bias_d, channel < dim, 0.0)[:, None]
    for tile in range(sample_program, tiles_b, sample_programs):
        sample, channel, there = _row(tile * tiles_d + program % tiles_d, batch, dim, tiles_d, BLOCK_B, BLOCK_D)
        for start in range(0, length, BLOCK_L):
            step = start + tl.arange(0, BLOCK_L)
            row = x + (sample * x_b + channel * x_d)[:, None]
            row_out = grad_out + (sample * go_b + channel * go_d)[:, None]
            xs = ()
            for i in tl.static_range(2 * WIDTH - 1):  # x at step - WIDTH + 1 + i
                at = step + (i - WIDTH + 1)
                seen = there[:, None] & ((at >= 0) & (at < length))[None, :]
                xs = xs + (tl.load(row + at.to(tl.int64)[None, :] * x_l, seen, 0.0).to(tl.float32),)
            gradient = tl.zeros((BLOCK_B * BLOCK_D, BLOCK_L), tl.float32)
            for j in tl.static_range(WIDTH):  # what the output at step + j hands back
                at = step + j
                seen = there[:, None] & (at < length)[None, :]
                g = tl.load(row_out + at.to(tl.int64)[None, :] * go_l, seen, 0.0).to(tl.float32)
                if SILU:
                    y = gradient * 0.0 + shift
                    for w in tl.static_range(WIDTH):
                        y += taps[w] * xs[j + w]
                    g *= _slope(y)
                gradient += taps[WIDTH - 1 - j] * g
                if j == 0:
                    new = ()
                    for w in tl.static_range(WIDTH):
                        new = new + (sums[w] + g * xs[w],)
                    sums = new + (sums[WIDTH] + g,)
            if grad_x is not None:
                target = grad_x + (sample * gx_b + channel * gx_d)[:, None] + step.to(tl.int64)[None, :] * gx_l
                tl.store(target, gradient.to(grad_x.dtype.element_ty), there[:, None] & (step < length)[None, :])
    if partial is not None:
        part = sample_program * BLOCK_B + tl.arange(0, BLOCK_B * BLOCK_D) // BLOCK_D
        for w in tl.static_range(WIDTH + 1):
            tl.store(partial + (part.to(tl.int64) * (WIDTH + 1) + w) * dim + channel, tl.sum(sums[w], 1), channel < dim)


def _blocks(x: torch.Tensor, direction: str) -> dict[str, int]:
    batch, dim, length = x.shape
    steps = STEPS["channels_last" if x.stride(1) == 1 and length > 1 else "rows"]
    block_l = min(steps, next_power_of_2(length))
    block_d = min(next_power_of_2(dim), TILE[direction] // block_l)
    return {"BLOCK_L": block_l, "BLOCK_D": block_d, "BLOCK_B": min(next_power_of_2(batch), TILE[direction] // block_l // block_d)}


def _divider(d: int) -> tuple[int, int]:
    """Factor and shift with which a number below 2^31 is divided by d >= 2: n // d is the high word of n * factor, shifted."""
    bits = (d - 1).bit_length()
    return signed(2 ** (31 + bits) // d + 1), bits - 1


def _dense(*tensors: torch.Tensor | None) -> bool:
    """Whether packs of four elements cover the tensors, at most one row's end in each, by 32-bit indices."""
    _, dim, length = tensors[0].shape
    elements = tensors[0].numel()
    fits = dim >= 2 and length >= 4 and elements % 4 == 0 and elements < 2**31 - 4 * DENSE_PACKS
    return fits and all(x is None or x.is_contiguous() for x in tensors)


def forward(outputs, x, weight, bias, silu):
    out = outputs[0]
    batch, dim, length = x.shape
    if x.numel() == 0:
        return
    if _dense(x, out):
        packs = DENSE_PACKS
        launch(
            causal_conv1d_fwd_dense, cdiv(x.numel(), 4 * packs),
            out, x, weight, bias, dim, length, x.numel(), *_divider(length), *_divider(dim), *weight.stride(),
            0 if bias is None else bias.stride(0),
            SILU=silu, WIDTH=weight.shape[1], CROSS=length % 4 != 0, N=packs, num_warps=WARPS,
        )  # fmt: skip
        return
    blocks = _blocks(x, "fwd")
    tiles_d, tiles_l = cdiv(dim, blocks["BLOCK_D"]), cdiv(length, blocks["BLOCK_L"])
    launch(
        causal_conv1d_fwd, cdiv(batch, blocks["BLOCK_B"]) * tiles_d * tiles_l,
        out, x, weight, bias, batch, dim, length, tiles_d, tiles_l,
        *out.stride(), *x.stride(), *weight.stride(), 0 if bias is None else bias.stride(0),
        SILU=silu, WIDTH=weight.shape[1], **blocks, num_warps=WARPS,
    )  # fmt: skip


def _dense_backward(outputs, grad_out, x, weight, bias, silu) -> bool:
    """Whether tensors are dense, of samples enough for the sums to take little of the time and the memory; if so, the gradients."""
    grad_x, grad_weight, grad_bias = outputs
    if not _dense(x, grad_out, *outputs[:1]):
        return False
    (_, dim, length), width = x.shape, weight.shape[1]
    samples = max(1, 4 * DENSE_PACKS_BACKWARD // (dim * length))
    period = samples * dim * length
    tiles, periods = cdiv(period, 4 * DENSE_PACKS_BACKWARD), cdiv(x.numel(), period)
    summed = grad_weight is not None or grad_bias is not None
    room = workspace_limit(x, grad_out, grad_x) // (4 * (width + 1) * period)
    sample_programs = min(max(1, 4 * processors(x.device) // tiles), periods // 4, room)
    if sample_programs < 1 or period % 4:
        return False
    partial = workspace(x, sample_programs, width + 1, samples, dim, length) if summed else None
    launch(
        causal_conv1d_bwd_dense, sample_programs * tiles,
        grad_x, partial, grad_out, x, weight, bias, dim, length, x.numel(), period, periods, tiles, sample_programs,
        *_divider(length), *_divider(dim), *weight.stride(), 0 if bias is None else bias.stride(0),
        SILU=silu, WIDTH=width, CROSS=length % 4 != 0, N=DENSE_PACKS_BACKWARD, num_warps=WARPS, registers=128,
    )  # fmt: skip
    if grad_weight is not None:
        torch.sum(partial[:, :width], (0, 2, 4), out=grad_weight.t())
    if grad_bias is not None:
        torch.sum(partial[:, width], (0, 1, 3), out=grad_bias)
    return True


def backward(outputs, grad_out, x, weight, bias, silu, needs):
    grad_x, grad_weight, grad_bias = outputs
    batch, dim, length = x.shape
    if x.numel() == 0:
        for grad in outputs:
            if grad is not None:
                grad.zero_()
        return
    if _dense_backward(outputs, grad_out, x, weight, bias, silu):
        return
    blocks, width = _blocks(x, "bwd"), weight.shape[1]
    tiles_b, tiles_d = cdiv(batch, blocks["BLOCK_B"]), cdiv(dim, blocks["BLOCK_D"])
    sample_programs = min(tiles_b, max(1, 8 * processors(x.device) // tiles_d))
    summed = grad_weight is not None or grad_bias is not None
    partial = workspace(x, sample_programs * blocks["BLOCK_B"], width + 1, dim) if summed else None
    launch(
        causal_conv1d_bwd, sample_programs * tiles_d,
        grad_x, partial, grad_out, x, weight, bias, batch, dim, length, tiles_b, tiles_d, sample_programs,
        *((0, 0, 0) if grad_x is None else grad_x.stride()), *grad_out.stride(), *x.stride(), *weight.stride(),
        0 if bias is None else bias.stride(0), SILU=silu, WIDTH=width, **blocks, num_warps=WARPS,
    )  # fmt: skip
    if grad_weight is not None:
        torch.sum(partial[:, :width], 0, out=grad_weight.t())
    if grad_bias is not None:
        torch.sum(partial[:, width], 0, out=grad_bias)
