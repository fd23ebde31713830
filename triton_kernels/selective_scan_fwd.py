"""The scan forwards: sequential over steps, a tile of states and channels in registers.

Programs are (walker, channel tile); a walker takes every walkers-th row, a row being a sample, or one of the segments of
a long sequence, whose states then come from `carry`. Directions of an image follow each other in one program, and
their outputs are merged in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .selective_scan_tiles import (
    activate,
    channels,
    index,
    join4,
    load_steps,
    over_channels,
    over_states,
    pixel_offset,
    positions,
    split4,
    spread,
    states,
    sum_states,
    when,
)


@triton.jit(do_not_specialize=["rows", "walkers", "one"])
def scan_fwd(
    out, last, total, merge, u, delta, A, B, C, D, z, bias, initial,
    rows, dim, length, tiles, dim_of_group, segments, segment, walkers, share_b, share_c, height, width,
    out_b, out_d, out_h, out_l, u_b, u_d, u_h, u_l, delta_b, delta_k, delta_d, delta_l, z_b, z_d, z_l,
    B_b, B_g, B_n, B_l, C_b, C_g, C_n, C_l, init_r, init_d, init_n, one,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, DIRECTIONS: tl.constexpr, PIXELS: tl.constexpr,
    SHARED: tl.constexpr, WIDE: tl.constexpr, FLAT: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr,
    NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """out None: only the state that each row ends with (last) and its sum of delta (total), for segments.

    DIRECTIONS 0: a sequence. Else delta has stride delta_k by direction, A, D, bias are (K, dim, ...) and B, C have
    their group by direction; PIXELS: delta, B, C in pixel order. merge: (programs, DIM, length) scratch, or None: out.
    """
    T: tl.constexpr = 4
    IMAGE: tl.constexpr = DIRECTIONS > 0
    DIRECTION_STEP: tl.constexpr = 2 if DIRECTIONS == 2 else 1  # rows and rows reversed are the first and third of four
    program = tl.program_id(0)
    wide = tl.zeros((), tl.int64)  # widens what is added to it
    tile = program % tiles
    n, real = states(N, NR, NL)
    group, d, there = channels(tile, dim_of_group, WIDE, DR, DW, DL)
    both = over_states(real) & over_channels(there)
    at = over_channels(d) * N + over_states(n * one)
    A2 = tl.zeros((NR, DR, DW, NL, DL), tl.float32)
    skip = tl.zeros((DR, DW, DL), tl.float32)
    shift = tl.zeros((DR, DW, DL), tl.float32)
    if not IMAGE:
        A2 = tl.load(A + at, both, 0.0) * 1.4426950408889634
        if bias is not None:
            shift = tl.load(bias + d, there, 0.0)
        if D is not None:
            skip = tl.load(D + d, there, 0.0)
        if CONST_B:
            b = tl.load(B + at, both, 0.0)
        if CONST_C:
            c = tl.load(C + at, both, 0.0)
    for row in range(program // tiles, rows, walkers):
        sample = wide + row // segments
        begin = (row % segments) * segment
        end = tl.minimum(begin + segment, length)
        for k in range(DIRECTIONS if IMAGE else 1):
            if IMAGE:
                A2 = tl.load(A + (wide + k) * dim * N + at, both, 0.0) * 1.4426950408889634
                if bias is not None:
                    shift = tl.load(bias + k * dim + d, there, 0.0)
                if D is not None:
                    skip = tl.load(D + k * dim + d, there, 0.0)
                group = k
            x = tl.zeros((NR, DR, DW, NL, DL), tl.float32)
            if initial is not None:
                where = over_channels(d) * init_d + over_states(n * one) * init_n
                x += tl.load(initial + (wide + row) * init_r + where, both, 0.0)
            passed = tl.zeros((DR, DW, DL), tl.float32)
            row_delta = delta + sample * delta_b + (wide + k) * delta_k
            row_b = B + sample * B_b + (wide + group // share_b) * B_g
            row_c = C + sample * C_b + (wide + group // share_c) * C_g
            for first in range(begin, end, T):
                step, pixel = positions(first, end, length, k * DIRECTION_STEP, height, width, REVERSE, IMAGE, T)
                pixel = index(pixel, WIDE)
                order = pixel if PIXELS else index(step, WIDE)
                inside = there[:, :, :, None] & (step < end)[None, None, None, :]
                seen = real[:, :, None] & (step < end)[None, None, :]
                raw = load_steps(row_delta, d * delta_d, (pixel if SHARED else order) * delta_l, inside)
                steps = activate(raw + shift[:, :, :, None], inside, SOFTPLUS)
                value = load_steps(u + sample * u_b, d * u_d, pixel_offset(pixel, width, u_h, u_l, IMAGE and not FLAT), inside)
                ds = split4(steps, REVERSE)
                vs = split4(steps * value, REVERSE)
                if not CONST_B:
                    bs = split4(load_steps(row_b, index(n, WIDE) * B_n, order * B_l, seen), REVERSE)
                if out is not None and not CONST_C:
                    cs = split4(load_steps(row_c, index(n, WIDE) * C_n, order * C_l, seen), REVERSE)
                ys = ()
                for i in tl.static_range(T):
                    if not CONST_B:
                        b = over_states(bs[i])
                    x = tl.exp2(over_channels(ds[i]) * A2) * x + over_channels(vs[i]) * b
                    if out is not None:
                        if not CONST_C:
                            c = over_states(cs[i])
                        ys = ys + (sum_states(x * c),)
                    else:
                        passed += ds[i]
                if out is not None:
                    y = join4(ys, REVERSE) + skip[:, :, :, None] * value
                    if z is not None:
                        gate = load_steps(z + sample * z_b, d * z_d, pixel * z_l, inside)
                        y *= gate / (1.0 + tl.exp(-gate))
                    pointer = out + sample * out_b + spread(d * out_d, pixel_offset(pixel, width, out_h, out_l, IMAGE and not FLAT))
                    if DIRECTIONS > 1:
                        slot = spread((d % (DR * DW * DL)) * length, pixel)
                        if merge is None:
                            merged = pointer
                        else:
                            merged = merge + (wide + program) * (DR * DW * DL) * length + slot
                        y += tl.load(merged, when(wide + k > 0, inside), 0.0)
                        if merge is not None:
                            tl.store(merged, y, when(wide + k < DIRECTIONS - 1, inside))
                            tl.store(pointer, y.to(out.dtype.element_ty), when(wide + k == DIRECTIONS - 1, inside))
                        else:
                            tl.store(pointer, y.to(out.dtype.element_ty), inside)
                    else:
                        tl.store(pointer, y.to(out.dtype.element_ty), inside)
            if DIRECTIONS > 1:
                tl.debug_barrier()  # the next direction reads what other threads of this program wrote
            if last is not None:
                if out is None:
                    tl.store(last + (wide + row) * dim * N + at, x, both)
                    tl.store(total + (wide + row) * dim + d, passed, there)
                else:
                    tl.store(last + sample * dim * N + at, x, when((wide + row) % segments == segments - 1, both))


@triton.jit
def carry(state, local, total, A, initial, last, segments, dim, init_b, init_d, init_n, N: tl.constexpr, BACK: tl.constexpr,
          BLOCK: tl.constexpr):  # fmt: skip
    """The state (of the adjoint, if BACK) that each segment starts with, from what each alone ends with.

    state, local (batch, segments, dim, N), total (batch, segments, dim): into segment s enters exp(A total_{s-1}) times
    what entered s - 1, plus local_{s-1}. `initial` enters the first, the strides init_* its own; `last` takes what leaves
    the last.
    """
    blocks = tl.cdiv(dim * N, BLOCK)
    sample = tl.zeros((), tl.int64) + tl.program_id(0) // blocks
    i = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    there = i < dim * N
    A2 = tl.load(A + i, there, 0.0) * 1.4426950408889634
    x = tl.zeros((BLOCK,), tl.float32)
    if initial is not None:
        x += tl.load(initial + sample * init_b + (i // N).to(tl.int64) * init_d + (i % N) * init_n, there, 0.0)
    for s in range(segments):
        row = sample * segments + (segments - 1 - s if BACK else s)
        tl.store(state + row * dim * N + i, x, there)
        x = x * tl.exp2(A2 * tl.load(total + row * dim + i // N, there, 0.0)) + tl.load(local + row * dim * N + i, there, 0.0)
    if last is not None:
        tl.store(last + sample * dim * N + i, x, there)
