"""Gradients of cross_attention.

With P = softmax(S), A = dO V' (both after dropout) and delta_i = sum_j P_ij A_ij:
dS = P (A - delta), dQ = scale dS K, dK = scale dS' Q, dV = P' dO, and the bias gets dS.

cross_attention_bwd owns a tile of keys and loops over the queries, tiles transposed (keys by queries), so that
the gradients of its keys stay in registers. Where one tile is all keys (`WHOLE`), delta and dQ are computed on the way: five
products, nothing read twice, no accumulator in memory. Else cross_attention_bwd_query computes delta and dQ before.
cross_attention_bwd_bias owns a tile of the bias and loops over the pairs that share it, in fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._launch import capability, cdiv, launch, workspace
from .cross_attention import INF, LOG2E, added, common, kept, padded, precision
from .noise import key_word


@triton.jit
def row_statistics(largest, log_sum, at, inside):
    """What is subtracted from a row's scores before exp2, one after the other; +inf for a row without a key, or past the end."""
    return tl.load(largest + at, mask=inside, other=0), tl.load(log_sum + at, mask=inside, other=INF)


@triton.jit(do_not_specialize=["seed_low", "seed_high", "drop_below"])
def cross_attention_bwd(
    grad_out, query, key, value, key_mask, bias, seed_at, largest, log_sum, delta, grad_query, grad_key, grad_value,
    scale, keep_factor, drop_below, seed_low, seed_high, pairs, heads, rows, columns, depth, query_b, query_h, query_l,
    query_d, key_b, key_h, key_l, key_d, value_b, value_h, value_l, value_d, grad_b, grad_h, grad_l, grad_d,
    grad_query_b, grad_query_h, grad_query_l, grad_query_d, grad_key_b, grad_key_h, grad_key_l, grad_key_d,
    grad_value_b, grad_value_h, grad_value_l, grad_value_d, mask_b, mask_j, bias_b, bias_h, bias_i, bias_j,
    LOW: tl.constexpr, HIGH: tl.constexpr, DROP: tl.constexpr, WHOLE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(columns, BN)
    pair = tl.program_id(0) // tiles
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    j = (tl.program_id(0) % tiles * BN).to(tl.int64) + tl.arange(0, BN).to(tl.int64)
    c = tl.arange(0, D).to(tl.int64)
    j_inside, c_inside = j < columns, c < depth
    j_, c_ = j[:, None], c
    j_and_c = j_inside[:, None] & c_inside[None, :]
    k = tl.load(key + b * key_b + h * key_h + j_ * key_l + c_[None, :] * key_d, mask=j_and_c, other=0)
    v = tl.load(value + b * value_b + h * value_h + j_ * value_l + c_[None, :] * value_d, mask=j_and_c, other=0)
    dk = tl.zeros([BN, D], tl.float32)
    dv = tl.zeros([BN, D], tl.float32)
    if DROP:
        k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
    for m in range(0, rows, BM):
        i = tl.arange(0, BM).to(tl.int64) + m
        i_inside, i_ = i < rows, i[None, :]
        c_and_i = c_inside[:, None] & i_inside[None, :]
        q = tl.load(query + b * query_b + h * query_h + i_ * query_l + c_[:, None] * query_d, mask=c_and_i, other=0)
        g = tl.load(grad_out + b * grad_b + h * grad_h + i_ * grad_l + c_[:, None] * grad_d, mask=c_and_i, other=0)
        bias_at = b * bias_b + h * bias_h + i_ * bias_i + j_ * bias_j
        inside = j_inside[:, None] & i_inside[None, :]
        s = added(scale, bias, bias_at, key_mask, b * mask_b + j_ * mask_j, inside, j_inside[:, None])
        s = tl.dot(k, q, s, input_precision=PRECISION) * (scale * LOG2E)
        s = tl.where(j_inside[:, None], s, -INF)
        row = pair.to(tl.int64) * rows + i
        top, log_total = row_statistics(largest, log_sum, row, i_inside)
        p = tl.exp2(s - top[None, :] - log_total[None, :])
        a = tl.dot(v, g, input_precision=PRECISION)
        weight = p
        if DROP:
            keep = kept(k0, k1, b, h, i[None, :], j[:, None], rows, columns, drop_below)
            weight = tl.where(keep, p * keep_factor, 0.0)
            a = tl.where(keep, a * keep_factor, 0.0)
        if grad_value is not None:
            dv = tl.dot(weight.to(g.dtype), tl.trans(g), dv, input_precision=PRECISION)
        if WHOLE:
            mean = tl.sum(p * a, axis=0)
            if delta is not None:
                tl.store(delta + row, mean, mask=i_inside)
        else:
            mean = tl.load(delta + row, mask=i_inside, other=0)
        ds = (p * (a - mean[None, :])).to(q.dtype)
        if grad_key is not None:
            dk = tl.dot(ds, tl.trans(q), dk, input_precision=PRECISION)
        if WHOLE and grad_query is not None:
            dq = tl.dot(tl.trans(k), ds, input_precision=PRECISION) * scale
            at = grad_query + b * grad_query_b + h * grad_query_h + i_ * grad_query_l + c_[:, None] * grad_query_d
            tl.store(at, dq.to(grad_query.dtype.element_ty), mask=c_and_i)
    if grad_key is not None:
        at = grad_key + b * grad_key_b + h * grad_key_h + j_ * grad_key_l + c_[None, :] * grad_key_d
        tl.store(at, (dk * scale).to(grad_key.dtype.element_ty), mask=j_and_c)
    if grad_value is not None:
        at = grad_value + b * grad_value_b + h * grad_value_h + j_ * grad_value_l + c_[None, :] * grad_value_d
        tl.store(at, dv.to(grad_value.dtype.element_ty), mask=j_and_c)


@triton.jit(do_not_specialize=["seed_low", "seed_high", "drop_below"])
def cross_attention_bwd_query(
    grad_out, query, key, value, key_mask, bias, seed_at, largest, log_sum, delta, grad_query, scale, keep_factor,
    drop_below, seed_low, seed_high, pairs, heads, rows, columns, depth, query_b, query_h, query_l, query_d, key_b, key_h, key_l,
    key_d, value_b, value_h, value_l, value_d, grad_b, grad_h, grad_l, grad_d, grad_query_b, grad_query_h,
    grad_query_l, grad_query_d, mask_b, mask_j, bias_b, bias_h, bias_i, bias_j, LOW: tl.constexpr, HIGH: tl.constexpr,
    DROP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Two passes over the keys: delta, then dQ, whose summands are small differences once delta is known."""
    tiles = tl.cdiv(rows, BM)
    pair = tl.program_id(0) // tiles
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    i = (tl.program_id(0) % tiles * BM).to(tl.int64) + tl.arange(0, BM).to(tl.int64)
    c = tl.arange(0, D).to(tl.int64)
    i_inside, c_inside = i < rows, c < depth
    i_, c_ = i[:, None], c
    i_and_c = i_inside[:, None] & c_inside[None, :]
    q = tl.load(query + b * query_b + h * query_h + i_ * query_l + c_[None, :] * query_d, mask=i_and_c, other=0)
    g = tl.load(grad_out + b * grad_b + h * grad_h + i_ * grad_l + c_[None, :] * grad_d, mask=i_and_c, other=0)
    row = pair.to(tl.int64) * rows + i
    top, log_total = row_statistics(largest, log_sum, row, i_inside)
    mean = tl.zeros([BM], tl.float32)
    dq = tl.zeros([BM, D], tl.float32)
    if DROP:
        k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
    steps = tl.cdiv(columns, BN)
    for step in range(0, 2 * steps):
        j = tl.arange(0, BN).to(tl.int64) + step % steps * BN
        j_inside, j_ = j < columns, j[None, :]
        c_and_j = c_inside[:, None] & j_inside[None, :]
        k = tl.load(key + b * key_b + h * key_h + j_ * key_l + c_[:, None] * key_d, mask=c_and_j, other=0)
        v = tl.load(value + b * value_b + h * value_h + j_ * value_l + c_[:, None] * value_d, mask=c_and_j, other=0)
        bias_at = b * bias_b + h * bias_h + i_ * bias_i + j_ * bias_j
        inside = i_inside[:, None] & j_inside[None, :]
        s = added(scale, bias, bias_at, key_mask, b * mask_b + j_ * mask_j, inside, j_inside[None, :])
        s = tl.dot(q, k, s, input_precision=PRECISION) * (scale * LOG2E)
        s = tl.where(j_inside[None, :], s, -INF)
        p = tl.exp2(s - top[:, None] - log_total[:, None])
        a = tl.dot(g, v, input_precision=PRECISION)
        if DROP:
            keep = kept(k0, k1, b, h, i[:, None], j[None, :], rows, columns, drop_below)
            a = tl.where(keep, a * keep_factor, 0.0)
        if step < steps:
            mean += tl.sum(p * a, axis=1)
        else:
            dq = tl.dot((p * (a - mean[:, None])).to(k.dtype), tl.trans(k), dq, input_precision=PRECISION)
    tl.store(delta + row, mean, mask=i_inside)
    if grad_query is not None:
        at = grad_query + b * grad_query_b + h * grad_query_h + i_ * grad_query_l + c_[None, :] * grad_query_d
        tl.store(at, (dq * scale).to(grad_query.dtype.element_ty), mask=i_and_c)


@triton.jit(do_not_specialize=["seed_low", "seed_high", "drop_below"])
def cross_attention_bwd_bias(
    grad_out, query, key, value, key_mask, bias, seed_at, largest, log_sum, delta, grad_bias, scale, keep_factor,
    drop_below, seed_low, seed_high, pairs, heads, rows, columns, depth, query_b, query_h, query_l, query_d, key_b, key_h, key_l,
    key_d, value_b, value_h, value_l, value_d, grad_b, grad_h, grad_l, grad_d, mask_b, mask_j, bias_b, bias_h, bias_i,
    bias_j, part_s, part_b, part_h, part_i, part_j, splits, per_split, shared_batch, shared_heads, bias_heads,
    bias_rows, LOW: tl.constexpr, HIGH: tl.constexpr, DROP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of the bias, one split of the pairs that share it. With one row for all queries (bias_rows 1) a tile is
    walked over all of them."""
    j_tiles = tl.cdiv(columns, BN)
    i_tiles = tl.cdiv(bias_rows, BM)
    pid = tl.program_id(0)
    split = pid % splits
    j = (pid // splits % j_tiles * BN).to(tl.int64) + tl.arange(0, BN).to(tl.int64)
    rest = pid // splits // j_tiles
    i_first = rest % i_tiles * BM
    own_h = rest // i_tiles % bias_heads
    own_b = rest // i_tiles // bias_heads
    i_last = i_first + BM
    if bias_rows == 1:
        i_last = rows
    c = tl.arange(0, D).to(tl.int64)
    c_inside, j_inside = c < depth, j < columns
    c_, j_ = c, j[None, :]
    acc = tl.zeros([BM, BN], tl.float32)
    if DROP:
        k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
    for n in range(split * per_split, tl.minimum((split + 1) * per_split, shared_batch * shared_heads)):
        pair_b, pair_h = own_b + n // shared_heads, own_h + n % shared_heads
        b, h = pair_b.to(tl.int64), pair_h.to(tl.int64)
        c_and_j = c_inside[:, None] & j_inside[None, :]
        k = tl.load(key + b * key_b + h * key_h + j_ * key_l + c_[:, None] * key_d, mask=c_and_j, other=0)
        v = tl.load(value + b * value_b + h * value_h + j_ * value_l + c_[:, None] * value_d, mask=c_and_j, other=0)
        for m in range(i_first, i_last, BM):
            i = tl.arange(0, BM).to(tl.int64) + m
            i_inside, i_ = i < rows, i[:, None]
            i_and_c = i_inside[:, None] & c_inside[None, :]
            q = tl.load(query + b * query_b + h * query_h + i_ * query_l + c_[None, :] * query_d, mask=i_and_c, other=0)
            g = tl.load(grad_out + b * grad_b + h * grad_h + i_ * grad_l + c_[None, :] * grad_d, mask=i_and_c, other=0)
            row = (b * heads + h) * rows + i
            bias_at = b * bias_b + h * bias_h + i_ * bias_i + j_ * bias_j
            inside = i_inside[:, None] & j_inside[None, :]
            s = added(scale, bias, bias_at, key_mask, b * mask_b + j_ * mask_j, inside, j_inside[None, :])
            s = tl.dot(q, k, s, input_precision=PRECISION) * (scale * LOG2E)
            s = tl.where(j_inside[None, :], s, -INF)
            top, log_total = row_statistics(largest, log_sum, row, i_inside)
            p = tl.exp2(s - top[:, None] - log_total[:, None])
            a = tl.dot(g, v, input_precision=PRECISION)
            if DROP:
                keep = kept(k0, k1, b, h, i[:, None], j[None, :], rows, columns, drop_below)
                a = tl.where(keep, a * keep_factor, 0.0)
            acc += p * (a - tl.load(delta + row, mask=i_inside, other=0)[:, None])
    at = grad_bias + split.to(tl.int64) * part_s + own_b.to(tl.int64) * part_b + own_h.to(tl.int64) * part_h
    if bias_rows == 1:
        tl.store(at + j * part_j, tl.sum(acc, axis=0).to(grad_bias.dtype.element_ty), mask=j_inside)
    else:
        i = i_first.to(tl.int64) + tl.arange(0, BM).to(tl.int64)
        inside = (i < bias_rows)[:, None] & j_inside[None, :]
        tl.store(at + i[:, None] * part_i + j_ * part_j, acc.to(grad_bias.dtype.element_ty), mask=inside)


def backward_tile(rows: int, columns: int, depth: int, bits: int, drop: bool, arch: int) -> dict[str, int | str]:
    """BM, BN, D, PRECISION, WHOLE, num_warps and registers, by table."""
    D, all_keys = padded(depth), padded(columns)
    kind = precision(D, 32 if arch < 100 else 16)
    if bits == 16:
        whole = all_keys <= (128 if drop else 256) and D <= 32 or all_keys <= 64 and D <= 64
        BN = all_keys if whole else min(64 if D <= 64 else 16, all_keys)
        BM = min(32, padded(rows)) if D <= 32 and BN in (32, 64) else 16
        warps = 4 if D > 64 else max(1, min(8, BN // 16))
    elif kind == "tf32x3":
        whole = all_keys <= 64
        BM, BN = 16, all_keys if whole else 16 if drop else 32
        warps = max(1, BN // 16)
    else:
        BM = BN = min(32 if D <= 32 else 16, all_keys)
        whole, warps = all_keys <= BN, 8 if D > 16 else 4
    return {"BM": BM, "BN": BN, "D": D, "PRECISION": kind, "WHOLE": whole, "num_warps": warps, "registers": 255}


def backward(
    outputs, grad_out, query, key, value, key_mask, attn_bias, seed_at, statistics, scale, dropout_p, seed, needs
) -> None:
    """Launcher for `bdgf::cross_attention_bwd`."""
    grad_query, grad_key, grad_value, _, grad_bias, _ = outputs
    if grad_out.numel() == 0:
        for x in outputs:
            if x is not None:
                x.zero_()
        return
    scalars, mask_strides, of_bias, constants = common(query, key, key_mask, attn_bias, seed_at, scale, dropout_p, seed)
    batch, heads, rows, depth = query.shape
    columns, pairs = key.shape[2], batch * heads
    tile = backward_tile(rows, columns, depth, 8 * query.element_size(), dropout_p > 0.0, capability(query.device))
    whole = tile.pop("WHOLE")
    delta = None if whole and grad_bias is None else torch.empty_like(statistics[0])
    inputs = (grad_out, query, key, value, key_mask, attn_bias, seed_at, *statistics.unbind(0), delta)
    strides = (*query.stride(), *key.stride(), *value.stride(), *grad_out.stride())
    tail = (*mask_strides, *of_bias)

    def of(x):
        return (0, 0, 0, 0) if x is None else x.stride()

    if not whole:
        launch(
            cross_attention_bwd_query, pairs * cdiv(rows, tile["BM"]),
            *inputs, grad_query, *scalars, *strides, *of(grad_query), *tail, **constants, **tile,
        )  # fmt: skip
    if whole or grad_key is not None or grad_value is not None:
        launch(
            cross_attention_bwd, pairs * cdiv(columns, tile["BN"]),
            *inputs, grad_query if whole else None, grad_key, grad_value, *scalars, *strides, *of(grad_query),
            *of(grad_key), *of(grad_value), *tail, **constants, **tile, WHOLE=whole,
        )  # fmt: skip
    if grad_bias is not None:
        _bias_gradient(grad_bias, inputs, scalars, strides, tail, constants, tile["D"], batch, heads, rows, columns)


PARTIAL_BYTES = 16 * 2**20  # of the bias gradient's workspace


def _bias_gradient(grad_bias, inputs, scalars, strides, tail, constants, D, batch, heads, rows, columns) -> None:
    bias_batch, bias_heads, bias_rows, _ = grad_bias.shape
    query = inputs[1]
    shared_batch, shared_heads = batch // bias_batch, heads // bias_heads
    BM, BN = 16, min(32 if D <= 32 or query.element_size() == 2 else 16, padded(columns))
    owned = bias_batch * bias_heads * cdiv(bias_rows, BM) * cdiv(columns, BN)
    shared = shared_batch * shared_heads
    splits = max(1, min(shared, cdiv(512, owned), PARTIAL_BYTES // (4 * grad_bias.numel())))
    per_split = cdiv(shared, splits)
    splits = cdiv(shared, per_split)
    if splits == 1:
        part, part_strides = grad_bias, (0, *grad_bias.stride())
    else:
        part = workspace(grad_bias, splits, *grad_bias.shape)
        part_strides = part.stride()
    launch(
        cross_attention_bwd_bias, owned * splits,
        *inputs, part, *scalars, *strides, *tail, *part_strides, splits, per_split, shared_batch, shared_heads,
        bias_heads, bias_rows, **constants, BM=BM, BN=BN, D=D, PRECISION=precision(D, 32 if capability(query.device) < 100 else 16),
        num_warps=8 if D > 16 and query.element_size() == 4 else 4, registers=255,
    )  # fmt: skip
    if splits > 1:
        grad_bias.copy_(part.sum(dim=0))
