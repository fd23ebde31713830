"""Selective scan, backward: the states are computed again, for T steps at a time in registers, then the adjoint over those steps.

For a channel and a state: x_l = a_l x_{l-1} + w_l B_l with a_l = exp(delta_l A), w_l = delta_l u_l, y_l = sum_n C_l x_l + D u_l;
lambda_l = g_l C_l + a_{l+1} lambda_{l+1} with g = dL/dy and lambda = dL/dx, from the last step back. Then dC_l = sum over
channels of g_l x_l, dB_l = sum over channels of lambda_l w_l, and with e_l = lambda_l a_l x_{l-1}: dA = sum_l e_l delta_l,
ddelta_l = u_l sum_n lambda_l B_l + sum_n e_l A, du_l = delta_l sum_n lambda_l B_l + D g_l. In the code, `lam` is lambda_l;
`carry` is a_{l+1} lambda_{l+1} before step l and a_l lambda_l after it; `A2` is A log2(e); `grad_drive` is sum_n lambda_l B_l,
`grad_delta_decay` sum_n e_l A2. (csrc/include/bdgf/scan_step.h derives the formulas.)

Nothing of the forward is kept. A row (a sample, or a segment of a long sequence, whose first state and last carry come from
selective_scan_segments.py) is taken in chunks. Going forwards, a program stores the state before every chunk in its scratch. Then,
from the last chunk to the first, it stores the state before every block of T steps, and takes these blocks from the last to the
first: it records a_l x_{l-1} of the T steps in registers and runs the adjoint back over them.

dB and dC are summed over the channels of a warp by shuffles, then over the warps of the program. Channel tiles that share B and C
are taken one after the other by one program (its `items`), which adds each to what the tiles before have stored, or by several
programs (`tile_programs`), each with a dB and dC of its own, which selective_scan_partial_sums adds up in order. The directions of
an image are items too.
dA, dD and d(bias) are summed over the rows of a program, and then, by the launcher, over the programs. There are no atomics, and
the shapes and the device alone determine the order of every sum.

`one` is 1, see make_tile. `one_float` is 1.0, unknown to the compiler for another reason: if it knew that the decay of _adjoint is
that of _record, it would keep it in registers instead of computing it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .selective_scan_fwd import advance
from .selective_scan_tiles import (
    LOG2E,
    Call,
    Row,
    bounds,
    channels,
    decayed,
    index,
    join4,
    load_inputs,
    load_matrix,
    load_parameters,
    load_state,
    load_steps,
    make_tile,
    over_channels,
    pixel_offset,
    split4,
    spread,
    state_offsets,
    states,
    steps_at,
    store_sum,
    sum_states,
    when,
)


class Target(NamedTuple):
    """A tensor (or None), the offset of the current row in it, and its strides; for dB and dC, `channel` is that of the states."""

    pointer: Any
    offset: Any
    channel: Any
    row: Any
    step: Any
    scratch: Any  # for the sum over directions, see store_sum; None: in the tensor itself


class Sources(NamedTuple):
    """What the adjoint reads besides the inputs of the recurrence."""

    out: Any  # dL/dout
    z: Any


class Gradients(NamedTuple):
    """Where the gradients of a row's inputs go."""

    u: Any
    delta: Any
    z: Any
    B: Any
    C: Any


class Wanted(NamedTuple):
    """Which of the gradients that are sums are wanted; z: whether there is a gate, whose gradient needs y."""

    z: Any
    B: Any
    C: Any
    D: Any
    bias: Any


@triton.jit(do_not_specialize=["rows", "row_programs", "chunk", "slots", "one"])
def selective_scan_bwd(
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial,
    grad_out, grad_last, u, delta, A, B, C, D, z, bias, initial, scratch, merge_u, merge_delta,
    rows, dim, length, tile_programs, items, dim_of_group, segments, segment, chunk, row_programs, share_b, share_c,
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
    """grad_A, grad_D, grad_bias, and constant grad_B, grad_C are partial sums (row_programs, K, dim, ...). Variable grad_B, grad_C
    are (batch, K * tile_programs, N, L), a part for each program, and _s is the stride of the second axis. `slots` is how many
    states a program's scratch holds. With RESIDENT there is one item, whose parameters and their gradients stay in registers; with
    SHARED, one delta for all directions. merge_u and merge_delta are (programs, DIM, length) scratch, or None: summed in place."""
    T: tl.constexpr = 4
    DIM: tl.constexpr = DR * DW * DL
    TILE: tl.constexpr = NR * NL * DIM
    IMAGE: tl.constexpr = DIRECTIONS > 0
    DIRECTION_STEP: tl.constexpr = 2 if DIRECTIONS == 2 else 1  # rows and rows reversed are the first and third of four
    K: tl.constexpr = DIRECTIONS if IMAGE else 1
    call: tl.constexpr = Call(SOFTPLUS, REVERSE, IMAGE, PIXELS, SHARED, IMAGE and not FLAT, WIDE, CONST_B, CONST_C)
    wanted: tl.constexpr = Wanted(z is not None, grad_B is not None, grad_C is not None, grad_D is not None, grad_bias is not None)
    program = tl.program_id(0)
    wide = tl.zeros((), tl.int64)  # widens what is added to it
    never = wide > 0  # false, for a mask
    tile_program = program % tile_programs
    n, n_exists = states(N, NR, NL)
    offsets = _offsets_in_tile(NR, DR, DW, NL, DL, one)
    scratch += (wide + program) * slots * TILE  # the states before every chunk of a row
    fine = scratch + (wide + tl.cdiv(segment, chunk)) * TILE  # those before every T steps of one chunk
    if RESIDENT:
        group, d, d_exists = channels(tile_program * items, dim_of_group, WIDE, DR, DW, DL)
        tile = make_tile(d, d_exists, n, n_exists, N, one)
        p = load_parameters(A, B, C, D, bias, tile, 0, N, call)
        sum_A, sum_B, sum_C, sum_D, sum_bias = _no_sums(tile, T)
    for r in range(program // tile_programs, rows, row_programs):
        sample, begin, end = bounds(r, segments, segment, length)
        for item in range(1 if RESIDENT else items):
            k = item % K
            if not RESIDENT:
                group, d, d_exists = channels(tile_program * (items // K) + item // K, dim_of_group, WIDE, DR, DW, DL)
                tile = make_tile(d, d_exists, n, n_exists, N, one)
                p = load_parameters(A, B, C, D, bias, tile, (wide + k) * dim, N, call)
                sum_A, sum_B, sum_C, sum_D, sum_bias = _no_sums(tile, T)
            group_of_k = k if IMAGE else group
            row = Row(u + sample * u_b, u_d, u_h, u_l, delta + sample * delta_b + (wide + k) * delta_k, delta_d, delta_l,
                      B + sample * B_b + (wide + group_of_k // share_b) * B_g, B_n, B_l,
                      C + sample * C_b + (wide + group_of_k // share_c) * C_g, C_n, C_l,
                      end, length, k * DIRECTION_STEP, height, width)  # fmt: skip
            own = wide + (k * tile_programs + tile_program if IMAGE else tile_program)
            sources = Sources(Target(grad_out, sample * go_b, go_d, go_h, go_l, None), Target(z, sample * z_b, z_d, 0, z_l, None))
            targets = Gradients(
                Target(grad_u, sample * gu_b, gu_d, gu_h, gu_l, merge_u),
                Target(grad_delta, sample * gd_b + (wide + k) * gd_k, gd_d, 0, gd_l, merge_delta),
                Target(grad_z, sample * gz_b, gz_d, 0, gz_l, None),
                Target(grad_B, sample * gB_b + own * gB_s, gB_n, 0, gB_l, None),
                Target(grad_C, sample * gC_b + own * gC_s, gC_n, 0, gC_l, None),
            )
            x = load_state(initial, (wide + r) * init_r, init_d, init_n, tile, one)
            chunks = tl.cdiv(end - begin, chunk)
            for i in range(chunks):
                tl.store(scratch + (wide + i) * TILE + offsets, x)
                if i < chunks - 1:
                    for first in range(begin + i * chunk, begin + (i + 1) * chunk, T):
                        x = _advance(x, first, row, tile, p, call, T)
            carry = load_state(grad_last, (wide + r) * gl_r, gl_d, gl_n, tile, one)
            tl.debug_barrier()
            for back in range(chunks):
                i = chunks - 1 - back
                start = begin + i * chunk
                blocks = tl.cdiv(tl.minimum(chunk, end - start), T)
                x = tl.load(scratch + (wide + i) * TILE + offsets)
                for j in range(blocks):
                    tl.store(fine + (wide + j) * TILE + offsets, x)
                    if j < blocks - 1:
                        x = _advance(x, start + j * T, row, tile, p, call, T)
                tl.debug_barrier()
                for behind in range(blocks):
                    j = blocks - 1 - behind
                    carry, sum_A, sum_B, sum_C, sum_D, sum_bias = _block_back(
                        carry, sum_A, sum_B, sum_C, sum_D, sum_bias, start + j * T, fine + (wide + j) * TILE + offsets,
                        row, tile, p, sources, targets, wanted, (wide + program) * DIM * length, DIM, wide + k, K, wide + item,
                        RESIDENT, one_float, call, T,
                    )  # fmt: skip
                tl.debug_barrier()
            if grad_initial is not None:
                first_of_sample = when((wide + r) % segments == 0, tile.exists)
                tl.store(grad_initial + sample * gi_b + state_offsets(tile, gi_d, gi_n, one), carry, first_of_sample)
            if not RESIDENT:
                base = ((wide + program // tile_programs) * K + k) * dim
                _add_sums(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias, base, N,
                          tile, wide + r > program // tile_programs, call)  # fmt: skip
    if RESIDENT:
        _add_sums(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias,
                  (wide + program // tile_programs) * dim, N, tile, never, call)  # fmt: skip


@triton.jit
def _offsets_in_tile(NR: tl.constexpr, DR: tl.constexpr, DW: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr, one):
    """Where the elements of a tile lie in scratch: as in registers."""
    offset = tl.arange(0, NR)[:, None, None, None, None] * DR + tl.arange(0, DR)[None, :, None, None, None]
    offset = offset * DW + tl.arange(0, DW)[None, None, :, None, None]
    return (offset * NL + tl.arange(0, NL)[None, None, None, :, None]) * DL + tl.arange(0, DL)[None, None, None, None, :] * one


@triton.jit
def _no_sums(tile, T: tl.constexpr):
    """Zeros for the sums over steps: dA, and constant dB and dC, over a tile; dD and d(bias), (DR, DW, DL, T)."""
    matrix = tl.zeros(tile.exists.shape, tl.float32)
    vector = tl.zeros((tile.d.shape[0], tile.d.shape[1], tile.d.shape[2], T), tl.float32)
    return matrix, matrix, matrix, vector, vector


@triton.jit
def _advance(x, first, row, tile, p, call, T: tl.constexpr):
    """The state T steps on from step `first`."""
    at = steps_at(first, row, tile, call, T)
    _, dt, ut = load_inputs(row, at, tile, p.bias, call)
    ds, vs = split4(dt, call.reverse), split4(dt * ut, call.reverse)
    bs = load_matrix(row.B, row.B_state, row.B_step, at, tile, p.b, call.constant_b, call)
    return advance(x, ds, vs, bs, p.A2, T)


@triton.jit
def _block_back(
    carry, sum_A, sum_B, sum_C, sum_D, sum_bias, first, kept, row, tile, p, sources, targets, wanted, own_scratch,
    DIM: tl.constexpr, k, K: tl.constexpr, item, RESIDENT: tl.constexpr, one_float, call, T: tl.constexpr,
):  # fmt: skip
    """Take T steps from `first` on backwards, given the state before them at `kept`. Store their gradients; return the carry
    before them (a_l lambda_l of the first) and the sums."""
    at = steps_at(first, row, tile, call, T)
    raw, dt, ut = load_inputs(row, at, tile, p.bias, call)
    pixels = pixel_offset(at.pixel, row.width, sources.out.row, sources.out.step, call.divide)
    grad_out = load_steps(sources.out.pointer + sources.out.offset, tile.d * sources.out.channel, pixels, at.inside)
    ds, vs = split4(dt, call.reverse), split4(dt * ut, call.reverse)
    grad_y = grad_out
    if wanted.z:
        z = load_steps(sources.z.pointer + sources.z.offset, tile.d * sources.z.channel, at.pixel * sources.z.step, at.inside)
        sigmoid = 1.0 / (1.0 + tl.exp(-z))
        grad_y = grad_out * z * sigmoid
    gs = split4(grad_y, call.reverse)
    bs = load_matrix(row.B, row.B_state, row.B_step, at, tile, p.b, call.constant_b, call)
    cs = load_matrix(row.C, row.C_state, row.C_step, at, tile, p.c, call.constant_c, call)
    recorded = _record(tl.load(kept), ds, vs, bs, p.A2, T)
    carry, sum_A, sum_B, sum_C, grads_drive, grads_delta_decay, ys, to_b, to_c = _adjoint(
        carry, sum_A, sum_B, sum_C, recorded, ds, vs, gs, bs, cs, p.A2, wanted, one_float, call, T)  # fmt: skip
    grad_drive = join4(grads_drive, call.reverse)
    if wanted.D:
        sum_D += grad_y * ut
    if wanted.z and targets.z.pointer is not None:
        y = join4(ys, call.reverse) + p.D[:, :, :, None] * ut
        grad_z = grad_out * y * sigmoid * (1.0 + z * (1.0 - sigmoid))
        pointer = targets.z.pointer + targets.z.offset + spread(tile.d * targets.z.channel, at.pixel * targets.z.step)
        tl.store(pointer, grad_z.to(targets.z.pointer.dtype.element_ty), at.inside)
    slot = own_scratch + spread((tile.d % DIM) * row.length, at.pixel)
    if targets.u.pointer is not None:
        pixels = pixel_offset(at.pixel, row.width, targets.u.row, targets.u.step, call.divide)
        grad_u = grad_drive * dt + p.D[:, :, :, None] * grad_y
        _store_channels(targets.u, grad_u, tile, pixels, slot, k, K, at)
    grad_delta = grad_drive * ut + join4(grads_delta_decay, call.reverse) * (1.0 / LOG2E)
    if call.softplus:
        grad_delta *= tl.where(raw > 20.0, 1.0, 1.0 / (1.0 + tl.exp(-raw)))
    grad_delta = tl.where(at.inside, grad_delta, 0.0)
    if wanted.bias:
        sum_bias += grad_delta
    if targets.delta.pointer is not None:
        pixels = (at.pixel if call.shared else at.order) * targets.delta.step
        _store_channels(targets.delta, grad_delta, tile, pixels, slot, k, K if call.shared else 1, at)
    if wanted.B and not call.constant_b:
        _store_matrix(targets.B, to_b, tile, item >= K, RESIDENT, at, call)
    if wanted.C and not call.constant_c:
        _store_matrix(targets.C, to_c, tile, item >= K, RESIDENT, at, call)
    return carry, sum_A, sum_B, sum_C, sum_D, sum_bias


@triton.jit
def _record(x, ds, vs, bs, A2, T: tl.constexpr):
    """a_l x_{l-1} of T steps from state x on. _adjoint computes a_l again: registers are scarcer than exponentials."""
    recorded = ()
    for t in tl.static_range(T):
        recorded = recorded + (decayed(x, ds[t], A2),)
        x = recorded[t] + over_channels(vs[t]) * bs[t]
    return recorded


@triton.jit
def _adjoint(carry, sum_A, sum_B, sum_C, recorded, ds, vs, gs, bs, cs, A2, wanted, one_float, call, T: tl.constexpr):
    """The recurrence of the adjoint over T recorded steps, from the last one back.

    Returns the carry and the sums over steps, then five tuples over the steps: sum_n lambda B, sum_n e A2 and y, (DR, DW, DL),
    and each warp's part of dB and dC, (NR, DW, NL); () where they are not wanted.
    """
    grads_drive, grads_delta_decay, ys, to_b, to_c = (), (), (), (), ()
    for s in tl.static_range(T):
        b, c = bs[T - 1 - s], cs[T - 1 - s]
        v, g = over_channels(vs[T - 1 - s]), over_channels(gs[T - 1 - s])
        x = recorded[T - 1 - s] + v * b
        if wanted.z:
            ys = (sum_states(x * c),) + ys
        if wanted.C:
            if call.constant_c:
                sum_C += g * x
            else:
                to_c = (_sum_channels(g * x),) + to_c
        lam = carry + g * c
        if wanted.B:
            if call.constant_b:
                sum_B += lam * v
            else:
                to_b = (_sum_channels(lam * v),) + to_b
        grads_drive = (sum_states(lam * b),) + grads_drive
        e = lam * recorded[T - 1 - s]
        sum_A += e * over_channels(ds[T - 1 - s])
        grads_delta_decay = (sum_states(e * A2),) + grads_delta_decay
        carry = decayed(lam, ds[T - 1 - s] * one_float, A2)
    return carry, sum_A, sum_B, sum_C, grads_drive, grads_delta_decay, ys, to_b, to_c


@triton.jit
def _sum_channels(x):
    """A tile to (NR, DW, NL): the sum over a warp's channels."""
    return tl.sum(tl.sum(x, 1), 3)


@triton.jit
def _store_channels(target, value, tile, pixels, slot, k, K: tl.constexpr, at):
    """Store the gradient of u or delta, summed over K directions."""
    pointer = target.pointer + target.offset + spread(tile.d * target.channel, pixels)
    scratch = target.scratch + slot if target.scratch is not None else None
    store_sum(pointer, value, scratch, k, K, at.inside)


@triton.jit
def _store_matrix(target, terms, tile, again, RESIDENT: tl.constexpr, at, call):
    """Store dB or dC, summed over the warps, and added to that of the channel tiles before if there are any (`again`)."""
    value = tl.sum(join4(terms, call.reverse), 1)
    pointer = target.pointer + target.offset + spread(index(tile.n, call.wide) * target.channel, at.order * target.step)
    if not RESIDENT:
        value += tl.load(pointer, when(again, at.states_inside), 0.0).to(tl.float32)
    tl.store(pointer, value.to(target.pointer.dtype.element_ty), at.states_inside)


@triton.jit
def _add_sums(grad_A, grad_B, grad_C, grad_D, grad_bias, sum_A, sum_B, sum_C, sum_D, sum_bias, base, N: tl.constexpr, tile,
              again, call):  # fmt: skip
    """Add a program's sums of the parameters' gradients to its part of the workspace, or store them if it is its first row."""
    if grad_A is not None:
        _add(grad_A + base * N + tile.matrix, sum_A, tile.exists, again)
    if call.constant_b and grad_B is not None:
        _add(grad_B + base * N + tile.matrix, sum_B, tile.exists, again)
    if call.constant_c and grad_C is not None:
        _add(grad_C + base * N + tile.matrix, sum_C, tile.exists, again)
    if grad_D is not None:
        _add(grad_D + base + tile.d, tl.sum(sum_D, 3), tile.d_exists, again)
    if grad_bias is not None:
        _add(grad_bias + base + tile.d, tl.sum(sum_bias, 3), tile.d_exists, again)


@triton.jit
def _add(pointer, value, mask, again):
    tl.store(pointer, value + tl.load(pointer, when(again, mask), 0.0), mask)


@triton.jit
def selective_scan_partial_sums(
    out, partial, total, partials, groups, states_, length, out_b, out_g, out_n, out_l, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (batch, groups, N, L) = the sums of partial (batch, groups, partials, N, L) over its third axis, in order."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < total
    l, row = i % length, i // length
    n, owner = row % states_, row // states_  # owner: sample and group
    x = tl.zeros((BLOCK,), tl.float32)
    for p in range(partials):
        x += tl.load(partial + ((owner * partials + p) * states_ + n) * length + l, there, 0.0)
    pointer = out + (owner // groups) * out_b + (owner % groups) * out_g + n * out_n + l * out_l
    tl.store(pointer, x.to(out.dtype.element_ty), there)
