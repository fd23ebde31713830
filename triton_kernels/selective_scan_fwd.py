"""Selective scan, forward: x_l = exp(delta_l A) x_{l-1} + delta_l u_l B_l, y_l = sum_n C_l x_l + D u_l, out = y silu(z).

A tile of states and channels stays in registers while its program goes through the steps of a row, T at a time. A row is a
sample, or one of the segments of a long sequence, whose first states then come from selective_scan_segments.py. Program
(p, channel tile) takes every `row_programs`-th row from p on. The directions of an image are taken one after the other by one
program, and their outputs are added up in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .selective_scan_tiles import (
    Call,
    Row,
    bounds,
    channels,
    decayed,
    join4,
    load_inputs,
    load_matrix,
    load_parameters,
    load_state,
    load_steps,
    make_tile,
    over_channels,
    pixel_offset,
    silu,
    split4,
    spread,
    states,
    steps_at,
    store_sum,
    sum_states,
    when,
)


@triton.jit(do_not_specialize=["rows", "row_programs", "one"])
def selective_scan_fwd(
    out, last, delta_sums, merge, u, delta, A, B, C, D, z, bias, initial,
    rows, dim, length, tiles, dim_of_group, segments, segment, row_programs, share_b, share_c, height, width,
    out_b, out_d, out_h, out_l, u_b, u_d, u_h, u_l, delta_b, delta_k, delta_d, delta_l, z_b, z_d, z_l,
    B_b, B_g, B_n, B_l, C_b, C_g, C_n, C_l, init_r, init_d, init_n, one,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, DIRECTIONS: tl.constexpr, PIXELS: tl.constexpr,
    SHARED: tl.constexpr, WIDE: tl.constexpr, FLAT: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr,
    NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """If out is None, store only the state that each row ends with (last) and its sum of delta (delta_sums), for segments.

    DIRECTIONS 0 is a sequence. Otherwise delta has stride delta_k from direction to direction, A, D and bias are (K, dim, ...), and
    B and C have one group for each direction. With PIXELS, delta, B and C lie in pixel order. The directions are summed in merge,
    a scratch of (programs, DIM, length) floats, or in out itself if merge is None.
    """
    T: tl.constexpr = 4
    DIM: tl.constexpr = DR * DW * DL
    IMAGE: tl.constexpr = DIRECTIONS > 0
    K: tl.constexpr = DIRECTIONS if IMAGE else 1
    DIRECTION_STEP: tl.constexpr = 2 if DIRECTIONS == 2 else 1  # rows and rows reversed are the first and third of four
    call: tl.constexpr = Call(SOFTPLUS, REVERSE, IMAGE, PIXELS, SHARED, IMAGE and not FLAT, WIDE, CONST_B, CONST_C)
    program = tl.program_id(0)
    wide = tl.zeros((), tl.int64)  # widens what is added to it
    n, n_exists = states(N, NR, NL)
    group, d, d_exists = channels(program % tiles, dim_of_group, WIDE, DR, DW, DL)
    tile = make_tile(d, d_exists, n, n_exists, N, one)
    if not IMAGE:
        given = load_parameters(A, B, C, D, bias, tile, 0, N, call)
    for r in range(program // tiles, rows, row_programs):
        sample, begin, end = bounds(r, segments, segment, length)
        for k in range(K):
            p = load_parameters(A, B, C, D, bias, tile, (wide + k) * dim, N, call) if IMAGE else given
            group_of_k = k if IMAGE else group
            row = Row(u + sample * u_b, u_d, u_h, u_l, delta + sample * delta_b + (wide + k) * delta_k, delta_d, delta_l,
                      B + sample * B_b + (wide + group_of_k // share_b) * B_g, B_n, B_l,
                      C + sample * C_b + (wide + group_of_k // share_c) * C_g, C_n, C_l,
                      end, length, k * DIRECTION_STEP, height, width)  # fmt: skip
            x = load_state(initial, (wide + r) * init_r, init_d, init_n, tile, one)
            delta_sum = tl.zeros((DR, DW, DL), tl.float32)
            for first in range(begin, end, T):
                at = steps_at(first, row, tile, call, T)
                _, dt, ut = load_inputs(row, at, tile, p.bias, call)
                ds, vs = split4(dt, REVERSE), split4(dt * ut, REVERSE)
                bs = load_matrix(row.B, B_n, B_l, at, tile, p.b, CONST_B, call)
                if out is None:
                    x = advance(x, ds, vs, bs, p.A2, T)
                    for t in tl.static_range(T):
                        delta_sum += ds[t]
                else:
                    cs = load_matrix(row.C, C_n, C_l, at, tile, p.c, CONST_C, call)
                    x, y = _advance_with_outputs(x, ds, vs, bs, cs, p.A2, REVERSE, T)
                    y += p.D[:, :, :, None] * ut
                    if z is not None:
                        gate = load_steps(z + sample * z_b, d * z_d, at.pixel * z_l, at.inside)
                        y *= silu(gate)
                    pointer = out + sample * out_b + spread(d * out_d, pixel_offset(at.pixel, width, out_h, out_l, call.divide))
                    scratch = None
                    if merge is not None:
                        scratch = merge + (wide + program) * DIM * length + spread((d % DIM) * length, at.pixel)
                    store_sum(pointer, y, scratch, wide + k, K, at.inside)
            if K > 1:
                tl.debug_barrier()  # the next direction reads what other threads of this program wrote
            if last is not None:
                if out is None:
                    tl.store(last + (wide + r) * dim * N + tile.matrix, x, tile.exists)
                    tl.store(delta_sums + (wide + r) * dim + d, delta_sum, d_exists)
                else:
                    ends = when((wide + r) % segments == segments - 1, tile.exists)
                    tl.store(last + sample * dim * N + tile.matrix, x, ends)


@triton.jit
def advance(x, ds, vs, bs, A2, T: tl.constexpr):
    """The state after T steps. ds are their values of delta, vs the drives delta u, bs B."""
    for t in tl.static_range(T):
        x = decayed(x, ds[t], A2) + over_channels(vs[t]) * bs[t]
    return x


@triton.jit
def _advance_with_outputs(x, ds, vs, bs, cs, A2, REVERSE: tl.constexpr, T: tl.constexpr):
    """(state after T steps, sum_n C x after each of them)."""
    ys = ()
    for t in tl.static_range(T):
        x = decayed(x, ds[t], A2) + over_channels(vs[t]) * bs[t]
        ys = ys + (sum_states(x * cs[t]),)
    return x, join4(ys, REVERSE)
