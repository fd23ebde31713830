"""Standard normals that depend on seed, stream, sample and element alone."""

from __future__ import annotations

import triton
import triton.language as tl

from . import noise
from ._launch import launch
from .noise import key_word, normals, row_start, sample_word, stream_word, tile_columns, tile_rows


@triton.jit(do_not_specialize=["seed_low", "seed_high", "stream"])
def philox_normal_kernel(
    out, seed_at, stream_at, sample_ids, origin, seed_low, seed_high, stream, batch, rows, height, length, extent_h,
    extent_w, LOW: tl.constexpr, HIGH: tl.constexpr, FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    b, c, y, live, column = tile_rows(tl.program_id(0), batch, rows, height, length, FLAT, R, P)
    start = b * 0 if FLAT else row_start(origin, b, c, y, live, extent_h, extent_w)
    block, columns, mask = tile_columns(start, live, column, length, FLAT, P)
    k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
    value = normals(block, sample_word(sample_ids, b, live), stream_word(stream_at, stream), k0, k1, R, P)
    row = b * rows + c.to(tl.int64) * height + y  # rows of a contiguous tensor
    tl.store(out + (row * length)[:, None] + columns, value.to(out.dtype.element_ty), mask=mask)


def forward(outputs, seed_at, sample_ids, stream_at, origin, seed, stream, extent_h, extent_w) -> None:
    """Launcher for `bdgf::philox_normal_fwd`."""
    out = outputs[0]
    if out.numel() == 0:
        return
    loop, _ = noise.sample_loop([out], None if origin is None else (extent_h, extent_w))
    low, high = noise.purpose_constant(noise.TARGET_NOISE)
    launch(
        philox_normal_kernel, loop.programs,
        out, seed_at, stream_at, sample_ids, origin, *noise.halves(seed), noise.halves(stream)[0], loop.batch, loop.rows,
        loop.height, loop.length, loop.extent_h, loop.extent_w, LOW=low, HIGH=high, FLAT=loop.flat, R=loop.R, P=loop.P,
        num_warps=loop.num_warps, fp_fusion=False,
    )  # fmt: skip
