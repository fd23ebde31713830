"""x * sigmoid(MLP of the spatial means of x and guide) per group of channels: the forward and what both directions share.

One program does one (sample, group), because the MLP is block-diagonal: x is read once, held in registers and written
once. A group of more than ON_CHIP elements takes three launches (sums, MLP, scale), of which two read x. The backward is
group_channel_gate_bwd.py.

`each` and `guide_each` are the channels of a group, of x and of the guide. Blocks are BC channels and BP pixels of x, BG channels
and BQ pixels of the guide, and BH hidden units.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2, processors, workspace

ON_CHIP = 8192  # elements of x a program holds, padded to powers of two
TILE = 2048  # elements of a tile of everything that is not held


@triton.jit
def at_pixel(p, width, stride_y, stride_x, MERGED: tl.constexpr):
    """Offset of pixels p of an image; MERGED: one stride reaches them all."""
    if MERGED:
        offset = p.to(tl.int64) * stride_x
    else:
        offset = (p // width).to(tl.int64) * stride_y + (p % width).to(tl.int64) * stride_x
    return offset


@triton.jit
def before_relu(mean_x, mean_g, weight1, bias1, g, h, each, guide_each, hidden, USE_X: tl.constexpr,
                USE_GUIDE: tl.constexpr, BC: tl.constexpr, BG: tl.constexpr):  # fmt: skip
    """The hidden units h of group g before the ReLU, [BH]; 0 past the end. mean_x [BC] and mean_g [BG] are the means."""
    inputs = guide_each
    if USE_X:
        inputs += each
    h_inside = h < hidden
    row = weight1 + (g * hidden + h)[:, None] * inputs
    value = tl.load(bias1 + g * hidden + h, mask=h_inside, other=0)
    if USE_X:
        c = tl.arange(0, BC)
        w = tl.load(row + c[None, :], mask=h_inside[:, None] & (c < each)[None, :], other=0)
        value += tl.sum(w * mean_x[None, :], axis=1)
    if USE_GUIDE:
        k = tl.arange(0, BG)
        w = tl.load(row + (inputs - guide_each + k)[None, :], mask=h_inside[:, None] & (k < guide_each)[None, :], other=0)
        value += tl.sum(w * mean_g[None, :], axis=1)
    return value


@triton.jit
def gate_values(mean_x, mean_g, weight1, bias1, weight2, bias2, g, each, guide_each, hidden, USE_X: tl.constexpr,
                USE_GUIDE: tl.constexpr, BC: tl.constexpr, BG: tl.constexpr, BH: tl.constexpr):  # fmt: skip
    """The gate [BC] of group g (int64)."""
    c = tl.arange(0, BC)
    logits = tl.load(bias2 + g * each + c, mask=c < each, other=0)
    for start in range(0, hidden, BH):
        h = start + tl.arange(0, BH)
        raw = before_relu(mean_x, mean_g, weight1, bias1, g, h, each, guide_each, hidden, USE_X, USE_GUIDE, BC, BG)
        active = tl.where(raw <= 0.0, 0.0, raw)
        inside = (c < each)[:, None] & (h < hidden)[None, :]
        w = tl.load(weight2 + (g * each + c)[:, None] * hidden + h[None, :], mask=inside, other=0)
        logits += tl.sum(w * active[None, :], axis=1)
    return 1.0 / (1.0 + tl.exp(-logits))


@triton.jit
def group_channel_gate_fwd(
    x, guide, weight1, bias1, weight2, bias2, out, squeezed, gate, groups, each, guide_each, hidden, pixels, width,
    guide_pixels, guide_width, x_b, x_c, x_y, x_x, guide_b, guide_c, guide_y, guide_x, out_b, out_c, out_y, out_x,
    USE_X: tl.constexpr, X_MERGED: tl.constexpr, GUIDE_MERGED: tl.constexpr, OUT_MERGED: tl.constexpr,
    BC: tl.constexpr, BP: tl.constexpr, BG: tl.constexpr, BQ: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Forward of one (sample, group) whose x is held in registers."""
    program = tl.program_id(0).to(tl.int64)
    b, g = program // groups, program % groups
    c, p = tl.arange(0, BC), tl.arange(0, BP)
    inside = (c < each)[:, None] & (p < pixels)[None, :]
    channel = (g * each + c)[:, None]
    at = x + b * x_b + channel * x_c + at_pixel(p, width, x_y, x_x, X_MERGED)[None, :]
    value = tl.load(at, mask=inside, other=0).to(tl.float32)
    inputs = guide_each
    if USE_X:
        inputs += each
    row = squeezed + program * inputs
    mean_x = tl.sum(value, axis=1) / pixels
    if USE_X:
        tl.store(row + c, mean_x, mask=c < each)
    k = tl.arange(0, BG)
    mean_g = tl.zeros([BG], tl.float32)
    if guide is not None:
        total = tl.zeros([BG, BQ], tl.float32)
        for start in range(0, guide_pixels, BQ):
            q = start + tl.arange(0, BQ)
            pixel = at_pixel(q, guide_width, guide_y, guide_x, GUIDE_MERGED)[None, :]
            source = guide + b * guide_b + (g * guide_each + k)[:, None] * guide_c + pixel
            total += tl.load(source, mask=(k < guide_each)[:, None] & (q < guide_pixels)[None, :], other=0).to(tl.float32)
        mean_g = tl.sum(total, axis=1) / guide_pixels
        tl.store(row + (inputs - guide_each) + k, mean_g, mask=k < guide_each)
    value_of_gate = gate_values(
        mean_x, mean_g, weight1, bias1, weight2, bias2, g, each, guide_each, hidden, USE_X, guide is not None, BC, BG, BH
    )
    tl.store(gate + program * each + c, value_of_gate, mask=c < each)
    at = out + b * out_b + channel * out_c + at_pixel(p, width, out_y, out_x, OUT_MERGED)[None, :]
    tl.store(at, (value * value_of_gate[:, None]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def group_channel_gate_sums(
    x, factor, sums, parts, per_part, channels, per_group, pixels, width, sums_part, sums_row, scale, x_b, x_c, x_y, x_x,
    factor_b, factor_c, factor_y, factor_x, X_MERGED: tl.constexpr, FACTOR_MERGED: tl.constexpr, BC: tl.constexpr,
    BP: tl.constexpr,
):  # fmt: skip
    """scale * sum over one part of the pixels of x (times factor), for a tile of channels of a sample.

    Channel c goes to sums[part * sums_part + (b * groups + c // per_group) * sums_row + c % per_group].
    """
    tiles = tl.cdiv(channels, BC)
    part = tl.program_id(0) % parts
    b = (tl.program_id(0) // parts // tiles).to(tl.int64)
    c = tl.program_id(0) // parts % tiles * BC + tl.arange(0, BC)
    total = tl.zeros([BC, BP], tl.float32)
    for start in range(part * per_part, tl.minimum((part + 1) * per_part, pixels), BP):
        p = start + tl.arange(0, BP)
        inside = (c < channels)[:, None] & (p < pixels)[None, :]
        at = x + b * x_b + c.to(tl.int64)[:, None] * x_c + at_pixel(p, width, x_y, x_x, X_MERGED)[None, :]
        value = tl.load(at, mask=inside, other=0).to(tl.float32)
        if factor is not None:
            at = factor + b * factor_b + c.to(tl.int64)[:, None] * factor_c
            at += at_pixel(p, width, factor_y, factor_x, FACTOR_MERGED)[None, :]
            value *= tl.load(at, mask=inside, other=0).to(tl.float32)
        total += value
    row = b * (channels // per_group) + c // per_group
    at = sums + part.to(tl.int64) * sums_part + row * sums_row + c % per_group
    tl.store(at, tl.sum(total, axis=1) * scale, mask=c < channels)


@triton.jit
def group_channel_gate_mlp(
    squeezed, weight1, bias1, weight2, bias2, gate, groups, each, guide_each, hidden, USE_X: tl.constexpr,
    USE_GUIDE: tl.constexpr, BC: tl.constexpr, BG: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """The gate of one (sample, group) from its means."""
    program = tl.program_id(0).to(tl.int64)
    c, k = tl.arange(0, BC), tl.arange(0, BG)
    inputs = guide_each
    if USE_X:
        inputs += each
    row = squeezed + program * inputs
    mean_x = tl.load(row + c, mask=c < inputs - guide_each, other=0)
    mean_g = tl.load(row + (inputs - guide_each) + k, mask=k < guide_each, other=0)
    g = program % groups
    value = gate_values(mean_x, mean_g, weight1, bias1, weight2, bias2, g, each, guide_each, hidden, USE_X, USE_GUIDE, BC, BG, BH)
    tl.store(gate + program * each + c, value, mask=c < each)


@triton.jit
def group_channel_gate_scale(
    x, gate, slope, out, channels, per_group, pixels, width, slope_row, x_b, x_c, x_y, x_x, out_b, out_c, out_y, out_x,
    X_MERGED: tl.constexpr, OUT_MERGED: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """out = x gate + slope / pixels, each term where it is given; slope is laid out like the sums."""
    tiles, columns = tl.cdiv(channels, BC), tl.cdiv(pixels, BP)
    p = tl.program_id(0) % columns * BP + tl.arange(0, BP)
    c = tl.program_id(0) // columns % tiles * BC + tl.arange(0, BC)
    b = (tl.program_id(0) // columns // tiles).to(tl.int64)
    c_inside = c < channels
    inside = c_inside[:, None] & (p < pixels)[None, :]
    value = tl.zeros([BC, BP], tl.float32)
    if gate is not None:
        at = x + b * x_b + c.to(tl.int64)[:, None] * x_c + at_pixel(p, width, x_y, x_x, X_MERGED)[None, :]
        value = tl.load(at, mask=inside, other=0).to(tl.float32)
        value *= tl.load(gate + b * channels + c, mask=c_inside, other=0)[:, None]
    if slope is not None:
        row = b * (channels // per_group) + c // per_group
        value += tl.load(slope + row * slope_row + c % per_group, mask=c_inside, other=0)[:, None] / pixels
    at = out + b * out_b + c.to(tl.int64)[:, None] * out_c + at_pixel(p, width, out_y, out_x, OUT_MERGED)[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=inside)


def merged(x) -> bool:
    """Whether one stride reaches all pixels of an image."""
    return x is None or x.shape[2] == 1 or x.shape[3] == 1 or x.stride(2) == x.shape[3] * x.stride(3)


def image_strides(x) -> tuple[int, int, int, int]:
    """Strides of (batch, C, H, W); the last one alone, if the image is merged."""
    if x is None:
        return 0, 0, 0, 0
    b, c, y, last = x.stride()
    return b, c, y, y if x.shape[3] == 1 else last


def image_tile(x, most: int = TILE) -> dict[str, int]:
    """BC and BP of a tile, along the memory of x."""
    channels, pixels = next_power_of_2(x.shape[1]), next_power_of_2(x.shape[2] * x.shape[3])
    if x.stride(1) == 1 and pixels > 1:
        BC = min(channels, 64)
        return {"BC": BC, "BP": min(pixels, most // BC)}
    BP = min(pixels, most // 2)
    return {"BC": min(channels, most // BP), "BP": BP}


def mlp_blocks(each: int, guide_each: int, hidden: int) -> dict[str, int]:
    """BC, BG and BH: a tile of either weight has at most 4,096 elements."""
    BC, BG = next_power_of_2(each), next_power_of_2(max(guide_each, 1))
    return {"BC": BC, "BG": BG, "BH": max(1, min(next_power_of_2(hidden), 4096 // max(BC, BG)))}


def on_chip(each: int, pixels: int) -> bool:
    """Whether one program holds a group of a sample."""
    return next_power_of_2(each) * next_power_of_2(pixels) <= ON_CHIP


def warps(elements: int) -> int:
    """num_warps for a program that holds so many elements."""
    return max(1, min(8, elements // 1024))


def sums(target, target_row: int, x, factor, per_group: int, scale: float) -> None:
    """Into target (batch, groups, ...), rows target_row apart: scale * sum over the pixels of x (times factor)."""
    batch, channels, height, width = x.shape
    tile, pixels = image_tile(x), height * width
    programs = batch * cdiv(channels, tile["BC"])
    parts = max(1, min(cdiv(pixels, 4 * tile["BP"]), 4 * processors(x.device) // programs))
    per_part = cdiv(cdiv(pixels, parts), tile["BP"]) * tile["BP"]
    parts = cdiv(pixels, per_part)
    groups = channels // per_group
    into, row = (target, target_row) if parts == 1 else (workspace(x, parts, batch, groups, per_group), per_group)
    launch(
        group_channel_gate_sums, programs * parts,
        x, factor, into, parts, per_part, channels, per_group, pixels, width, batch * channels, row, scale,
        *image_strides(x), *image_strides(factor), X_MERGED=merged(x), FACTOR_MERGED=merged(factor), **tile, num_warps=4,
    )  # fmt: skip
    if parts > 1:
        target[..., :per_group].copy_(into.sum(0))


def scale(out, x, gate, slope, slope_row: int, per_group: int) -> None:
    """Launch group_channel_gate_scale; slope (batch, groups, ...) has rows slope_row apart."""
    tile = image_tile(out)
    batch, channels, height, width = out.shape
    launch(
        group_channel_gate_scale, batch * cdiv(channels, tile["BC"]) * cdiv(height * width, tile["BP"]),
        x, gate, slope, out, channels, per_group, height * width, width, slope_row, *image_strides(x),
        *image_strides(out), X_MERGED=merged(x), OUT_MERGED=merged(out), **tile, num_warps=4,
    )  # fmt: skip


def forward(outputs, x, guide, weight1, bias1, weight2, bias2, groups, use_x, use_guide) -> None:
    """Launcher for `bdgf::group_channel_gate_fwd`."""
    out, squeezed, gate = outputs
    if x.numel() == 0:
        return
    parameters = [p.contiguous() for p in (weight1, bias1, weight2, bias2)]
    batch, channels, height, width = x.shape
    guide = guide if use_guide else None
    each, guide_each = channels // groups, 0 if guide is None else guide.shape[1] // groups
    inputs, hidden = weight1.shape[2], weight1.shape[1]
    blocks = mlp_blocks(each, guide_each, hidden)
    if not on_chip(each, height * width):
        if use_x:
            sums(squeezed, inputs, x, None, each, 1.0 / (height * width))
        if guide is not None:
            sums(squeezed[..., inputs - guide_each :], inputs, guide, None, guide_each, 1.0 / guide[0, 0].numel())
        launch(
            group_channel_gate_mlp, batch * groups,
            squeezed, *parameters, gate, groups, each, guide_each, hidden, USE_X=use_x, USE_GUIDE=guide is not None,
            **blocks, num_warps=4, registers=255,
        )  # fmt: skip
        scale(out, x, gate, None, 0, each)
        return
    BP = next_power_of_2(height * width)
    guide_pixels, guide_width = (1, 1) if guide is None else (guide.shape[2] * guide.shape[3], guide.shape[3])
    launch(
        group_channel_gate_fwd, batch * groups,
        x, guide, *parameters, out, squeezed, gate, groups, each, guide_each, hidden, height * width, width,
        guide_pixels, guide_width, *image_strides(x), *image_strides(guide), *image_strides(out), USE_X=use_x,
        X_MERGED=merged(x), GUIDE_MERGED=merged(guide), OUT_MERGED=merged(out), BP=BP,
        BQ=guide_tile(guide_pixels, blocks["BG"]), **blocks, num_warps=warps(blocks["BC"] * BP),
    )  # fmt: skip


def guide_tile(guide_pixels: int, BG: int) -> int:
    """BQ: the pixels of the guide that are summed at a time."""
    return max(1, min(next_power_of_2(guide_pixels), TILE // BG))

