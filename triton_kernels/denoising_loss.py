"""Mean squared error of a denoiser per sample and group of channels, and its gradients; both draw the target's noise anew."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import noise
from ._launch import cdiv, launch, next_power_of_2, workspace
from .noise import at_step, key_word, normals, row_start, sample_word, stream_word, tile_columns

_EPSILON, _SAMPLE, _VELOCITY = (tl.constexpr(i) for i in range(3))  # order of ops._noise.PREDICTION_TYPES
TILES = 8  # of a program, at most: its sum is one partial result


@triton.jit(do_not_specialize=["seed_low", "seed_high", "stream"])
def denoising_loss_kernel(
    pred, x0, loss, grad_pred, grad_x0, t, sqrt_abar, sqrt_rest, hidden, seed_at, stream_at, sample_ids, origin,
    seed_low, seed_high, stream, segments, tiles, rows_per_channel, length, extent_h, extent_w, t_stride, T, hidden_b,
    hidden_m, loss_b, loss_m, pred_b, pred_c, pred_y, pred_x, x0_b, x0_c, x0_y, x0_x, grad_pred_b, grad_pred_c,
    grad_pred_y, grad_pred_x, grad_x0_b, grad_x0_c, grad_x0_y, grad_x0_x, GROUPS: tl.constexpr, KIND: tl.constexpr,
    FORWARD: tl.constexpr, FLAT: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """One segment, up to `tiles` tiles, of one group of one sample. With FLAT, `length` is that of a channel, and a
    group is one row; else its rows are the channels' rows. `loss` receives the loss, or a segment's part of it; in the
    backward it is the gradient of the loss."""
    pid = tl.program_id(0)
    segment = pid % segments
    m = pid // segments % len(GROUPS)
    sample = pid // segments // len(GROUPS)
    first, size = 0, 0
    channel = 0
    for i in tl.static_range(len(GROUPS)):
        first = tl.where(m == i, channel, first)
        size = tl.where(m == i, GROUPS[i], size)
        channel += GROUPS[i]
    count = size.to(tl.int64) * rows_per_channel * length

    live = tl.full([1], True, tl.int1)
    b = tl.full([1], 0, tl.int64) + sample
    a = at_step(t, sqrt_abar, b, live, t_stride, T)
    r = at_step(t, sqrt_rest, b, live, t_stride, T)
    spoiled = tl.sum(a * 0.0, axis=0)  # NaN for a step out of range, whatever the target
    if hidden is not None:
        hide = tl.load(hidden + sample.to(tl.int64) * hidden_b + m * hidden_m) != 0
    if KIND != _SAMPLE:
        k0, k1 = key_word(seed_at, seed_low, 0, 0), key_word(seed_at, seed_high, 32, 0)
        word = sample_word(sample_ids, b, live)
        second = stream_word(stream_at, stream)
    if FORWARD:
        squares = tl.zeros([R, 4 * P], tl.float32)
    else:
        scale = 2.0 * tl.load(loss + sample.to(tl.int64) * loss_b + m * loss_m) / count.to(tl.float32) + spoiled
        if KIND == _SAMPLE:
            scale_x0 = -scale
        elif KIND == _VELOCITY:
            scale_x0 = scale * tl.sum(r, axis=0)
        else:
            scale_x0 = scale * 0.0
        if hidden is not None:
            scale_x0 = tl.where(hide, -scale, scale_x0)

    if FLAT:
        rows = 1
        row_length = count
        columns = tl.cdiv(count + 3, 4 * P).to(tl.int32)
    else:
        rows = size * rows_per_channel
        row_length = length
        columns = tl.cdiv(length + 3, 4 * P)
    last = tl.minimum((segment + 1) * tiles, tl.cdiv(rows, R) * columns)
    for tile in range(segment * tiles, last):
        row = tile // columns * R + tl.arange(0, R)
        inside = row < rows
        if FLAT:
            c, y = row * 0 + first, row * 0
        else:
            c, y = first + row // rows_per_channel, row % rows_per_channel
        start = row_start(origin, b, c, y, inside, extent_h, extent_w)
        block, column, mask = tile_columns(start, inside, tile % columns, row_length, False, P)
        c, y = c.to(tl.int64), y.to(tl.int64)
        value = tl.load(pred + (b * pred_b + c * pred_c + y * pred_y)[:, None] + column * pred_x, mask=mask, other=0)
        if KIND != _EPSILON or hidden is not None:
            clean = tl.load(x0 + (b * x0_b + c * x0_c + y * x0_y)[:, None] + column * x0_x, mask=mask, other=0).to(tl.float32)
        if KIND == _SAMPLE:
            target = clean
        else:
            target = normals(block, word, second, k0, k1, R, P)
            if KIND == _VELOCITY:
                target = a[:, None] * target - r[:, None] * clean
            if hidden is not None:
                target = tl.where(hide, clean, target)
        residual = tl.where(mask, value.to(tl.float32) - target, 0.0)
        if FORWARD:
            squares = tl.fma(residual, residual, squares)
        else:
            if grad_pred is not None:
                to = grad_pred + (b * grad_pred_b + c * grad_pred_c + y * grad_pred_y)[:, None] + column * grad_pred_x
                tl.store(to, (residual * scale).to(grad_pred.dtype.element_ty), mask=mask)
            if grad_x0 is not None:
                to = grad_x0 + (b * grad_x0_b + c * grad_x0_c + y * grad_x0_y)[:, None] + column * grad_x0_x
                tl.store(to, (residual * scale_x0).to(grad_x0.dtype.element_ty), mask=mask)
    if FORWARD:
        total = tl.sum(tl.sum(squares, axis=1), axis=0) / count.to(tl.float32) + spoiled
        tl.store(loss + sample.to(tl.int64) * loss_b + m * loss_m + segment, total)


def _run(
    loss, grad_loss, grad_pred, grad_x0, pred, x0, t, sqrt_abar, sqrt_rest, hidden, seed_at, sample_ids, stream_at,
    origin, prediction, channel_groups, seed, stream, extent_h, extent_w,
):  # fmt: skip
    if pred.numel() == 0:
        return
    groups = tuple(channel_groups)
    batch, channels = pred.shape[:2]
    drawn = prediction != _SAMPLE.value
    scene = None if origin is None or not drawn else (extent_h, extent_w)
    if not drawn and hidden is not None:
        hidden = None  # every target is x0
    loop, given = noise.sample_loop([pred, x0, grad_pred, grad_x0], scene, one_sample=True)
    if loop.flat:  # one channel after another: a group is one row
        length, rows, extent, R = loop.length // channels, 1, (1, loop.length // channels), 1
        strides = [(s[0], length, 0, 1) for s in loop.strides]
        P = min(256, next_power_of_2((max(groups) * length + 6) // 4))
        columns, row_tiles = cdiv(max(groups) * length + 3, 4 * P), 1
    else:
        length, rows, extent, R, P = loop.length, loop.height, (loop.extent_h, loop.extent_w), loop.R, loop.P
        strides = loop.strides
        columns, row_tiles = cdiv(length + 3, 4 * P), cdiv(max(groups) * rows, R)
    segments = cdiv(columns * row_tiles, TILES)
    forward = loss is not None
    if not forward:
        result = grad_loss
    elif segments == 1:
        result = loss
    else:
        result = workspace(loss, batch, len(groups), segments)
    hidden_strides = (0, 0) if hidden is None else hidden.stride()
    launch(
        denoising_loss_kernel, batch * len(groups) * segments,
        given[0], given[1], result, given[2], given[3], t, sqrt_abar.contiguous(), sqrt_rest.contiguous(), hidden,
        seed_at, stream_at, sample_ids, None if scene is None else origin, *noise.halves(seed),
        noise.halves(stream)[0], segments, TILES, rows, length, *extent, t.stride(0), sqrt_abar.shape[0],
        *hidden_strides, result.stride(0), result.stride(1), *(s for four in strides for s in four), GROUPS=groups,
        KIND=prediction, FORWARD=forward, FLAT=loop.flat, R=R, P=P, num_warps=max(1, min(4, R * P // 64)),
        fp_fusion=False,
    )  # fmt: skip
    if forward and result is not loss:
        torch.sum(result, dim=2, out=loss)
    noise.copy_back(grad_pred, given[2])
    noise.copy_back(grad_x0, given[3])


def forward(outputs, *arguments) -> None:
    """Launcher for `bdgf::denoising_loss_fwd`."""
    _run(outputs[0], None, None, None, *arguments)


def backward(outputs, grad_loss, *arguments) -> None:
    """Launcher for `bdgf::denoising_loss_bwd`."""
    _run(None, grad_loss, outputs[0], outputs[1], *arguments[:-1])
