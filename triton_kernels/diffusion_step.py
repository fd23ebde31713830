"""One reverse step (DDPM or DDIM, by its coefficients) in one read of each input and one write, and its gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from . import noise
from ._launch import launch
from .noise import key_word, normals, row_start, sample_word, stream_word, tile_columns, tile_rows


@triton.jit(do_not_specialize=["seed_low", "seed_high", "stream"])
def diffusion_step_fwd(
    pred, sample, given, out, coefficients, seed_at, stream_at, sample_ids, seed_low, seed_high, stream, batch, rows,
    height, length, extent_h, extent_w, pred_b, pred_c, pred_y, pred_x, sample_b, sample_c, sample_y, sample_x,
    given_b, given_c, given_y, given_x, out_b, out_c, out_y, out_x, LOW: tl.constexpr, HIGH: tl.constexpr,
    CLIP: tl.constexpr, DRAW: tl.constexpr, FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    b, c, y, live, column = tile_rows(tl.program_id(0), batch, rows, height, length, FLAT, R, P)
    start = b * 0 if FLAT else row_start(None, b, c, y, live, extent_h, extent_w)
    block, columns, mask = tile_columns(start, live, column, length, FLAT, P)
    c, y = c.to(tl.int64), y.to(tl.int64)
    p = tl.load(pred + (b * pred_b + c * pred_c + y * pred_y)[:, None] + columns * pred_x, mask=mask, other=0).to(tl.float32)
    x = tl.load(sample + (b * sample_b + c * sample_c + y * sample_y)[:, None] + columns * sample_x, mask=mask, other=0)
    x = x.to(tl.float32)
    row = coefficients + b * 6
    x0 = tl.load(row, mask=live)[:, None] * x + tl.load(row + 1, mask=live)[:, None] * p
    if CLIP:
        x0 = tl.where(x0 > 1.0, 1.0, tl.where(x0 < -1.0, -1.0, x0))  # NaN stays
    mean = tl.load(row + 2, mask=live)[:, None] * x + tl.load(row + 3, mask=live)[:, None] * p
    value = mean + tl.load(row + 4, mask=live)[:, None] * x0
    if DRAW or given is not None:
        if DRAW:
            k0, k1 = key_word(seed_at, seed_low, 0, LOW), key_word(seed_at, seed_high, 32, HIGH)
            eps = normals(block, sample_word(sample_ids, b, live), stream_word(stream_at, stream), k0, k1, R, P)
        else:
            at = (b * given_b + c * given_c + y * given_y)[:, None] + columns * given_x
            eps = tl.load(given + at, mask=mask, other=0).to(tl.float32)
        value = value + tl.load(row + 5, mask=live)[:, None] * eps
    to = (b * out_b + c * out_c + y * out_y)[:, None] + columns * out_x
    tl.store(out + to, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def diffusion_step_bwd(
    pred, sample, grad, grad_pred, grad_sample, coefficients, batch, rows, height, length, extent_h, extent_w, pred_b,
    pred_c, pred_y, pred_x, sample_b, sample_c, sample_y, sample_x, grad_b, grad_c, grad_y, grad_x, grad_pred_b,
    grad_pred_c, grad_pred_y, grad_pred_x, grad_sample_b, grad_sample_c, grad_sample_y, grad_sample_x,
    CLIP: tl.constexpr, FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The clamp passes the gradient where x0 lies in [-1, 1]."""
    b, c, y, live, column = tile_rows(tl.program_id(0), batch, rows, height, length, FLAT, R, P)
    start = b * 0 if FLAT else row_start(None, b, c, y, live, extent_h, extent_w)
    _, columns, mask = tile_columns(start, live, column, length, FLAT, P)
    c, y = c.to(tl.int64), y.to(tl.int64)
    g = tl.load(grad + (b * grad_b + c * grad_c + y * grad_y)[:, None] + columns * grad_x, mask=mask, other=0).to(tl.float32)
    row = coefficients + b * 6
    of_sample, of_pred = tl.load(row, mask=live)[:, None], tl.load(row + 1, mask=live)[:, None]
    through = tl.load(row + 4, mask=live)[:, None] * g
    if CLIP:
        p = tl.load(pred + (b * pred_b + c * pred_c + y * pred_y)[:, None] + columns * pred_x, mask=mask, other=0)
        x = tl.load(sample + (b * sample_b + c * sample_c + y * sample_y)[:, None] + columns * sample_x, mask=mask, other=0)
        x0 = of_sample * x.to(tl.float32) + of_pred * p.to(tl.float32)
        through = tl.where(tl.abs(x0) <= 1.0, through, 0.0)
    if grad_pred is not None:
        value = tl.load(row + 3, mask=live)[:, None] * g + of_pred * through
        to = (b * grad_pred_b + c * grad_pred_c + y * grad_pred_y)[:, None] + columns * grad_pred_x
        tl.store(grad_pred + to, value.to(grad_pred.dtype.element_ty), mask=mask)
    if grad_sample is not None:
        value = tl.load(row + 2, mask=live)[:, None] * g + of_sample * through
        to = (b * grad_sample_b + c * grad_sample_c + y * grad_sample_y)[:, None] + columns * grad_sample_x
        tl.store(grad_sample + to, value.to(grad_sample.dtype.element_ty), mask=mask)


def _strides(loop):
    return (s for four in loop.strides for s in four)


def forward(
    outputs, pred, sample, coefficients, given, seed_at, sample_ids, stream_at, origin, clip, draw, seed, stream, *_
) -> None:
    """Launcher for `bdgf::diffusion_step_fwd`."""
    out = outputs[0]
    if out.numel() == 0:
        return
    loop, tensors = noise.sample_loop([pred, sample, None if draw else given, out])
    low, high = noise.purpose_constant(noise.SAMPLER)
    launch(
        diffusion_step_fwd, loop.programs,
        *tensors, coefficients.contiguous(), seed_at, stream_at, sample_ids, *noise.halves(seed),
        noise.halves(stream)[0], loop.batch, loop.rows, loop.height, loop.length, loop.extent_h, loop.extent_w,
        *_strides(loop), LOW=low, HIGH=high, CLIP=clip, DRAW=draw, FLAT=loop.flat, R=loop.R, P=loop.P,
        num_warps=loop.num_warps, fp_fusion=False,
    )  # fmt: skip
    noise.copy_back(out, tensors[3])


def backward(outputs, grad_out, pred, sample, coefficients, *rest) -> None:
    """Launcher for `bdgf::diffusion_step_bwd`."""
    grad_pred, grad_sample = outputs[:2]
    if grad_out.numel() == 0:
        return
    clip = rest[5]
    loop, tensors = noise.sample_loop([pred, sample, grad_out, grad_pred, grad_sample])
    launch(
        diffusion_step_bwd, loop.programs,
        *tensors, coefficients.contiguous(), loop.batch, loop.rows, loop.height, loop.length, loop.extent_h,
        loop.extent_w, *_strides(loop), CLIP=clip, FLAT=loop.flat, R=loop.R, P=loop.P, num_warps=loop.num_warps,
        fp_fusion=False,
    )  # fmt: skip
    noise.copy_back(grad_pred, tensors[3])
    noise.copy_back(grad_sample, tensors[4])
