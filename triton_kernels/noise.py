"""Counter-based noise in Triton, what every operation that draws noise builds on; its bits are those of
csrc/include/bdgf/philox.h, where the formulas stand.

A kernel works on tiles of rows times whole Philox blocks of four normals, so that no block is made twice: [rows, 4 *
blocks] elements. A tensor (batch, C, Y, X) is covered in one of two ways. `flat`: a row is a whole sample, its elements one
after another in memory. Else a row is one channel, or one image row of it, which allows for any strides, a mask over the
channels and the scene's count of elements; the first and the last block of a row may lie partly outside.

Every kernel that draws is launched with enable_fp_fusion=False: a contracted multiply-add has other bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from ._launch import cdiv, next_power_of_2

# The purposes and their constants are those of csrc/include/bdgf/philox.h.
TARGET_NOISE, MASK_FILL, SAMPLER, DROPOUT = 0, 1, 5, 6


def purpose_constant(purpose: int) -> tuple[int, int]:
    """What a purpose XORs into the low and the high word of the seed."""
    value = 0x9E3779B97F4A7C15 * purpose % 2**64
    return value & 0xFFFFFFFF, value >> 32


def halves(seed: int) -> tuple[int, int]:
    """Low and high word of a seed as int32 arguments: a wider or a special value would compile a kernel of its own."""
    return signed(seed), signed(seed >> 32)


def signed(word: int) -> int:
    """The int32 of the same low 32 bits."""
    return (word + 2**31) % 2**32 - 2**31


@dataclass(frozen=True)
class SampleLoop:
    """How the tiles of a launch cover (batch, C, Y, X)."""

    flat: bool
    batch: int
    rows: int  # of a sample
    height: int  # rows of a channel
    length: int  # elements of a row
    extent_h: int  # of the scene; without an origin such that a channel's elements follow the one before
    extent_w: int
    strides: tuple[tuple[int, int, int, int], ...]  # of each tensor: sample, channel, row, element
    R: int  # rows of a tile
    P: int  # blocks of a row of a tile

    @property
    def programs(self) -> int:
        columns = cdiv(self.row_blocks, self.P)
        return columns * (cdiv(self.batch, self.R) if self.flat else self.batch * cdiv(self.rows, self.R))

    @property
    def row_blocks(self) -> int:
        return (self.length + 3) // 4 if self.flat else (self.length + 6) // 4

    @property
    def num_warps(self) -> int:
        return max(1, min(4, self.R * self.P // 64))


def sample_loop(
    tensors: list[Tensor | None],
    scene: tuple[int, int] | None = None,
    by_channel: bool = False,
    one_sample: bool = False,
) -> tuple[SampleLoop, list[Tensor | None]]:
    """The loop over tensors of one shape, and the tensors, copied where no two strides reach all of a channel.

    `scene`: extent, where an origin is given. `by_channel`: channels differ in more than their elements. `one_sample`:
    a tile never spans samples.
    """
    first = next(x for x in tensors if x is not None)
    shape = first.shape
    batch = shape[0]
    if scene is None and not by_channel and all(x is None or x.is_contiguous() for x in tensors):
        length = first.numel() // batch
        blocks = (length + 3) // 4
        P = min(256, next_power_of_2(blocks))
        R = 1 if one_sample else min(256 // P, next_power_of_2(batch))
        strides = tuple((0, 0, 0, 1) if x is None else (length, 0, 0, 1) for x in tensors)
        return SampleLoop(True, batch, 1, 1, length, 0, 0, strides, R, P), tensors
    views = [None if x is None else _four_axes(x) for x in tensors]
    if any(v is None for v, x in zip(views, tensors, strict=True) if x is not None):
        views = [None if x is None else _four_axes(x.contiguous()) for x in tensors]
    given = [v for v in views if v is not None]
    _, channels, height, width = given[0].shape
    if scene is None and all(height == 1 or v.stride(2) == width * v.stride(3) for v in given):
        height, width = 1, height * width
    rows, blocks = channels * height, (width + 6) // 4
    P = min(256, next_power_of_2(blocks))
    R = min(256 // P, next_power_of_2(rows))
    strides = tuple((0, 0, 0, 1) if v is None else v.stride() for v in views)
    extent = scene or (height, width)
    return SampleLoop(False, batch, rows, height, width, *extent, strides, R, P), views


def _four_axes(x: Tensor) -> Tensor | None:
    """(batch, C, ...) as (batch, C, Y, X) without a copy, or None."""
    while x.dim() < 4:
        x = x.unsqueeze(-2) if x.dim() > 2 else x.unsqueeze(-1)
    while x.dim() > 4:
        for axis in range(2, x.dim() - 1):
            if x.shape[axis] == 1 or x.shape[axis + 1] == 1 or x.stride(axis) == x.shape[axis + 1] * x.stride(axis + 1):
                x = x.flatten(axis, axis + 1)
                break
        else:
            return None
    return x


def copy_back(x: Tensor | None, given: Tensor | None) -> None:
    """After a launch, for an output that `sample_loop` had to copy."""
    if x is not None and given.data_ptr() != x.data_ptr():
        x.copy_(given.view(x.shape))


_M0, _M1 = tl.constexpr(0xD2511F53), tl.constexpr(0xCD9E8D57)
_W0, _W1 = tl.constexpr(0x9E3779B9), tl.constexpr(0xBB67AE85)
_L0, _L1 = tl.constexpr(-0.17472130060195923), tl.constexpr(0.2861863374710083)
_L2, _L3 = tl.constexpr(-0.2983667850494385), tl.constexpr(0.3314060866832733)
_L4, _L5 = tl.constexpr(-0.3992404341697693), tl.constexpr(0.5000352263450623)
_L6, _L7 = tl.constexpr(-0.6666790246963501), tl.constexpr(0.9999998211860657)
_LN, _HALF_TURN = tl.constexpr(-1.3862943649291992), tl.constexpr(7.31459059988282e-10)
_S0, _S1 = tl.constexpr(2.605780537123792e-06), tl.constexpr(-0.00019809602235909551)
_S2, _S3 = tl.constexpr(0.00833306647837162), tl.constexpr(-0.16666659712791443)
_C0, _C1 = tl.constexpr(-2.607710598567792e-07), tl.constexpr(2.4761886379565112e-05)
_C2, _C3 = tl.constexpr(-0.00138884037733078), tl.constexpr(0.04166664183139801)


@triton.jit
def philox_words(c0, c1, c2, c3, k0, k1):
    """The four uint32 words of counters and key, all uint32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, _M0), c0 * _M0
        high1, low1 = tl.umulhi(c2, _M1), c2 * _M1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _W0, k1 + _W1
    return c0, c1, c2, c3


@triton.jit
def box_muller(w0, w1):
    """Two float32 normals of two words."""
    u = tl.fma((w0 >> 1).to(tl.int32, bitcast=True).to(tl.float32), 2.0**-31, 2.0**-32)
    bits = u.to(tl.int32, bitcast=True)
    i = bits - 0x3F3504F3
    f = (bits - (i & -0x800000)).to(tl.float32, bitcast=True) - 1.0
    p = tl.fma(f, _L0, _L1)
    p = tl.fma(p, f, _L2)
    p = tl.fma(p, f, _L3)
    p = tl.fma(p, f, _L4)
    p = tl.fma(p, f, _L5)
    p = tl.fma(p, f, _L6)
    p = tl.fma(p, f, _L7)
    q = tl.fma(f * f, p, f * -2.0)
    r = tl.sqrt_rn(tl.fma((i >> 23).to(tl.float32), _LN, q))
    x = w1.to(tl.int32, bitcast=True).to(tl.float32) * _HALF_TURN
    z = x * x
    s = tl.fma(z, _S0, _S1)
    s = tl.fma(s, z, _S2)
    s = tl.fma(s, z, _S3)
    s = tl.fma(z * x, s, x)
    c = tl.fma(z, _C0, _C1)
    c = tl.fma(c, z, _C2)
    c = tl.fma(c, z, _C3)
    c = tl.fma(c, z, -0.5)
    c = tl.fma(c, z, 1.0)
    first = ((r * c).to(tl.int32, bitcast=True) ^ (w0 << 31).to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    return first, r * s


@triton.jit
def normals(block, sample, stream, k0, k1, R: tl.constexpr, P: tl.constexpr):
    """float32 [R, 4 P] of int64 blocks [R, P], uint32 samples [R, 1], and stream and key."""
    w0, w1, w2, w3 = philox_words(block.to(tl.uint32), (block >> 32).to(tl.uint32), sample, stream, k0, k1)
    n0, n1 = box_muller(w0, w1)
    n2, n3 = box_muller(w2, w3)
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), [R, 4 * P])


@triton.jit
def key_word(seed_at, seed, SHIFT: tl.constexpr, CONSTANT: tl.constexpr):
    """One uint32 word of the key: of the seed, or of the int64 that seed_at points to."""
    if seed_at is not None:
        word = (tl.load(seed_at) >> SHIFT).to(tl.uint32)
    else:
        word = seed.to(tl.uint32, bitcast=True)
    return word ^ CONSTANT


@triton.jit
def stream_word(stream_at, stream):
    """The stream as uint32."""
    if stream_at is not None:
        word = tl.load(stream_at).to(tl.uint32)
    else:
        word = stream.to(tl.uint32, bitcast=True)
    return word


@triton.jit
def sample_word(sample_ids, b, live):
    """The sample's id [R, 1] as uint32."""
    if sample_ids is not None:
        word = tl.load(sample_ids + b, mask=live, other=0).to(tl.uint32)
    else:
        word = b.to(tl.uint32)
    return word[:, None]


@triton.jit
def tile_rows(pid, batch, rows, height, length, FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr):
    """Of a program: sample int64, channel, row int32 and whether they exist, each [R], and its number of the tile
    along its rows."""
    if FLAT:
        columns = tl.cdiv(length, 4 * P)
        b = pid // columns * R + tl.arange(0, R)
        live = b < batch
        c = tl.zeros([R], tl.int32)
        y = tl.zeros([R], tl.int32)
    else:
        columns = tl.cdiv(length + 3, 4 * P)
        chunk = pid // columns
        chunks = tl.cdiv(rows, R)
        r = chunk % chunks * R + tl.arange(0, R)
        b = tl.zeros([R], tl.int32) + chunk // chunks
        live = r < rows
        c = r // height
        y = r % height
    return b.to(tl.int64), c, y, live, pid % columns


@triton.jit
def row_start(origin, b, c, y, live, extent_h, extent_w):
    """The element number of the first element of rows that are no whole samples, int64 [R]."""
    start = c.to(tl.int64) * extent_h + y
    if origin is not None:
        start = (start + tl.load(origin + 2 * b, mask=live, other=0)) * extent_w
        start += tl.load(origin + 2 * b + 1, mask=live, other=0)
    else:
        start *= extent_w
    return start


@triton.jit
def tile_columns(start, live, column, length, FLAT: tl.constexpr, P: tl.constexpr):
    """Blocks int64 [R, P], columns int64 and mask [R, 4 P] of tile number `column` along rows that begin at `start`.

    `start` is the element number, int64 [R]; with FLAT it may be the number 0, and columns are the same for all rows.
    """
    at = column.to(tl.int64) * P
    block = (start >> 2)[:, None] + (at + tl.arange(0, P))[None, :]
    columns = (4 * at + tl.arange(0, 4 * P))[None, :]
    if FLAT:
        mask = live[:, None] & (columns < length)
    else:
        columns = columns - (start & 3)[:, None]
        mask = live[:, None] & (columns >= 0) & (columns < length)
    return block, columns, mask


@triton.jit
def at_step(t, table, b, live, t_stride, T):
    """table[t[b]] float32 [R]; NaN where t lies outside 0..T-1."""
    step = tl.load(t + b * t_stride, mask=live, other=0)
    return tl.load(table + step, mask=live & (step >= 0) & (step < T), other=float("nan"))
