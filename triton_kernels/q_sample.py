"""x_t of the forward process, its noise drawn in registers; without the noise, the gradient of x0."""

from __future__ import annotations

import triton
import triton.language as tl

from . import noise
from ._launch import launch
from .noise import at_step, key_word, normals, row_start, sample_word, stream_word, tile_columns, tile_rows


@triton.jit(do_not_specialize=["seed_low", "seed_high", "stream"])
def q_sample_kernel(
    x0, out, t, sqrt_abar, sqrt_rest, hidden, seed_at, stream_at, sample_ids, origin, seed_low, seed_high, stream,
    batch, rows, height, length, extent_h, extent_w, t_stride, T, hidden_b, hidden_c, x0_b, x0_c, x0_y, x0_x,
    out_b, out_c, out_y, out_x, LOW: tl.constexpr, HIGH: tl.constexpr, DRAW: tl.constexpr, FILL: tl.constexpr,
    FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    b, c, y, live, column = tile_rows(tl.program_id(0), batch, rows, height, length, FLAT, R, P)
    start = b * 0 if FLAT else row_start(origin, b, c, y, live, extent_h, extent_w)
    block, columns, mask = tile_columns(start, live, column, length, FLAT, P)
    seen = mask
    if hidden is not None:
        hide = tl.load(hidden + b * hidden_b + c.to(tl.int64) * hidden_c, mask=live, other=0) != 0
        seen = mask & (hide[:, None] == 0)
    x = tl.load(x0 + (b * x0_b + c.to(tl.int64) * x0_c + y.to(tl.int64) * x0_y)[:, None] + columns * x0_x, mask=seen, other=0)
    value = at_step(t, sqrt_abar, b, live, t_stride, T)[:, None] * x.to(tl.float32)
    if DRAW:
        k0, k1 = key_word(seed_at, seed_low, 0, 0), key_word(seed_at, seed_high, 32, 0)
        if FILL:  # a hidden channel's noise has a purpose of its own
            k0, k1 = tl.where(hide[:, None], k0 ^ LOW, k0), tl.where(hide[:, None], k1 ^ HIGH, k1)
        eps = normals(block, sample_word(sample_ids, b, live), stream_word(stream_at, stream), k0, k1, R, P)
        value = value + at_step(t, sqrt_rest, b, live, t_stride, T)[:, None] * eps
    if hidden is not None:
        if FILL:
            value = tl.where(hide[:, None], eps, value)
        else:
            value = tl.where(hide[:, None], 0.0, value)
    to = (b * out_b + c.to(tl.int64) * out_c + y.to(tl.int64) * out_y)[:, None] + columns * out_x
    tl.store(out + to, value.to(out.dtype.element_ty), mask=mask)


def _run(
    out, x0, draw, t, sqrt_abar, sqrt_rest, channel_mask, seed_at, sample_ids, stream_at, origin, fill, seed, stream,
    extent_h, extent_w,
):  # fmt: skip
    if x0.numel() == 0:
        return
    scene = (extent_h, extent_w) if draw and origin is not None else None
    fill = bool(fill and draw and channel_mask is not None)
    loop, (x0, given) = noise.sample_loop([x0, out], scene, by_channel=channel_mask is not None)
    low, high = noise.purpose_constant(noise.MASK_FILL)
    hidden_strides = (0, 0) if channel_mask is None else channel_mask.stride()
    launch(
        q_sample_kernel, loop.programs,
        x0, given, t, sqrt_abar.contiguous(), sqrt_rest.contiguous(), channel_mask, seed_at, stream_at, sample_ids,
        None if scene is None else origin, *noise.halves(seed), noise.halves(stream)[0], loop.batch, loop.rows,
        loop.height, loop.length, loop.extent_h, loop.extent_w, t.stride(0), sqrt_abar.shape[0], *hidden_strides,
        *loop.strides[0], *loop.strides[1], LOW=low, HIGH=high, DRAW=draw, FILL=fill, FLAT=loop.flat, R=loop.R,
        P=loop.P, num_warps=loop.num_warps, fp_fusion=False,
    )  # fmt: skip
    noise.copy_back(out, given)


def forward(outputs, x0, *arguments) -> None:
    """Launcher for `bdgf::q_sample_fwd`."""
    _run(outputs[0], x0, True, *arguments)


def backward(outputs, grad_out, x0, *arguments) -> None:
    """Launcher for `bdgf::q_sample_bwd`."""
    if outputs[0] is not None:
        _run(outputs[0], grad_out, False, *arguments[:-1])
