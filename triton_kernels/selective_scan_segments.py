"""What crosses the borders between the segments of a long sequence: states, and in the backward carries (a_l lambda_l in the
names of selective_scan_bwd.py). First every segment alone, then from border to border.

A segment that starts with state x ends with exp(A sum delta) x plus the state that it ends with when it starts with zero; the
adjoint likewise, backwards. For every segment alone, selective_scan_fwd (with out=None) computes the state that it ends with, and
selective_scan_adjoint the carry that it ends with, which is the gradient of the state that it starts with; from these,
selective_scan_borders computes what enters each segment.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .selective_scan_tiles import (
    LOG2E,
    Call,
    Row,
    channels,
    decayed,
    load_inputs,
    load_matrix,
    load_parameters,
    load_steps,
    make_tile,
    over_channels,
    silu,
    split4,
    states,
    steps_at,
)


@triton.jit
def selective_scan_borders(
    state, ends, delta_sums, A, initial, last, segments, dim, init_b, init_d, init_n,
    N: tl.constexpr, BACK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The state (or, if BACK, the carry) that enters each segment, from what each alone ends with.

    state, ends (batch, segments, dim, N), delta_sums (batch, segments, dim): exp(A delta_sums_{s-1}) times what entered segment
    s - 1, plus ends_{s-1}, enters segment s; if BACK, the segment after, s + 1, takes the place of s - 1. `initial`, with strides
    init_*, enters the first segment (if BACK, the last); `last` receives what leaves at the other end.
    """
    blocks = tl.cdiv(dim * N, BLOCK)
    sample = tl.zeros((), tl.int64) + tl.program_id(0) // blocks
    i = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    there = i < dim * N
    A2 = tl.load(A + i, there, 0.0) * LOG2E
    x = tl.zeros((BLOCK,), tl.float32)
    if initial is not None:
        x += tl.load(initial + sample * init_b + (i // N).to(tl.int64) * init_d + (i % N) * init_n, there, 0.0)
    for s in range(segments):
        row = sample * segments + (segments - 1 - s if BACK else s)
        tl.store(state + row * dim * N + i, x, there)
        x = x * tl.exp2(A2 * tl.load(delta_sums + row * dim + i // N, there, 0.0)) + tl.load(ends + row * dim * N + i, there, 0.0)
    if last is not None:
        tl.store(last + sample * dim * N + i, x, there)


@triton.jit(do_not_specialize=["rows", "one"])
def selective_scan_adjoint(
    ends, grad_out, delta, A, C, z, bias,
    rows, dim, length, tiles, dim_of_group, segments, segment, share_c,
    go_b, go_d, go_l, delta_b, delta_d, delta_l, z_b, z_d, z_l, C_b, C_g, C_n, C_l, one,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, WIDE: tl.constexpr, CONST_C: tl.constexpr,
    NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """The gradient of the state before each segment, from that segment alone: ends (rows, dim, N). In `row`, grad_out takes the
    place of u, and C that of B. A program takes one row and channel tile."""
    T: tl.constexpr = 4
    call: tl.constexpr = Call(
        SOFTPLUS, REVERSE, image=False, pixels=True, shared=True, divide=False, wide=WIDE, constant_b=False, constant_c=CONST_C
    )
    r = tl.zeros((), tl.int64) + tl.program_id(0) // tiles
    sample = r // segments
    begin = (r % segments).to(tl.int32) * segment
    end = tl.minimum(begin + segment, length)
    n, n_exists = states(N, NR, NL)
    group, d, d_exists = channels(tl.program_id(0) % tiles, dim_of_group, WIDE, DR, DW, DL)
    tile = make_tile(d, d_exists, n, n_exists, N, one)
    p = load_parameters(A, A, C, None, bias, tile, 0, N, call)
    row_c = C + sample * C_b + (tl.zeros((), tl.int64) + group // share_c) * C_g
    row = Row(grad_out + sample * go_b, go_d, 0, go_l, delta + sample * delta_b, delta_d, delta_l,
              row_c, C_n, C_l, row_c, C_n, C_l, end, length, 0, 1, 1)  # fmt: skip
    carry = tl.zeros((NR, DR, DW, NL, DL), tl.float32)
    blocks = tl.cdiv(end - begin, T)
    for behind in range(blocks):
        at = steps_at(begin + (blocks - 1 - behind) * T, row, tile, call, T)
        raw, dt, grad_y = load_inputs(row, at, tile, p.bias, call)
        ds = split4(dt, REVERSE)
        if z is not None:
            gate = load_steps(z + sample * z_b, d * z_d, at.pixel * z_l, at.inside)
            grad_y *= silu(gate)
        gs = split4(grad_y, REVERSE)
        cs = load_matrix(row_c, C_n, C_l, at, tile, p.c, CONST_C, call)
        for s in tl.static_range(T):
            g = over_channels(gs[T - 1 - s])
            carry = decayed(carry + g * cs[T - 1 - s], ds[T - 1 - s], p.A2)
    tl.store(ends + r * dim * N + tile.matrix, carry, tile.exists)
