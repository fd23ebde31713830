"""The scan backwards: the states computed again, T steps of them in registers, then the adjoint over those steps.

For a channel and a state: x_l = a_l x_{l-1} + w_l B_l with a_l = exp(delta_l A), w_l = delta_l u_l, y_l = sum_n C_l x_l + D u_l;
lambda_l = g_l C_l + a_{l+1} lambda_{l+1} with g = dL/dy, from the last step back. Then dC_l = sum over channels of g_l x_l,
dB_l = sum over channels of lambda_l w_l, and with e_l = lambda_l a_l x_{l-1}: dA = sum_l e_l delta_l,
ddelta_l = u_l sum_n lambda_l B_l + sum_n e_l A, du_l = delta_l sum_n lambda_l B_l + D g_l. In the code `adjoint` is lambda_l, then
a_l lambda_l; `A2` is A log2(e); `sums_drive` are the sum_n lambda_l B_l, `sums_exponent` the sum_n e_l A2.

A program keeps a state every CHUNK steps of its row, and of the chunk at hand one every T steps, in scratch of its own.
Channel tiles that share B and C follow each other in one program (`items`), or lie in programs of their own (`parts`)
whose sums of dB and dC are added up afterwards; so do the directions of an image.

`one` is 1, which the compiler may not know: where it sees neighbours in memory it changes the layout of the whole tile.
`one_float` is 1.0, likewise: it would keep an exp in registers instead of computing it again.
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


@triton.jit
def _sum_channels(x):
    """A tile to (NR, DW, NL): the sum over a warp's channels."""
    return tl.sum(tl.sum(x, 1), 3)


@triton.jit(do_not_specialize=["rows", "walkers", "chunk", "slots", "one"])
def scan_bwd(
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial,
    grad_out, grad_last, u, delta, A, B, C, D, z, bias, initial, scratch, merge_u, merge_delta,
    rows, dim, length, parts, items, tiles_of_group, dim_of_group, segments, segment, chunk, walkers, share_b, share_c,
    height, width, slots,
    gu_b, gu_d, gu_h, gu_l, gd_b, gd_k, gd_d, gd_l, gB_b, gB_s, gB_n, gB_l, gC_b, gC_s, gC_n, gC_l, gz_b, gz_d, gz_l,
    gi_b, gi_d, gi_n, go_b, go_d, go_h, go_l, gl_r, gl_d, gl_n,
    u_b, u_d, u_h, u_l, delta_b, delta_k, delta_d, delta_l, z_b, z_d, z_l,
    B_b, B_g, B_n, B_l, C_b, C_g, C_n, C_l, init_r, init_d, init_n, one, one_float,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, DIRECTIONS: tl.constexpr, PIXELS: tl.constexpr,
    SHARED: tl.constexpr, WIDE: tl.constexpr, FLAT: tl.constexpr, RESIDENT: tl.constexpr,
    CONST_B: tl.constexpr, CONST_C: tl.constexpr,
    NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """grad_A, grad_D, grad_bias, and grad_B, grad_C if constant: partial sums (walkers, K, dim, ...), else as they are.

    RESIDENT: one item, whose parameters and their gradients stay in registers. grad_B, grad_C: by slot, a group's part.
    SHARED: one delta for all directions. merge_u, merge_delta: (programs, DIM, length) scratch, None: in place.
    """
    T: tl.constexpr = 4
    DIM: tl.constexpr = DR * DW * DL
    TILE: tl.constexpr = NR * NL * DIM
    LOG2E: tl.constexpr = 1.4426950408889634
    IMAGE: tl.constexpr = DIRECTIONS > 0
    DIRECTION_STEP: tl.constexpr = 2 if DIRECTIONS == 2 else 1  # rows and rows reversed are the first and third of four
    K: tl.constexpr = DIRECTIONS if IMAGE else 1
    DIVIDE: tl.constexpr = IMAGE and not FLAT  # pixels into rows and columns
    program = tl.program_id(0)
    wide = tl.zeros((), tl.int64)  # widens what is added to it
    part = program % parts
    walker = program // parts
    n, real = states(N, NR, NL)
    lane = tl.arange(0, NR)[:, None, None, None, None] * DR + tl.arange(0, DR)[None, :, None, None, None]
    lane = lane * DW + tl.arange(0, DW)[None, None, :, None, None]
    lane = (lane * NL + tl.arange(0, NL)[None, None, None, :, None]) * DL + tl.arange(0, DL)[None, None, None, None, :] * one
    scratch += (wide + program) * slots * TILE
    fine = scratch + (wide + tl.cdiv(segment, chunk)) * TILE
    zero = tl.zeros((NR, DR, DW, NL, DL), tl.float32)
    nothing = tl.zeros((DR, DW, DL, T), tl.float32)
    group, d, there = channels(part * items, dim_of_group, WIDE, DR, DW, DL)
    both = over_states(real) & over_channels(there)
    at = over_channels(d) * N + over_states(n * one)
    shift = tl.zeros((DR, DW, DL), tl.float32)
    skip = tl.zeros((DR, DW, DL), tl.float32)
    if RESIDENT:
        A2 = tl.load(A + at, both, 0.0) * LOG2E
        if bias is not None:
            shift = tl.load(bias + d, there, 0.0)
        if D is not None:
            skip = tl.load(D + d, there, 0.0)
        if CONST_B:
            b = tl.load(B + at, both, 0.0)
        if CONST_C:
            c = tl.load(C + at, both, 0.0)
        sum_A, sum_B, sum_C, sum_D, sum_bias = zero, zero, zero, nothing, nothing
    for row in range(walker, rows, walkers):
        sample = wide + row // segments
        begin = (row % segments) * segment
        end = tl.minimum(begin + segment, length)
        for item in range(1 if RESIDENT else items):
            k = item % K
            if not RESIDENT:
                group, d, there = channels(part * (items // K) + item // K, dim_of_group, WIDE, DR, DW, DL)
                both = over_states(real) & over_channels(there)
                at = over_channels(d) * N + over_states(n * one)
                A2 = tl.load(A + (wide + k) * dim * N + at, both, 0.0) * LOG2E
                if bias is not None:
                    shift = tl.load(bias + k * dim + d, there, 0.0)
                if D is not None:
                    skip = tl.load(D + k * dim + d, there, 0.0)
                if CONST_B:
                    b = tl.load(B + at, both, 0.0)
                if CONST_C:
                    c = tl.load(C + at, both, 0.0)
                sum_A, sum_B, sum_C, sum_D, sum_bias = zero, zero, zero, nothing, nothing
            if IMAGE:
                group = k
            row_u = u + sample * u_b
            row_delta = delta + sample * delta_b + (wide + k) * delta_k
            row_b = B + sample * B_b + (wide + group // share_b) * B_g
            row_c = C + sample * C_b + (wide + group // share_c) * C_g
            x = zero
            if initial is not None:
                where = over_channels(d) * init_d + over_states(n * one) * init_n
                x += tl.load(initial + (wide + row) * init_r + where, both, 0.0)
            chunks = tl.cdiv(end - begin, chunk)
            for i in range(chunks):
                tl.store(scratch + (wide + i) * TILE + lane, x)
                if i < chunks - 1:
                    for first in range(begin + i * chunk, begin + (i + 1) * chunk, T):
                        step, pixel = positions(first, end, length, k * DIRECTION_STEP, height, width, REVERSE, IMAGE, T)
                        pixel = index(pixel, WIDE)
                        order = pixel if PIXELS else index(step, WIDE)
                        inside = there[:, :, :, None] & (step < end)[None, None, None, :]
                        delta_at = pixel if SHARED else order
                        raw = load_steps(row_delta, d * delta_d, delta_at * delta_l, inside) + shift[:, :, :, None]
                        steps = activate(raw, inside, SOFTPLUS)
                        value = load_steps(row_u, d * u_d, pixel_offset(pixel, width, u_h, u_l, DIVIDE), inside)
                        ds, vs = split4(steps, REVERSE), split4(steps * value, REVERSE)
                        if not CONST_B:
                            seen = real[:, :, None] & (step < end)[None, None, :]
                            bs = split4(load_steps(row_b, index(n, WIDE) * B_n, order * B_l, seen), REVERSE)
                        for t in tl.static_range(T):
                            if not CONST_B:
                                b = over_states(bs[t])
                            x = tl.exp2(over_channels(ds[t]) * A2) * x + over_channels(vs[t]) * b
            adjoint = zero
            if grad_last is not None:
                where = over_channels(d) * gl_d + over_states(n * one) * gl_n
                adjoint += tl.load(grad_last + (wide + row) * gl_r + where, both, 0.0)
            tl.debug_barrier()
            for back in range(chunks):
                i = chunks - 1 - back
                start = begin + i * chunk
                groups = tl.cdiv(tl.minimum(chunk, end - start), T)
                x = tl.load(scratch + (wide + i) * TILE + lane)
                for j in range(groups):
                    tl.store(fine + (wide + j) * TILE + lane, x)
                    if j < groups - 1:
                        step, pixel = positions(start + j * T, end, length, k * DIRECTION_STEP, height, width, REVERSE, IMAGE, T)
                        pixel = index(pixel, WIDE)
                        order = pixel if PIXELS else index(step, WIDE)
                        inside = there[:, :, :, None] & (step < end)[None, None, None, :]
                        delta_at = pixel if SHARED else order
                        raw = load_steps(row_delta, d * delta_d, delta_at * delta_l, inside) + shift[:, :, :, None]
                        steps = activate(raw, inside, SOFTPLUS)
                        value = load_steps(row_u, d * u_d, pixel_offset(pixel, width, u_h, u_l, DIVIDE), inside)
                        ds, vs = split4(steps, REVERSE), split4(steps * value, REVERSE)
                        if not CONST_B:
                            seen = real[:, :, None] & (step < end)[None, None, :]
                            bs = split4(load_steps(row_b, index(n, WIDE) * B_n, order * B_l, seen), REVERSE)
                        for t in tl.static_range(T):
                            if not CONST_B:
                                b = over_states(bs[t])
                            x = tl.exp2(over_channels(ds[t]) * A2) * x + over_channels(vs[t]) * b
                tl.debug_barrier()
                for behind in range(groups):
                    j = groups - 1 - behind
                    step, pixel = positions(start + j * T, end, length, k * DIRECTION_STEP, height, width, REVERSE, IMAGE, T)
                    pixel = index(pixel, WIDE)
                    order = pixel if PIXELS else index(step, WIDE)
                    delta_at = pixel if SHARED else order
                    inside = there[:, :, :, None] & (step < end)[None, None, None, :]
                    seen = real[:, :, None] & (step < end)[None, None, :]
                    raw = load_steps(row_delta, d * delta_d, delta_at * delta_l, inside) + shift[:, :, :, None]
                    steps = activate(raw, inside, SOFTPLUS)
                    value = load_steps(row_u, d * u_d, pixel_offset(pixel, width, u_h, u_l, DIVIDE), inside)
                    given = load_steps(grad_out + sample * go_b, d * go_d, pixel_offset(pixel, width, go_h, go_l, DIVIDE), inside)
                    ds, vs = split4(steps, REVERSE), split4(steps * value, REVERSE)
                    gradient = given
                    if z is not None:
                        gate = load_steps(z + sample * z_b, d * z_d, pixel * z_l, inside)
                        open = 1.0 / (1.0 + tl.exp(-gate))
                        gradient = given * gate * open
                    gs = split4(gradient, REVERSE)
                    if not CONST_B:
                        bs = split4(load_steps(row_b, index(n, WIDE) * B_n, order * B_l, seen), REVERSE)
                    if not CONST_C:
                        cs = split4(load_steps(row_c, index(n, WIDE) * C_n, order * C_l, seen), REVERSE)
                    x = tl.load(fine + (wide + j) * TILE + lane)
                    decayed = ()
                    for t in tl.static_range(T):
                        if not CONST_B:
                            b = over_states(bs[t])
                        e = tl.exp2(over_channels(ds[t]) * A2)
                        decayed = decayed + (e * x,)  # e itself is computed again: registers are scarcer than exps
                        x = decayed[t] + over_channels(vs[t]) * b
                    sums_drive, sums_exponent, ys, to_b, to_c = (), (), (), (), ()
                    for s in tl.static_range(T):
                        if not CONST_B:
                            b = over_states(bs[T - 1 - s])
                        if not CONST_C:
                            c = over_states(cs[T - 1 - s])
                        v, g = over_channels(vs[T - 1 - s]), over_channels(gs[T - 1 - s])
                        x = decayed[T - 1 - s] + v * b
                        if z is not None:
                            ys = (sum_states(x * c),) + ys
                        if grad_C is not None:
                            if CONST_C:
                                sum_C += g * x
                            else:
                                to_c = (_sum_channels(g * x),) + to_c
                        adjoint += g * c
                        if grad_B is not None:
                            if CONST_B:
                                sum_B += adjoint * v
                            else:
                                to_b = (_sum_channels(adjoint * v),) + to_b
                        sums_drive = (sum_states(adjoint * b),) + sums_drive
                        x = adjoint * decayed[T - 1 - s]
                        sum_A += x * over_channels(ds[T - 1 - s])
                        sums_exponent = (sum_states(x * A2),) + sums_exponent
                        adjoint *= tl.exp2(over_channels(ds[T - 1 - s] * one_float) * A2)
                    sum_drive = join4(sums_drive, REVERSE)
                    if grad_D is not None:
                        sum_D += gradient * value
                    if z is not None and grad_z is not None:
                        y = join4(ys, REVERSE) + skip[:, :, :, None] * value
                        pointer = grad_z + sample * gz_b + spread(d * gz_d, pixel * gz_l)
                        tl.store(pointer, (given * y * open * (1.0 + gate * (1.0 - open))).to(grad_z.dtype.element_ty), inside)
                    slot = spread((d % DIM) * length, pixel)
                    if grad_u is not None:
                        pointer = grad_u + sample * gu_b + spread(d * gu_d, pixel_offset(pixel, width, gu_h, gu_l, DIVIDE))
                        found = sum_drive * steps + skip[:, :, :, None] * gradient
                        if K > 1:
                            merged = pointer
                            if merge_u is not None:
                                merged = merge_u + (wide + program) * DIM * length + slot
                            found += tl.load(merged, when(wide + k > 0, inside), 0.0)
                            if merge_u is not None:
                                tl.store(merged, found, when(wide + k < K - 1, inside))
                                tl.store(pointer, found.to(grad_u.dtype.element_ty), when(wide + k == K - 1, inside))
                            else:
                                tl.store(pointer, found.to(grad_u.dtype.element_ty), inside)
                        else:
                            tl.store(pointer, found.to(grad_u.dtype.element_ty), inside)
                    found = sum_drive * value + join4(sums_exponent, REVERSE) * (1.0 / LOG2E)
                    if SOFTPLUS:
                        found *= tl.where(raw > 20.0, 1.0, 1.0 / (1.0 + tl.exp(-raw)))
                    found = tl.where(inside, found, 0.0)
                    if grad_bias is not None:
                        sum_bias += found
                    if grad_delta is not None:
                        pointer = grad_delta + sample * gd_b + (wide + k) * gd_k + spread(d * gd_d, delta_at * gd_l)
                        if SHARED and K > 1:
                            merged = pointer
                            if merge_delta is not None:
                                merged = merge_delta + (wide + program) * DIM * length + slot
                            found += tl.load(merged, when(wide + k > 0, inside), 0.0)
                            if merge_delta is not None:
                                tl.store(merged, found, when(wide + k < K - 1, inside))
                                tl.store(pointer, found.to(grad_delta.dtype.element_ty), when(wide + k == K - 1, inside))
                            else:
                                tl.store(pointer, found.to(grad_delta.dtype.element_ty), inside)
                        else:
                            tl.store(pointer, found.to(grad_delta.dtype.element_ty), inside)
                    own = wide + (k * parts + part if IMAGE else part)
                    again = when(wide + item >= K, seen)
                    if grad_B is not None and not CONST_B:
                        found = tl.sum(join4(to_b, REVERSE), 1)
                        pointer = grad_B + sample * gB_b + own * gB_s + spread(index(n, WIDE) * gB_n, order * gB_l)
                        if not RESIDENT:
                            found += tl.load(pointer, again, 0.0).to(tl.float32)
                        tl.store(pointer, found.to(grad_B.dtype.element_ty), seen)
                    if grad_C is not None and not CONST_C:
                        found = tl.sum(join4(to_c, REVERSE), 1)
                        pointer = grad_C + sample * gC_b + own * gC_s + spread(index(n, WIDE) * gC_n, order * gC_l)
                        if not RESIDENT:
                            found += tl.load(pointer, again, 0.0).to(tl.float32)
                        tl.store(pointer, found.to(grad_C.dtype.element_ty), seen)
                tl.debug_barrier()
            if grad_initial is not None:
                where = over_channels(d) * gi_d + over_states(n * one) * gi_n
                tl.store(grad_initial + sample * gi_b + where, adjoint, when((wide + row) % segments == 0, both))
            if not RESIDENT:
                base = ((wide + walker) * K + k) * dim
                _flush(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias, base, N,
                       at, d, both, there, wide + row > walker, CONST_B, CONST_C)  # fmt: skip
    if RESIDENT:
        _flush(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias, (wide + walker) * dim,
               N, at, d, both, there, wide > 0, CONST_B, CONST_C)  # fmt: skip


@triton.jit
def _flush(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias, base, N: tl.constexpr, at, d,
           both, there, again, CONST_B: tl.constexpr, CONST_C: tl.constexpr):  # fmt: skip
    """Add a program's sums of the parameters' gradients to its part of the workspace, or begin it."""
    if grad_A is not None:
        _add(grad_A + base * N + at, sum_A, both, again)
    if CONST_B and grad_B is not None:
        _add(grad_B + base * N + at, sum_B, both, again)
    if CONST_C and grad_C is not None:
        _add(grad_C + base * N + at, sum_C, both, again)
    if grad_D is not None:
        _add(grad_D + base + d, tl.sum(sum_D, 3), there, again)
    if grad_bias is not None:
        _add(grad_bias + base + d, tl.sum(sum_bias, 3), there, again)


@triton.jit
def _add(pointer, value, mask, again):
    tl.store(pointer, value + tl.load(pointer, when(again, mask), 0.0), mask)


@triton.jit(do_not_specialize=["rows", "one"])
def scan_adjoint(
    local, grad_out, delta, A, C, z, bias,
    rows, dim, length, tiles, dim_of_group, segments, segment, share_c,
    go_b, go_d, go_l, delta_b, delta_d, delta_l, z_b, z_d, z_l, C_b, C_g, C_n, C_l, one,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, WIDE: tl.constexpr, CONST_C: tl.constexpr,
    NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """What a segment alone hands back to the state it started with: local (rows, dim, N). Program: (row, channel tile)."""
    T: tl.constexpr = 4
    tile = tl.program_id(0) % tiles
    row = tl.zeros((), tl.int64) + tl.program_id(0) // tiles
    sample = row // segments
    begin = (row % segments).to(tl.int32) * segment
    end = tl.minimum(begin + segment, length)
    n, real = states(N, NR, NL)
    group, d, there = channels(tile, dim_of_group, WIDE, DR, DW, DL)
    both = over_states(real) & over_channels(there)
    at = over_channels(d) * N + over_states(n * one)
    A2 = tl.load(A + at, both, 0.0) * 1.4426950408889634
    shift = tl.zeros((DR, DW, DL), tl.float32)
    if bias is not None:
        shift = tl.load(bias + d, there, 0.0)
    if CONST_C:
        c = tl.load(C + at, both, 0.0)
    row_c = C + sample * C_b + (tl.zeros((), tl.int64) + group // share_c) * C_g
    adjoint = tl.zeros((NR, DR, DW, NL, DL), tl.float32)
    groups = tl.cdiv(end - begin, T)
    for behind in range(groups):
        step, pixel = positions(begin + (groups - 1 - behind) * T, end, length, 0, 1, 1, REVERSE, False, T)
        inside = there[:, :, :, None] & (step < end)[None, None, None, :]
        pixel = index(pixel, WIDE)
        raw = load_steps(delta + sample * delta_b, d * delta_d, pixel * delta_l, inside) + shift[:, :, :, None]
        ds = split4(activate(raw, inside, SOFTPLUS), REVERSE)
        gradient = load_steps(grad_out + sample * go_b, d * go_d, pixel * go_l, inside)
        if z is not None:
            gate = load_steps(z + sample * z_b, d * z_d, pixel * z_l, inside)
            gradient *= gate / (1.0 + tl.exp(-gate))
        gs = split4(gradient, REVERSE)
        if not CONST_C:
            seen = real[:, :, None] & (step < end)[None, None, :]
            cs = split4(load_steps(row_c, index(n, WIDE) * C_n, pixel * C_l, seen), REVERSE)
        for s in tl.static_range(T):
            if not CONST_C:
                c = over_states(cs[T - 1 - s])
            adjoint = tl.exp2(over_channels(ds[T - 1 - s]) * A2) * (adjoint + over_channels(gs[T - 1 - s]) * c)
    tl.store(local + row * dim * N + at, adjoint, both)


@triton.jit
def sum_parts(out, partial, total, parts, groups, states_, length, out_b, out_g, out_n, out_l, BLOCK: tl.constexpr):
    """out (batch, groups, N, L) = the sums over parts of partial (batch, groups, parts, N, L), in order."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < total
    l, row = i % length, i // length
    n, owner = row % states_, row // states_  # owner: sample and group
    x = tl.zeros((BLOCK,), tl.float32)
    for p in range(parts):
        x += tl.load(partial + ((owner * parts + p) * states_ + n) * length + l, there, 0.0)
    pointer = out + (owner // groups) * out_b + (owner % groups) * out_g + n * out_n + l * out_l
    tl.store(pointer, x.to(out.dtype.element_ty), there)
