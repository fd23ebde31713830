"""Gradients of group_channel_gate.

The gradient of a channel's logit (the gate is its sigmoid) is gate (1 - gate) times the sum over pixels of dout x. Taken back
through the MLP it gives the gradients of the means, and dx = dout gate + (gradient of the mean) / pixels. In the names below a
slope is a gradient: logit_slope that of the logits, active_slope that of the hidden units. On chip dout and x are read once.
The gradients of the weights are sums of outer products over the samples. Their factors, a few numbers for each (sample, group),
go through a workspace; fixed runs of samples are summed first, and then the runs in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2, processors, workspace
from .group_channel_gate import (
    at_pixel,
    before_relu,
    guide_tile,
    image_strides,
    merged,
    mlp_blocks,
    on_chip,
    scale,
    sums,
    warps,
)


@triton.jit
def mean_slopes(
    slope, squeezed, weight1, bias1, weight2, active, active_slope, row, g, each, guide_each, hidden, USE_X: tl.constexpr,
    USE_GUIDE: tl.constexpr, BC: tl.constexpr, BG: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Gradients of the means [BC], [BG] of (sample, group) number `row` from those of its logits, slope [BC].

    Stores the hidden units and their gradients, the factors of the weights' gradients, where asked.
    """
    c, k = tl.arange(0, BC), tl.arange(0, BG)
    inputs = guide_each
    if USE_X:
        inputs += each
    means = squeezed + row * inputs
    mean_x = tl.load(means + c, mask=c < inputs - guide_each, other=0)
    mean_g = tl.load(means + (inputs - guide_each) + k, mask=k < guide_each, other=0)
    slope_x = tl.zeros([BC], tl.float32)
    slope_g = tl.zeros([BG], tl.float32)
    for start in range(0, hidden, BH):
        h = start + tl.arange(0, BH)
        h_inside = h < hidden
        raw = before_relu(mean_x, mean_g, weight1, bias1, g, h, each, guide_each, hidden, USE_X, USE_GUIDE, BC, BG)
        inside = (c < each)[:, None] & h_inside[None, :]
        w = tl.load(weight2 + (g * each + c)[:, None] * hidden + h[None, :], mask=inside, other=0)
        of_hidden = tl.where(raw <= 0.0, 0.0, tl.sum(w * slope[:, None], axis=0))
        if active is not None:
            tl.store(active + row * hidden + h, tl.where(raw <= 0.0, 0.0, raw), mask=h_inside)
            tl.store(active_slope + row * hidden + h, of_hidden, mask=h_inside)
        at = weight1 + (g * hidden + h)[:, None] * inputs
        if USE_X:
            w = tl.load(at + c[None, :], mask=h_inside[:, None] & (c < each)[None, :], other=0)
            slope_x += tl.sum(w * of_hidden[:, None], axis=0)
        if USE_GUIDE:
            w = tl.load(at + (inputs - guide_each + k)[None, :], mask=h_inside[:, None] & (k < guide_each)[None, :], other=0)
            slope_g += tl.sum(w * of_hidden[:, None], axis=0)
    return slope_x, slope_g


@triton.jit
def group_channel_gate_bwd(
    grad_out, x, weight1, bias1, weight2, squeezed, gate, grad_x, grad_guide, logit_slope, active, active_slope, groups,
    each, guide_each, hidden, pixels, width, guide_pixels, guide_width, grad_b, grad_c, grad_y, grad_last, x_b, x_c, x_y,
    x_x, grad_x_b, grad_x_c, grad_x_y, grad_x_x, guide_b, guide_c, guide_y, guide_x, USE_X: tl.constexpr,
    USE_GUIDE: tl.constexpr, GRAD_MERGED: tl.constexpr, X_MERGED: tl.constexpr, GRAD_X_MERGED: tl.constexpr,
    GUIDE_MERGED: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, BG: tl.constexpr, BQ: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Backward of one (sample, group) whose dout and x are held in registers."""
    program = tl.program_id(0).to(tl.int64)
    b, g = program // groups, program % groups
    c, p = tl.arange(0, BC), tl.arange(0, BP)
    inside = (c < each)[:, None] & (p < pixels)[None, :]
    channel = (g * each + c)[:, None]
    at = grad_out + b * grad_b + channel * grad_c + at_pixel(p, width, grad_y, grad_last, GRAD_MERGED)[None, :]
    grad = tl.load(at, mask=inside, other=0).to(tl.float32)
    at = x + b * x_b + channel * x_c + at_pixel(p, width, x_y, x_x, X_MERGED)[None, :]
    products = grad * tl.load(at, mask=inside, other=0).to(tl.float32)
    gate_value = tl.load(gate + program * each + c, mask=c < each, other=0)
    slope = tl.sum(products, axis=1) * gate_value * (1.0 - gate_value)
    if logit_slope is not None:
        tl.store(logit_slope + program * each + c, slope, mask=c < each)
    slope_x, slope_g = mean_slopes(
        slope, squeezed, weight1, bias1, weight2, active, active_slope, program, g, each, guide_each, hidden, USE_X,
        USE_GUIDE, BC, BG, BH,
    )  # fmt: skip
    if grad_x is not None:
        value = grad * gate_value[:, None] + slope_x[:, None] / pixels
        at = grad_x + b * grad_x_b + channel * grad_x_c
        at += at_pixel(p, width, grad_x_y, grad_x_x, GRAD_X_MERGED)[None, :]
        tl.store(at, value.to(grad_x.dtype.element_ty), mask=inside)
    if grad_guide is not None:
        k = tl.arange(0, BG)
        flat = tl.zeros([BG, BQ], tl.float32) + slope_g[:, None] / guide_pixels
        for start in range(0, guide_pixels, BQ):
            q = start + tl.arange(0, BQ)
            pixel = at_pixel(q, guide_width, guide_y, guide_x, GUIDE_MERGED)[None, :]
            target = grad_guide + b * guide_b + (g * guide_each + k)[:, None] * guide_c + pixel
            mask = (k < guide_each)[:, None] & (q < guide_pixels)[None, :]
            tl.store(target, flat.to(grad_guide.dtype.element_ty), mask=mask)


@triton.jit
def group_channel_gate_mlp_bwd(
    products, gate, squeezed, weight1, bias1, weight2, slopes, active, active_slope, groups, each, guide_each, hidden,
    USE_X: tl.constexpr, USE_GUIDE: tl.constexpr, BC: tl.constexpr, BG: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """From sums of dout x in `products` to the gradients of the means in `slopes`; those of the logits stay in products."""
    program = tl.program_id(0).to(tl.int64)
    c, k = tl.arange(0, BC), tl.arange(0, BG)
    gate_value = tl.load(gate + program * each + c, mask=c < each, other=0)
    slope = tl.load(products + program * each + c, mask=c < each, other=0) * gate_value * (1.0 - gate_value)
    tl.store(products + program * each + c, slope, mask=c < each)
    slope_x, slope_g = mean_slopes(
        slope, squeezed, weight1, bias1, weight2, active, active_slope, program, program % groups, each, guide_each, hidden,
        USE_X, USE_GUIDE, BC, BG, BH,
    )  # fmt: skip
    inputs = guide_each
    if USE_X:
        inputs += each
    row = slopes + program * inputs
    if USE_X:
        tl.store(row + c, slope_x, mask=c < each)
    if USE_GUIDE:
        tl.store(row + (inputs - guide_each) + k, slope_g, mask=k < guide_each)


@triton.jit
def group_channel_gate_weights(
    left, right, partial, batch, groups, m, n, per_part, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """partial[part, g] = sum over a part's samples b of left[b, g] right[b, g]', a tile of it; left (batch, groups, m)."""
    tiles_m, tiles_n = tl.cdiv(m, BM), tl.cdiv(n, BN)
    program = tl.program_id(0)
    j = program % tiles_n * BN + tl.arange(0, BN)
    i = program // tiles_n % tiles_m * BM + tl.arange(0, BM)
    g = (program // tiles_n // tiles_m % groups).to(tl.int64)
    part = (program // tiles_n // tiles_m // groups).to(tl.int64)
    acc = tl.zeros([BM, BN], tl.float32)
    for start in range(0, per_part, BK):
        b = part * per_part + start + tl.arange(0, BK)
        b_inside = (b < batch) & (start + tl.arange(0, BK) < per_part)
        row = b * groups + g
        a = tl.load(left + row[None, :] * m + i[:, None], mask=b_inside[None, :] & (i < m)[:, None], other=0)
        c = tl.load(right + row[:, None] * n + j[None, :], mask=b_inside[:, None] & (j < n)[None, :], other=0)
        acc = tl.dot(a, c, acc, input_precision="ieee")
    at = partial + ((part * groups + g) * m + i)[:, None] * n + j[None, :]
    tl.store(at, acc, mask=(i < m)[:, None] & (j < n)[None, :])


SAMPLES = 16  # of a step in the weights' gradients


def _weight_gradient(target, left, right) -> None:
    """target (groups, m, n) = sum over b of left[b, g] right[b, g]'."""
    batch, groups, m = left.shape
    n = right.shape[2]
    BM, BN = min(32, max(16, next_power_of_2(m))), min(32, max(16, next_power_of_2(n)))
    tiles = groups * cdiv(m, BM) * cdiv(n, BN)
    parts = max(1, min(cdiv(batch, 4 * SAMPLES), cdiv(2 * processors(left.device), tiles), (8 << 20) // (4 * target.numel())))
    per_part = cdiv(batch, parts)
    parts = cdiv(batch, per_part)
    into = target if parts == 1 and target.is_contiguous() else workspace(left, parts, groups, m, n)
    launch(
        group_channel_gate_weights, tiles * parts,
        left, right, into, batch, groups, m, n, per_part, BM=BM, BN=BN, BK=SAMPLES, num_warps=4,
    )  # fmt: skip
    if into is not target:
        torch.sum(into, 0, out=target)


def backward(
    outputs, grad_out, x, guide, weight1, bias1, weight2, bias2, squeezed, gate, groups, use_x, use_guide, needs
) -> None:
    """Launcher for `bdgf::group_channel_gate_bwd`."""
    grad_x, grad_guide, grad_weight1, grad_bias1, grad_weight2, grad_bias2 = outputs
    if x.numel() == 0 or not use_guide and grad_guide is not None:
        for out in outputs:
            if out is not None:
                out.zero_()
        if x.numel() == 0:
            return
        grad_guide = None
    parameters = [p.contiguous() for p in (weight1, bias1, weight2)]
    batch, channels, height, width = x.shape
    each, guide_each = channels // groups, guide.shape[1] // groups if use_guide else 0
    hidden = weight1.shape[1]
    blocks = mlp_blocks(each, guide_each, hidden)
    factors = any(out is not None for out in outputs[2:])
    active, active_slope = (workspace(x, batch, groups, hidden) if factors else None for _ in range(2))
    used = {"USE_X": use_x, "USE_GUIDE": use_guide}
    if on_chip(each, height * width):
        logit_slope = workspace(x, batch, groups, each) if factors else None
        BP = next_power_of_2(height * width)
        guide_pixels, guide_width = (guide.shape[2] * guide.shape[3], guide.shape[3]) if use_guide else (1, 1)
        launch(
            group_channel_gate_bwd, batch * groups,
            grad_out, x, *parameters, squeezed, gate, grad_x, grad_guide, logit_slope, active, active_slope, groups,
            each, guide_each, hidden, height * width, width, guide_pixels, guide_width, *image_strides(grad_out),
            *image_strides(x), *image_strides(grad_x), *image_strides(grad_guide), **used, GRAD_MERGED=merged(grad_out),
            X_MERGED=merged(x), GRAD_X_MERGED=merged(grad_x), GUIDE_MERGED=merged(grad_guide), BP=BP,
            BQ=guide_tile(guide_pixels, blocks["BG"]), **blocks, num_warps=warps(blocks["BC"] * BP),
        )  # fmt: skip
    else:
        logit_slope, slopes = workspace(x, batch, groups, each), torch.empty_like(squeezed)
        sums(logit_slope, each, grad_out, x, each, 1.0)
        launch(
            group_channel_gate_mlp_bwd, batch * groups,
            logit_slope, gate, squeezed, *parameters, slopes, active, active_slope, groups, each, guide_each, hidden,
            **used, **blocks, num_warps=4, registers=255,
        )  # fmt: skip
        inputs = slopes.shape[2]
        if grad_x is not None:
            scale(grad_x, grad_out, gate, slopes if use_x else None, inputs, each)
        if grad_guide is not None:
            scale(grad_guide, None, None, slopes[..., inputs - guide_each :], inputs, guide_each)
    if grad_weight1 is not None:
        _weight_gradient(grad_weight1, active_slope, squeezed)
    if grad_weight2 is not None:
        _weight_gradient(grad_weight2, logit_slope, active)
    if grad_bias1 is not None:
        torch.sum(active_slope, 0, out=grad_bias1)
    if grad_bias2 is not None:
        torch.sum(logit_slope, 0, out=grad_bias2)
