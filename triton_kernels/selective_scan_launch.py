"""The launchers of the scans: they take tiles from a table, size programs and scratch by the memory that a call may take, and cut
long sequences into segments.

`Scan` describes one call for both operations; tensors keep their strides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._launch import capability, cdiv, launch, next_power_of_2, processors, workspace, workspace_limit
from .selective_scan_bwd import selective_scan_bwd, selective_scan_partial_sums
from .selective_scan_fwd import selective_scan_fwd
from .selective_scan_segments import selective_scan_adjoint, selective_scan_borders

# N up to -> (NR, DR, NL, DL): a warp's tile, of at most 32 channels, since T steps of each are held too. In the backward a thread
# has few elements, because it keeps T states of each: with twice as many at N = 16 it uses all 255 registers, and spills with z.
FORWARD = {1: (1, 1, 1, 32), 2: (2, 1, 1, 32), 4: (4, 1, 1, 32), 8: (4, 2, 2, 16), 16: (4, 4, 4, 8), 32: (8, 2, 4, 8),
           64: (8, 1, 8, 4), 128: (8, 1, 16, 2), 256: (8, 1, 32, 1)}  # fmt: skip
BACKWARD = {1: (1, 1, 1, 32), 2: (2, 1, 1, 32), 4: (2, 2, 2, 16), 8: (2, 2, 4, 8), 16: (4, 1, 4, 8), 32: (4, 1, 8, 4),
            64: (4, 1, 16, 2), 128: (4, 1, 32, 1), 256: (8, 1, 32, 1)}  # fmt: skip
# Where BACKWARD would need more registers than there are: below capability 90, and for an image below 120.
BACKWARD_SMALL = BACKWARD | {16: (2, 1, 8, 4)}
MANY = 64  # with more states a forward program has as many warps as a backward one: they share B and C
STEPS = 4  # T of the kernels
WARPS = 4  # most warps of a backward program, which share one sum of dB and dC
FORWARD_WARPS, BACKWARD_WARPS = 48, 12  # warps to launch for each multiprocessor
LONG = 512  # shortest sequence that is cut into segments where programs would be few
SEGMENT = 128  # shortest segment


def tile(table: dict[int, tuple[int, ...]], states: int, dim: int, warps: int) -> dict[str, int]:
    """Constants of a tile for N states and groups of `dim` channels."""
    nr, dr, nl, dl = table[max(next_power_of_2(states), 1)]
    return {"NR": nr, "DR": dr, "DW": min(warps, next_power_of_2(cdiv(dim, dr * dl))), "NL": nl, "DL": dl}


@dataclass
class Scan:
    """One call: u, z and outputs (batch, dim, L) or (batch, dim, H, W); delta (batch, K, dim, L); B, C (batch, G, N, L) or
    constant (dim, N); A (K, dim, N), D, bias (K, dim), contiguous."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    initial: Tensor | None
    softplus: bool
    reverse: bool = False
    directions: int = 0
    pixels: bool = True

    def __post_init__(self):
        self.batch, self.dim = self.u.shape[:2]
        self.height, self.width = self.u.shape[2:] if self.directions else (1, 1)
        self.length = self.delta.shape[-1]
        self.states = self.A.shape[-1]
        self.copies = max(self.directions, 1)
        groups = [x.shape[1] for x in (self.B, self.C) if x.dim() == 4]
        self.groups = 1 if self.directions else math.lcm(*groups, 1)
        self.dim_of_group = self.dim // self.groups
        self.share = [1 if self.directions or x.dim() == 2 else self.groups // x.shape[1] for x in (self.B, self.C)]
        self.segments, self.segment = 1, self.length
        tensors = (self.u, self.delta, self.B, self.C, self.z)
        self.flat = True
        self.wide = max(_extent(x) for x in tensors if x is not None) >= 2**31

    def constants(self, tile: dict[str, int]) -> dict:
        return {"N": self.states, "SOFTPLUS": self.softplus, "REVERSE": self.reverse, "DIRECTIONS": self.directions,
                "PIXELS": self.pixels, "SHARED": self.delta.shape[1] == 1, "WIDE": self.wide, "FLAT": self.flat,
                "CONST_B": self.B.dim() == 2, "CONST_C": self.C.dim() == 2, **tile}  # fmt: skip

    def lie_flat(self, *images: Tensor | None) -> None:
        """Set `flat`: whether the rows of all images follow each other in memory, so that no division is needed to find a pixel."""
        self.flat = not self.directions or all(x is None or x.stride(2) == self.width * x.stride(3) for x in images)

    def cut(self, programs: int, wanted: int) -> None:
        """Cut long sequences into segments where there would be fewer than `wanted` programs; their states take at most 8 MiB."""
        if self.directions or self.length < LONG or programs >= wanted:
            return
        segments = min(cdiv(self.length, SEGMENT), cdiv(wanted, programs))
        bytes_of_one = 4 * 4 * self.batch * self.dim * self.states
        segments = max(1, min(segments, (8 << 20) // bytes_of_one))
        self.segment = 16 * cdiv(cdiv(self.length, segments), 16)
        self.segments = cdiv(self.length, self.segment)


def _extent(x: Tensor) -> int:
    """The largest offset within a sample; outputs are as dense or denser than what they are like."""
    return max(sum((n - 1) * abs(stride) for n, stride in zip(x.shape[1:], x.stride()[1:], strict=True)), x.numel() // len(x))


def pixel_strides(x: Tensor | None) -> tuple[int, int, int, int]:
    """(batch, channel, row, along a row) of an image, (batch, channel, 0, step) of a sequence."""
    if x is None:
        return 0, 0, 0, 0
    return x.stride() if x.dim() == 4 else (x.stride(0), x.stride(1), 0, x.stride(2))


def _strides(x: Tensor | None, ndim: int) -> tuple[int, ...]:
    return x.stride() if x is not None and x.dim() == ndim else (0,) * ndim


def _state_strides(x: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if x is None else x.stride()[-3:] if x.dim() == 3 else (x.stride(1), x.stride(2), x.stride(3))


def forward(scan: Scan, out: Tensor, last: Tensor | None) -> None:
    """Fill out, and last (batch, dim, N), contiguous."""
    scan.lie_flat(scan.u, out)
    block = tile(FORWARD, scan.states, scan.dim_of_group, WARPS if scan.states > MANY else 1)
    channels = block["DR"] * block["DW"] * block["DL"]
    tiles = scan.groups * cdiv(scan.dim_of_group, channels)
    wanted = cdiv(FORWARD_WARPS * processors(out.device), block["DW"])
    scan.cut(scan.batch * tiles, wanted // 4)
    initial = enter(scan, block, tiles) if scan.segments > 1 else scan.initial
    rows = scan.batch * scan.segments
    row_programs = min(rows, cdiv(wanted, tiles))
    merge = None
    if scan.directions > 1 and out.dtype is not torch.float32:
        limit = workspace_limit(scan.u, scan.delta, scan.B, scan.C, out)
        row_programs = max(1, min(row_programs, limit // (4 * tiles * channels * scan.length)))
        merge = workspace(out, row_programs * tiles, channels, scan.length)
    _forward(scan, block, tiles, row_programs, initial, out=out, last=last, merge=merge)


def _forward(scan: Scan, block, tiles, row_programs, initial, out=None, last=None, delta_sums=None, merge=None) -> None:
    launch(
        selective_scan_fwd, row_programs * tiles,
        out, last, delta_sums, merge, scan.u, scan.delta, scan.A, scan.B, scan.C, scan.D, scan.z, scan.bias, initial,
        scan.batch * scan.segments, scan.dim, scan.length, tiles, scan.dim_of_group, scan.segments, scan.segment, row_programs,
        *scan.share, scan.height, scan.width,
        *pixel_strides(out), *pixel_strides(scan.u), *_delta_strides(scan.delta), *_strides(scan.z, 3),
        *_strides(scan.B, 4), *_strides(scan.C, 4), *_state_strides(initial), 1, **scan.constants(block), num_warps=block["DW"],
    )  # fmt: skip


def _delta_strides(delta: Tensor | None) -> tuple[int, ...]:
    """(batch, direction, channel, step); 0 for the direction where all share one."""
    if delta is None:
        return 0, 0, 0, 0
    b, k, d, l = delta.stride()
    return b, 0 if delta.shape[1] == 1 else k, d, l


def enter(scan: Scan, block: dict[str, int], tiles: int) -> Tensor:
    """The state that enters each segment, (batch, segments, dim, N)."""
    ends, delta_sums = (workspace(scan.u, scan.batch, scan.segments, scan.dim, *n) for n in ((scan.states,), ()))
    _forward(scan, block, tiles, scan.batch * scan.segments, None, last=ends, delta_sums=delta_sums)
    scan.delta_sums = delta_sums
    return _scan_borders(scan, ends, delta_sums, scan.initial, back=False)


def _scan_borders(scan: Scan, ends: Tensor, delta_sums: Tensor, initial: Tensor | None, back: bool) -> Tensor:
    state = torch.empty_like(ends)
    block = 128
    launch(
        selective_scan_borders, scan.batch * cdiv(scan.dim * scan.states, block),
        state, ends, delta_sums, scan.A, initial, None, scan.segments, scan.dim, *_state_strides(initial),
        N=scan.states, BACK=back, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return state


ROWS = ("u", "delta", "B", "C", "z", "initial")  # tensors whose first axis is the batch (B and C unless they are constant)


def backward(scan: Scan, grads: dict[str, Tensor | None], grad_out: Tensor, grad_last: Tensor | None) -> None:
    """Fill the gradients named u, delta, A, B, C, D, z, bias, initial, those that are not None.

    The batch is taken in pieces where the sums of dB and dC would leave no workspace for programs that run side by side.
    """
    tensors = (*(getattr(scan, name) for name in ROWS), grad_out, grad_last, *grads.values())
    room = workspace_limit(*tensors)
    summed = sum(grads[name] is not None and getattr(scan, name).dim() == 4 for name in "BC")
    sums = 4 * summed * scan.batch * scan.groups * scan.copies * scan.states * scan.length
    pieces = min(scan.batch, cdiv(sums, max(1, room // 4))) if sums else 1
    if pieces == 1:
        return _backward(scan, grads, grad_out, grad_last, room)
    total: dict[str, Tensor] = {}
    for first in range(0, scan.batch, cdiv(scan.batch, pieces)):
        rows = slice(first, first + cdiv(scan.batch, pieces))

        def of_rows(name: str, x: Tensor | None, rows: slice = rows) -> Tensor | None:
            return x[rows] if x is not None and name in ROWS and not (name in "BC" and x.dim() == 2) else x

        piece = {name: of_rows(name, x) for name, x in grads.items()}
        whole = [name for name, x in grads.items() if x is not None and piece[name] is x]  # sums over the batch
        piece |= {name: torch.empty_like(grads[name]) for name in whole}
        inputs = {name: of_rows(name, getattr(scan, name)) for name in ROWS}
        last = None if grad_last is None else grad_last[rows]
        _backward(replace(scan, **inputs), piece, grad_out[rows], last, room)
        for name in whole:
            total[name] = total[name] + piece[name] if name in total else piece[name]
    for name, x in total.items():
        grads[name].copy_(x)
    return None


def _backward(scan: Scan, grads: dict[str, Tensor | None], grad_out: Tensor, grad_last: Tensor | None, room: int) -> None:
    scan.lie_flat(scan.u, grad_out, grads["u"])
    table = BACKWARD if capability(scan.u.device) >= (120 if scan.directions else 90) else BACKWARD_SMALL
    block = tile(table, scan.states, scan.dim_of_group, WARPS)
    channels = block["DR"] * block["DW"] * block["DL"]
    tiles_of_group = cdiv(scan.dim_of_group, channels)
    device = scan.u.device
    wanted = max(1, BACKWARD_WARPS * processors(device) // block["DW"])
    scan.cut(scan.batch * scan.groups * tiles_of_group, wanted // 2)
    initial, entering = scan.initial, grad_last
    if scan.segments > 1:
        initial, entering = _enter_both_ways(scan, grad_out, grad_last)
        room -= 4 * 4 * initial.numel()

    # `programs_of_group`: programs that share the channel tiles of a group, as many as there is room for their own dB and dC.
    copies, rows = scan.copies, scan.batch * scan.segments
    size = 4 * scan.batch * scan.groups * copies * scan.states * scan.length
    summed = {name: grads[name] is not None and getattr(scan, name).dim() == 4 for name in "BC"}
    most = room // 2 // max(1, size * sum(summed.values()))
    programs_of_group = next(p for p in range(tiles_of_group, 0, -1) if tiles_of_group % p == 0 and (p <= most or p == 1))
    partial = {}
    for name, share in zip("BC", scan.share, strict=True):
        direct = not summed[name] or (share * programs_of_group == 1 and tiles_of_group == 1)
        shape = scan.batch, scan.groups * copies * programs_of_group, scan.states, scan.length
        partial[name] = None if direct else workspace(scan.u, *shape)
        room -= 0 if direct else 4 * partial[name].numel()
    tile_programs, items = scan.groups * programs_of_group, copies * (tiles_of_group // programs_of_group)

    # `row_programs` share the rows. Each keeps the state before every STEPS-th step if there is room, else states of two levels.
    half = scan.u.dtype is not torch.float32
    merged = [scan.directions > 1 and half and grads["u"] is not None,
              scan.directions > 1 and grads["delta"] is not None and scan.delta.dtype is not torch.float32
              and scan.delta.shape[1] == 1]  # fmt: skip
    per_program = 4 * channels * scan.length * sum(merged)
    constant = [name for name in "BC" if grads[name] is not None and not summed[name]]
    per_row_program = 4 * copies * scan.dim * (scan.states * (1 + len(constant)) + 2)
    tile_bytes = 4 * channels * block["NR"] * block["NL"]
    row_programs = min(rows, cdiv(wanted, tile_programs))
    chunk = STEPS * cdiv(scan.segment, STEPS)
    slots = 1 + chunk // STEPS
    if row_programs * (tile_programs * (slots * tile_bytes + per_program) + per_row_program) > room and scan.segment > 16 * STEPS:
        chunk = STEPS * math.isqrt(scan.segment // STEPS)
        slots = cdiv(scan.segment, chunk) + chunk // STEPS
    row_programs = max(1, min(row_programs, room // (tile_programs * (slots * tile_bytes + per_program) + per_row_program)))

    def scratch(*shape):
        return workspace(scan.u, *shape)

    sums = {"A": grads["A"], "D": grads["D"], "bias": grads["bias"]} | {name: grads[name] for name in constant}
    sums = {name: None if x is None else scratch(row_programs, *x.shape) for name, x in sums.items()}
    merge_u, merge_delta = (scratch(row_programs * tile_programs, channels, scan.length) if need else None for need in merged)
    to = {name: sums[name] if name in constant else grads[name] if partial[name] is None else partial[name] for name in "BC"}
    launch(
        selective_scan_bwd, row_programs * tile_programs,
        grads["u"], grads["delta"], sums["A"], to["B"], to["C"], sums["D"], grads["z"], sums["bias"], grads["initial"],
        grad_out, entering, scan.u, scan.delta, scan.A, scan.B, scan.C, scan.D, scan.z, scan.bias, initial,
        scratch(row_programs * tile_programs * slots * tile_bytes // 4), merge_u, merge_delta,
        rows, scan.dim, scan.length, tile_programs, items, scan.dim_of_group, scan.segments, scan.segment, chunk, row_programs,
        *scan.share, scan.height, scan.width, slots,
        *pixel_strides(grads["u"]), *_delta_strides(grads["delta"]), *_strides(to["B"], 4), *_strides(to["C"], 4),
        *_strides(grads["z"], 3), *_strides(grads["initial"], 3), *pixel_strides(grad_out), *_state_strides(entering),
        *pixel_strides(scan.u), *_delta_strides(scan.delta), *_strides(scan.z, 3), *_strides(scan.B, 4), *_strides(scan.C, 4),
        *_state_strides(initial), 1, 1.0,
        RESIDENT=items == 1, **scan.constants(block), num_warps=block["DW"],
    )  # fmt: skip
    for name, x in sums.items():
        if x is not None:
            torch.sum(x, 0, out=grads[name])
    for name, share in zip("BC", scan.share, strict=True):
        if partial[name] is not None:
            out = grads[name]
            launch(
                selective_scan_partial_sums, cdiv(out.numel(), 512), out, partial[name], out.numel(), share * programs_of_group,
                out.shape[1], scan.states, scan.length, *out.stride(), BLOCK=512, num_warps=4,
            )  # fmt: skip


def _enter_both_ways(scan: Scan, grad_out: Tensor, grad_last: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states that enter each segment, and the carries that enter it from the segment after."""
    block = tile(FORWARD, scan.states, scan.dim_of_group, WARPS if scan.states > MANY else 1)
    tiles = scan.groups * cdiv(scan.dim_of_group, block["DR"] * block["DW"] * block["DL"])
    initial = enter(scan, block, tiles)
    ends = torch.empty_like(initial)
    b, _, d, l = scan.delta.stride()
    launch(
        selective_scan_adjoint, scan.batch * scan.segments * tiles,
        ends, grad_out, scan.delta, scan.A, scan.C, scan.z, scan.bias,
        scan.batch * scan.segments, scan.dim, scan.length, tiles, scan.dim_of_group, scan.segments, scan.segment, scan.share[1],
        *grad_out.stride(), b, d, l, *_strides(scan.z, 3), *_strides(scan.C, 4), 1,
        N=scan.states, SOFTPLUS=scan.softplus, REVERSE=scan.reverse, WIDE=scan.wide, CONST_C=scan.C.dim() == 2, **block,
        num_warps=block["DW"], registers=168,
    )  # fmt: skip
    return initial, _scan_borders(scan, ends, scan.delta_sums, grad_last, back=True)
