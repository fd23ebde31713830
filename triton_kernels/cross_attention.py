"""softmax(scale Q K' + bias) V for many short sequences: the forward and its launchers.

The scores live in registers, in tiles of BM queries by BN keys; for short sequences one tile is all of them, and one
program works through several (sample, head) pairs. The backward is in cross_attention_bwd.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import noise
from ._launch import capability, cdiv, launch, next_power_of_2
from .noise import key_word, philox_words

LOG2E = tl.constexpr(1.4426950408889634)
INF = tl.constexpr(float("inf"))


@triton.jit
def kept(k0, k1, b, h, i, j, rows, columns, drop_below):
    """Which weights of rows i and columns j, index tensors that broadcast, dropout leaves."""
    element = (h * rows + i) * columns + j
    zero = tl.zeros([1, 1], tl.uint32)
    block = (element >> 2).to(tl.uint32), (element >> 34).to(tl.uint32)
    w0, w1, w2, w3 = philox_words(block[0], block[1], zero + b.to(tl.uint32), zero, k0, k1)
    lane = element & 3
    word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    return word >= drop_below.to(tl.uint32, bitcast=True)


@triton.jit
def added(scale, bias, bias_at, key_mask, mask_at, inside, columns_inside):
    """(bias, -inf where a key is masked) / scale, what a tile's product of queries and keys starts from.

    Added after the product, the layout of these loads would spread over the whole softmax and double it.
    """
    term = tl.where(inside, 0.0, 0.0)
    inverse = 1.0 / scale
    if bias is not None:
        term = tl.load(bias + bias_at, mask=inside, other=0).to(tl.float32)
        # The smallest float32 is no -inf: neither divided by the scale nor times log2(e). What is cut here weighs nothing beside
        # any other score, or is the score of all keys of a row.
        most = 1e38 * tl.minimum(tl.maximum(scale, -scale), 1.0)
        cut = tl.minimum(tl.maximum(term, -most, propagate_nan=tl.PropagateNan.ALL), most, propagate_nan=tl.PropagateNan.ALL)
        term = tl.where(tl.abs(term) == INF, term, cut)
    if key_mask is not None:
        attend = tl.load(key_mask + mask_at, mask=columns_inside, other=0).to(tl.int1)
        term = tl.where(attend, term, -INF)
    return term * inverse


@triton.jit(do_not_specialize=["seed_low", "seed_high", "drop_below"])
def cross_attention_fwd(
    query, key, value, key_mask, bias, seed_at, out, largest, log_sum, scale, keep_factor, drop_below, seed_low,
    seed_high, pairs, heads, rows, columns, depth, query_b, query_h, query_l, query_d, key_b, key_h, key_l, key_d, value_b,
    value_h, value_l, value_d, out_b, out_h, out_l, out_d, mask_b, mask_j, bias_b, bias_h, bias_i, bias_j,
    LOW: tl.constexpr, HIGH: tl.constexpr, DROP: tl.constexpr, PAIRS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(rows, BM)
    # Widened before they are added: addresses of one thread then differ by constants.
    i = (tl.program_id(0) % tiles * BM).to(tl.int64) + tl.arange(0, BM).to(tl.int64)
    c = tl.arange(0, D).to(tl.int64)
    i_inside, c_inside = i < rows, c < depth
    if DROP:
        k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
    first = tl.program_id(0) // tiles * PAIRS
    for n in range(0, tl.minimum(PAIRS, pairs - first)):
        pair = first + n
        b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
        i_, c_ = i[:, None], c[None, :]
        i_and_c = i_inside[:, None] & c_inside[None, :]
        q = tl.load(query + b * query_b + h * query_h + i_ * query_l + c_ * query_d, mask=i_and_c, other=0)
        top = tl.full([BM], -INF, tl.float32)
        total = tl.zeros([BM], tl.float32)
        acc = tl.zeros([BM, D], tl.float32)
        for start in range(0, columns, BN):
            j = tl.arange(0, BN).to(tl.int64) + start
            j_inside = j < columns
            at = key + b * key_b + h * key_h + j[None, :] * key_l + c[:, None] * key_d
            k = tl.load(at, mask=c_inside[:, None] & j_inside[None, :], other=0)
            bias_at = b * bias_b + h * bias_h + i_ * bias_i + j[None, :] * bias_j
            mask_at = b * mask_b + j[None, :] * mask_j
            inside = i_inside[:, None] & j_inside[None, :]
            s = added(scale, bias, bias_at, key_mask, mask_at, inside, j_inside[None, :])
            s = tl.dot(q, k, s, input_precision=PRECISION) * (scale * LOG2E)
            s = tl.where(j_inside[None, :], s, -INF)
            above = tl.maximum(top, tl.max(s, axis=1))
            level = tl.where(above == -INF, 0.0, above)  # a row without a key so far
            p = tl.exp2(s - level[:, None])
            shrink = tl.exp2(top - level)
            total = total * shrink + tl.sum(p, axis=1)
            if DROP:
                p = tl.where(kept(k0, k1, b, h, i[:, None], j[None, :], rows, columns, drop_below), p * keep_factor, 0.0)
            at = value + b * value_b + h * value_h + j[:, None] * value_l + c_ * value_d
            v = tl.load(at, mask=j_inside[:, None] & c_inside[None, :], other=0)
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
            top = above
        divisor = tl.where(total == 0.0, 1.0, total)
        acc = acc / divisor[:, None]
        at = out + b * out_b + h * out_h + i_ * out_l + c_ * out_d
        tl.store(at, acc.to(out.dtype.element_ty), mask=i_and_c)
        # In powers of 2, and apart: added up, a large maximum would swallow the logarithm.
        row = pair.to(tl.int64) * rows + i
        tl.store(largest + row, tl.where(total == 0.0, 0.0, top), mask=i_inside)
        tl.store(log_sum + row, tl.where(total == 0.0, INF, tl.log2(divisor)), mask=i_inside)


def padded(n: int) -> int:
    """The side of a tile that holds n: a power of two that tl.dot takes."""
    return max(16, next_power_of_2(n))


def precision(depth: int, most: int) -> str:
    """How float32 products are made: of three products of halves on tensor cores, exact to some 1e-6, up to a depth of `most`;
    beyond, where their registers do not suffice, one by one."""
    return "ieee" if depth > most else "tf32x3"


def forward_tile(rows: int, columns: int, depth: int, bits: int, drop: bool, arch: int) -> dict[str, int | str]:
    """BM, BN, D, PRECISION, PAIRS, num_warps and registers, by table. On tensor cores a warp holds 16 queries."""
    D = padded(depth)
    kind = precision(D, 32 if arch < 90 else 64 if arch < 100 else 16)
    if bits == 16:
        most, most_keys = 64, 16 if D > 64 else 32 if drop or D == 32 else 64  # 64 keys spill at depth 32 on 120
    elif kind == "tf32x3":
        most, most_keys = 64, 16 if drop and D > 32 else 32
    else:
        most = 32 if D <= 64 else 16
        most_keys = 16 if drop and D > 32 else most  # the factors of dropout take the registers
    BM, BN = min(most, padded(rows)), min(most_keys, padded(columns))
    pairs = 1 if rows > BM else {16: 4, 32: 2}.get(max(BM, BN), 1)
    warps = BM // 16 if bits == 16 or kind == "tf32x3" else 8 if D > 16 else 4
    return {"BM": BM, "BN": BN, "D": D, "PRECISION": kind, "PAIRS": pairs, "num_warps": warps, "registers": 255}


def common(query, key, key_mask, attn_bias, seed_at, scale, dropout_p, seed):
    """What both directions pass on: (scalars, mask strides, bias strides, constants)."""
    batch, heads, rows, depth = query.shape
    low, high = noise.purpose_constant(noise.DROPOUT)
    drop_below = min(int(dropout_p * 2.0**32), 2**32 - 1)
    scalars = (
        scale or 1e-20, 1.0 / (1.0 - dropout_p), noise.signed(drop_below), *noise.halves(seed), batch * heads, heads, rows,
        key.shape[2], depth,
    )  # fmt: skip
    mask_strides = (0, 0) if key_mask is None else key_mask.stride()
    constants = {"LOW": low, "HIGH": high, "DROP": dropout_p > 0.0}
    return scalars, mask_strides, bias_strides(attn_bias), constants


def bias_strides(bias) -> tuple[int, int, int, int]:
    """Strides along which a bias is walked: 0 where it broadcasts."""
    if bias is None:
        return 0, 0, 0, 0
    return tuple(0 if n == 1 and axis < 3 else s for axis, (n, s) in enumerate(zip(bias.shape, bias.stride(), strict=True)))


def forward(outputs, query, key, value, key_mask, attn_bias, seed_at, scale, dropout_p, seed) -> None:
    """Launcher for `bdgf::cross_attention_fwd`."""
    out, statistics = outputs
    if out.numel() == 0:
        return
    scalars, mask_strides, of_bias, constants = common(query, key, key_mask, attn_bias, seed_at, scale, dropout_p, seed)
    batch, heads, rows, depth = query.shape
    tile = forward_tile(rows, key.shape[2], depth, 8 * query.element_size(), dropout_p > 0.0, capability(query.device))
    launch(
        cross_attention_fwd, cdiv(batch * heads, tile["PAIRS"]) * cdiv(rows, tile["BM"]),
        query, key, value, key_mask, attn_bias, seed_at, out, *statistics.unbind(0), *scalars, *query.stride(), *key.stride(),
        *value.stride(), *out.stride(), *mask_strides, *of_bias, **constants, **tile,
    )  # fmt: skip
