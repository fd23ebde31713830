"""What SASS instructions that move data do (sass.py): shuffles, shared, local and constant memory, special registers."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np
from sass import LANES, NONE, RZ, ZERO, Instruction, address, bits, i32, i64, integer, register, u32

SHARED_WINDOW = 0x7F00  # the upper half of the generic addresses of shared memory
SPECIAL_REGISTERS: dict[str, Callable] = {
    "SR_TID.X": lambda w: LANES + 32 * w.number,
    "SR_LANEID": lambda w: LANES,
    "SR_CTAID.X": lambda w: np.full(32, w.block[0]),
    "SR_CTAID.Y": lambda w: np.full(32, w.block[1]),
    "SR_CTAID.Z": lambda w: np.full(32, w.block[2]),
    "SR_SWINHI": lambda w: np.full(32, SHARED_WINDOW),
}


def shuffle(i: Instruction) -> Callable:
    to, target, a, by, clamp = i.operands
    kind, row = register(target)
    x, distance, limit, how = integer(a), integer(by), integer(clamp), i.parts[1]

    def source(n, c):
        """The lane from which each lane takes its value, and whether there is one."""
        segment, last = c >> 8 & 31, c & 31
        low = LANES & segment
        if how == "UP":
            at = LANES - n
            inside = at >= (low | last & ~segment)
        else:
            high = low | last & ~segment
            at = {"DOWN": LANES + n, "BFLY": LANES ^ n, "IDX": low | n & ~segment}[how]
            inside = at <= high
        return np.where(inside, at, LANES) & 31, inside

    known = not re.search(r"R\d|c\[", by + clamp)
    always = source(*(NONE + int(bits(v)) if v != "RZ" else NONE for v in (by, clamp))) if known else None

    def run(w, m):
        at, inside = always or source(NONE + distance(w), NONE + limit(w))
        w.write(kind, row, (x(w) + ZERO)[at], m)
        w.flag(to, inside, m)

    return run


def _size(i: Instruction) -> int:
    return next((int(p[1:] if p[0] in "US" else p) // 8 for p in i.parts if p in ("U8", "S8", "U16", "S16", "64", "128")), 4)


def _wavefronts(at: np.ndarray, size: int, mask: np.ndarray) -> int:
    """Turns that shared memory takes: 32 banks of four bytes, 64- and 128-bit accesses in halves and quarters of the warp."""
    return _turns((at - at[0]).tobytes(), int(at[0]) % 128, mask.tobytes(), size)


@functools.lru_cache(1 << 16)
def _turns(distances: bytes, first_byte: int, lanes_there: bytes, size: int) -> int:
    """_wavefronts by what decides it: how far the lanes are from the first, where that lies in a row of banks, and which are on."""
    at, mask = np.frombuffer(distances, i64) + first_byte, np.frombuffer(lanes_there, bool)
    turns = 0
    lanes = 32 * 4 // max(size, 4)
    for first in range(0, 32, lanes):
        some = at[first : first + lanes][mask[first : first + lanes]]
        words = np.unique((some[:, None] >> 2) + np.arange(max(1, size // 4)))
        turns += int(np.bincount(words & 31).max()) if words.size else 0
    return turns


def load(i: Instruction) -> Callable:
    kind, row = register(i.operands[0])
    at, size = address(i.operands[1]), _size(i)
    rows = [row + n if row != RZ else RZ for n in range(max(1, size // 4))]
    shift = i32(32 - 8 * size) if size < 4 else None
    signed = any(p in ("S8", "S16") for p in i.parts)

    def run(w, m):
        if i.name == "LDL":
            where = at(w)
            for n, r in enumerate(rows):
                w.write(kind, r, w.local.get(int(where[0]) + 4 * n, ZERO), m)
            return
        where = None if i.name == "LDG" else at(w)
        if i.name == "LDS":
            w.counts["shared_wavefronts"] += _wavefronts(where, size, m)
        elif where is None or where[int(np.argmax(m))] >> 32 != SHARED_WINDOW:
            for r in rows:
                w.write(kind, r, ZERO, m)
            return
        where = np.where(m, where & 0xFFFFFFFF, 0)
        for n, r in enumerate(rows):
            if size >= 4:
                value = w.words[(where >> 2) + n]
            else:
                value = w.shared[where].astype(u32)
                if size == 2:
                    value |= w.shared[where + 1].astype(u32) << u32(8)
                value = (value.view(i32) << shift >> shift).view(u32) if signed else value
            w.write(kind, r, value, m)

    return run


def store(i: Instruction) -> Callable:
    at, size = address(i.operands[0]), _size(i)
    values = [integer(i.operands[1], n) for n in range(max(1, size // 4))]

    def run(w, m):
        where = at(w)
        if i.name == "STL":
            for n, value in enumerate(values):
                old = w.local.setdefault(int(where[0]) + 4 * n, np.zeros(32, u32))
                np.copyto(old, value(w), where=m)
            return
        w.counts["shared_wavefronts"] += _wavefronts(where, size, m)
        lanes = where[m]
        for n, value in enumerate(values):
            v = (value(w) + ZERO)[m]
            if size >= 4:
                w.words[(lanes >> 2) + n] = v
            else:
                for byte in range(size):
                    w.shared[lanes + byte] = v >> u32(8 * byte) & u32(255)

    return run


def matrices(i: Instruction) -> Callable:
    """LDSM, STSM: one, two or four matrices of 8 rows of 16 bytes. Lane 8 n + r has the address of row r of matrix n; of it, lane
    4 r + j holds word j in its n-th register, or (transposed) the r-th half of rows 2 j and 2 j + 1."""
    reads, transposed = i.name == "LDSM", "MT88" in i.parts
    kind, row = register(i.operands[0 if reads else 1])
    at = address(i.operands[1 if reads else 0])
    count = int(i.parts[-1]) if i.parts[-1] in ("2", "4") else 1
    r, j = LANES // 4, LANES % 4

    def run(w, m):
        where = at(w) & 0xFFFFFFFF
        w.counts["shared_wavefronts"] += _wavefronts(where, 16, m & (8 * count > LANES))
        for n in range(count):
            # The addresses of the two halves of a lane's word.
            low = where[8 * n + 2 * j] + 2 * r if transposed else where[8 * n + r] + 4 * j
            high = where[8 * n + 2 * j + 1] + 2 * r if transposed else low + 2
            places = [low, low + 1, high, high + 1]
            if reads:
                w.write(kind, row + n, sum(w.shared[p].astype(u32) << u32(8 * b) for b, p in enumerate(places)), m)
                continue
            value = w.bank[kind][row + n] if row != RZ else np.zeros(32, u32)
            for b, p in enumerate(places):
                w.shared[p] = value >> u32(8 * b) & u32(255)

    return run


def constant(i: Instruction) -> Callable:
    kind, row = register(i.operands[0])
    source = i.operands[1]
    get = [integer(source, n) for n in range(max(1, _size(i) // 4))]
    part = u32((1 << 8 * min(_size(i), 4)) - 1)

    def run(w, m):
        values = [np.broadcast_to(g(w) & part, 32) for g in get]  # all before the first is written: it may be the index
        for n, value in enumerate(values):
            w.write(kind, row + n, value, m)

    # A byte that does not begin a word.
    if _size(i) < 4 and (match := re.search(r"(0x[0-9a-f]+)\]$", source)) and int(match[1], 16) % 4:
        shift, whole = u32(8 * (int(match[1], 16) % 4)), integer(re.sub(r"0x[0-9a-f]+\]$", f"{int(match[1], 16) & ~3:#x}]", source))
        return lambda w, m: w.write(kind, row, np.broadcast_to(whole(w) >> shift & part, 32), m)
    return run


def special_register(i: Instruction) -> Callable:
    kind, row = register(i.operands[0])
    name = i.operands[1]
    get = SPECIAL_REGISTERS.get(name, lambda w: np.zeros(32, u32))

    def run(w, m):
        v = get(w)
        w.write(kind, row, v if kind == "R" else np.full(32, v[0]), m)

    return run
