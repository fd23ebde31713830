"""What each SASS instruction does to the registers of a warp (sass.py): one function per name, compiled once per instruction."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from sass import LOW, RZ, Instruction, f32, i32, i64, integer, is_predicate, pair, predicate, real, register, u32, u64, wide
from sass_memory import constant, load, matrices, shuffle, special_register, store

CONTROL = {"BRA", "CALL", "RET", "BRX", "EXIT", "BSSY", "BSYNC", "BREAK", "BAR", "WARPSYNC"}
TENSOR = {"HMMA", "HGMMA"}  # products of matrices: data
NOTHING = {"NOP", "ENDCOLLECTIVE", "STG", "REDG", "RED", "MEMBAR", "FENCE", "WARPGROUP", *TENSOR}
COMPARE = {"NA": lambda p, q: np.isnan(p) | np.isnan(q), "NU": lambda p, q: ~(np.isnan(p) | np.isnan(q)),  # NAN, NUM
           "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal,
           "NE": np.not_equal}  # fmt: skip


def compiled(i: Instruction) -> Callable | None:
    """(warp, mask) -> None, or None for control flow."""
    if i.name in CONTROL:
        return None
    if i.name in NOTHING:
        return lambda w, m: None
    name = i.name[1:] if i.name[0] == "U" and i.name[1:] in MEANINGS else i.name
    if name not in MEANINGS:
        raise NotImplementedError(f"{i.text}: an instruction that sass_semantics.py does not know")
    return MEANINGS[name](i)


def _split(i: Instruction) -> tuple[str, int, list[str], list[str]]:
    """The register written, the predicates written after it, and the operands read."""
    kind, row = register(i.operands[0])
    n = 1
    while n < len(i.operands) and is_predicate(i.operands[n]) and n < 3:
        n += 1
    return kind, row, i.operands[1:n], i.operands[n:]


def _sources(i: Instruction) -> tuple[str, int, list[str]]:
    kind, row = register(i.operands[0])
    return kind, row, i.operands[1:]


def simple(compute: Callable, read: Callable) -> Callable:
    """An instruction that writes one register from its operands, read all in the same way."""

    def meaning(i: Instruction) -> Callable:
        kind, row, sources = _sources(i)
        get = [read(s) for s in sources if not is_predicate(s)]
        return lambda w, m: w.write(kind, row, compute(*[g(w) for g in get]), m)

    return meaning


def _floats(compute: Callable) -> Callable:
    return simple(lambda *v: np.asarray(compute(*v), f32).view(u32), real)


def _chosen(read: Callable, smallest: Callable | None = None) -> Callable:
    """SEL, FSEL; with `smallest` the minimum where the predicate holds, else the maximum."""

    def meaning(i: Instruction) -> Callable:
        kind, row, (a, b, p) = _sources(i)
        x, y, q = read(a), read(b), predicate(p)

        def run(w, m):
            one, other = x(w), y(w)
            if smallest is not None:
                pair_ = smallest(i, one, other)
                one, other = np.minimum(*pair_), np.maximum(*pair_)
            w.write(kind, row, np.where(q(w), one, other).view(u32), m)

        return run

    return meaning


def _signed(i: Instruction, *values):
    return tuple(np.asarray(v, u32) if "U32" in i.parts else np.asarray(v, u32).view(i32) for v in values)


def _iadd3(i: Instruction) -> Callable:
    kind, row, carries, sources = _split(i)
    get = [wide(s) for s in sources if not is_predicate(s)]
    into = [predicate(s) for s in sources if is_predicate(s)]

    def run(w, m):
        total = u64(0)
        for g in get:
            total = total + g(w)
        for p in into:
            total = total + p(w)
        w.write(kind, row, total & LOW, m)
        for n, carry in enumerate(carries):
            w.flag(carry, (total >> u64(32)) > n, m)

    return run


def _imad(i: Instruction) -> Callable:
    kind, row, carries, sources = _split(i)
    a, b, c, *into = sources
    unsigned, whole, high = "U32" in i.parts, "WIDE" in i.parts, "HI" in i.parts
    x, y, z = integer(a), integer(b), pair(c) if whole or high else integer(c)
    carry_in = predicate(into[0]) if into else None

    def run(w, m):
        p, q, r = np.asarray(x(w), u32), np.asarray(y(w), u32), z(w)
        if not (whole or high):
            total = p * q + r
            w.write(kind, row, total if carry_in is None else total + carry_in(w).astype(u32), m)
            return
        product = p.astype(u64) * q.astype(u64) if unsigned else (p.view(i32).astype(i64) * q.view(i32).astype(i64)).view(u64)
        total = product + r if carry_in is None else product + r + carry_in(w).astype(u64)
        if whole:
            w.write(kind, row, total & LOW, m)
            w.write(kind, row + 1 if row != RZ else RZ, total >> u64(32), m)
        else:
            w.write(kind, row, total >> u64(32), m)
        for carry in carries:
            w.flag(carry, total < product, m)

    return run


def _lea(i: Instruction) -> Callable:
    kind, row, carries, sources = _split(i)
    into = predicate(sources[-1]) if is_predicate(sources[-1]) else None
    sources = [s for s in sources if not is_predicate(s)]
    high, extend = "HI" in i.parts, "SX32" in i.parts
    by = u64(int(sources[-1], 16))
    a, b = integer(sources[0]), wide(sources[1])
    upper = integer(sources[2]) if high and not extend else None

    def run(w, m):
        v = np.asarray(a(w), u32)
        if extend:
            v = v.view(i32).astype(i64).view(u64)
        else:
            v = v.astype(u64) | (np.asarray(upper(w), u64) << u64(32) if upper else u64(0))
        v = v << by
        v = v >> u64(32) if high else v
        total = (v & LOW) + b(w)
        total = total + into(w).astype(u64) if into else total
        w.write(kind, row, total & LOW, m)
        for carry in carries:
            w.flag(carry, (total >> u64(32)) > 0, m)

    return run


def _lop3(i: Instruction) -> Callable:
    into = i.operands[0] if is_predicate(i.operands[0]) else None
    operands = i.operands[1:] if into else i.operands
    kind, row = register(operands[0])
    a, b, c = (integer(s) for s in operands[1:4])
    table = int(operands[4], 16)

    def run(w, m):
        x, y, z = (np.asarray(g(w), u32) for g in (a, b, c))
        v = u32(0)
        for n in range(8):
            if table >> n & 1:
                v = v | ((x if n & 4 else ~x) & (y if n & 2 else ~y) & (z if n & 1 else ~z))
        w.write(kind, row, v, m)
        if into:
            w.flag(into, v != 0, m)

    return run


def _plop3(i: Instruction) -> Callable:
    first, second, *rest = i.operands
    a, b, c = (predicate(p) for p in rest[:3])
    tables = [int(t, 16) for t in rest[3:]]

    def run(w, m):
        at = a(w) * 4 + b(w) * 2 + c(w) * 1
        for to, table in zip((first, second), tables, strict=True):
            w.flag(to, (table >> at & 1).astype(bool), m)

    return run


def _shf(i: Instruction) -> Callable:
    kind, row, (a, s, b) = _sources(i)
    x, by, y = integer(a), integer(s), integer(b)
    left, signed, high = "L" in i.parts, "S32" in i.parts or "S64" in i.parts, "HI" in i.parts
    both = "U64" in i.parts or "S64" in i.parts

    def run(w, m):
        n = np.minimum(np.asarray(by(w), u64), u64(63 if both else 32))
        v = np.asarray(x(w), u64) | (np.asarray(y(w), u64) << u64(32))
        if left:
            v = v << n
        else:
            v = (v.view(i64) >> n.astype(i64)).view(u64) if signed else v >> n
        w.write(kind, row, v >> u64(32) if high else v & LOW, m)

    return run


def _setp(i: Instruction) -> Callable:
    first, second, a, b, *into = i.operands
    floats = i.name == "FSETP"
    x, y = (real(a), real(b)) if floats else (integer(a), integer(b))
    name = i.parts[1]
    unordered = floats and name.endswith("U") and name != "NUM"
    compare, either, chained = COMPARE[name[:2]], "OR" in i.parts, "EX" in i.parts
    with_flag, lower = predicate(into[0]), predicate(into[1]) if chained else None
    strict = name[:2] in ("EQ", "LT", "LE", "GT", "GE")

    def run(w, m):
        p, q = x(w), y(w)
        if not floats:
            p, q = _signed(i, p, q)
        if lower is not None:
            apart = {"LE": np.less, "GE": np.greater}.get(name, compare)(p, q)
            v = apart & (p != q) | (p == q) & lower(w) if strict else (p != q) | lower(w)
        else:
            v = compare(p, q)
        if unordered:
            v = v | np.isnan(p) | np.isnan(q)
        other = with_flag(w)
        w.flag(first, v | other if either else v & other, m)
        w.flag(second, ~v | other if either else ~v & other, m)

    return run


def _prmt(i: Instruction) -> Callable:
    kind, row, (a, s, c) = _sources(i)
    x, select, y = integer(a), integer(s), integer(c)

    def run(w, m):
        v = np.asarray(x(w), u64) | (np.asarray(y(w), u64) << u64(32))
        how, out = np.asarray(select(w), u64), u64(0)
        for n in range(4):
            byte = v >> ((how >> u64(4 * n) & u64(7)) * u64(8)) & u64(255)
            byte = np.where(how >> u64(4 * n + 3) & u64(1), np.where(byte & u64(128), u64(255), u64(0)), byte)
            out = out | byte << u64(8 * n)
        w.write(kind, row, out, m)

    return run


def _cs2r(i: Instruction) -> Callable:
    kind, row, _ = _sources(i)

    def run(w, m):
        w.write(kind, row, u32(0), m)
        if "32" not in i.parts:
            w.write(kind, row + 1, u32(0), m)

    return run


def _r2ur(i: Instruction) -> Callable:
    kind, row, (source,) = _sources(i)
    get = integer(source)
    return lambda w, m: w.write(kind, row, np.full(32, np.broadcast_to(get(w), 32)[int(np.argmax(m))]), m)


def _vote(i: Instruction) -> Callable:
    *to, source = i.operands
    q = predicate(source)

    def run(w, m):
        v = q(w)[m]
        for target in to:
            if is_predicate(target):
                w.flag(target, v.all() if "ALL" in i.parts else v.any(), m)
            else:
                w.write(*register(target), u32(int(np.packbits(q(w) & m, bitorder="little").view(u32)[0])), m)

    return run


def _p2r(i: Instruction) -> Callable:
    kind, row, sources = _sources(i)
    base, kept = integer(sources[1]), int(sources[2], 16)

    def run(w, m):
        v = np.asarray(base(w), u32) & u32(~kept & 0xFFFFFFFF)
        for n in range(7):
            if kept >> n & 1:
                v = v | w.flags["P"][n].astype(u32) << u32(n)
        w.write(kind, row, v, m)

    return run


def _r2p(i: Instruction) -> Callable:
    get, kept = integer(i.operands[1]), int(i.operands[2], 16)

    def run(w, m):
        v = np.broadcast_to(get(w), 32)
        for n in range(7):
            if kept >> n & 1:
                w.flag(f"P{n}", (v >> u32(n) & u32(1)).astype(bool), m)

    return run


def _to_float(i: Instruction) -> Callable:
    kind, row, (source,) = _sources(i)
    get = pair(source) if "U64" in i.parts or "S64" in i.parts else integer(source)

    def run(w, m):
        v = np.asarray(get(w))
        v = v if "U64" in i.parts or "U32" in i.parts else v.view(i64) if "S64" in i.parts else v.view(i32)
        number = v.astype(f32)
        if "RP" in i.parts:  # towards the larger one, which the division relies on
            number = np.where(number.astype(np.float64) < v.astype(np.float64), np.nextafter(number, f32(np.inf)), number)
        w.write(kind, row, np.asarray(number, f32).view(u32), m)

    return run


def _to_integer(i: Instruction) -> Callable:
    kind, row, (source,) = _sources(i)
    get, both, unsigned = real(source), "U64" in i.parts or "S64" in i.parts, "U32" in i.parts or "U64" in i.parts

    def run(w, m):
        v = np.trunc(np.nan_to_num(get(w).astype(np.float64)))
        v = np.clip(v, 0 if unsigned else -(2.0**31), 2.0**63 if both else 2.0**32 - 1).astype(i64).view(u64)
        w.write(kind, row, v & LOW, m)
        if both:
            w.write(kind, row + 1, v >> u64(32), m)

    return run


def _compared_halves(i: Instruction) -> Callable:
    """HSETP2 compares data, which nothing follows."""
    to = [p for p in i.operands[:2] if is_predicate(p)]

    def run(w, m):
        for p in to:
            w.flag(p, np.zeros(32, bool), m)

    return run


def _halves(i: Instruction) -> Callable:
    """HFMA2.MMA and HADD2 as the compiler uses them: two constants, or half of a register as float."""
    kind, row, sources = _sources(i)
    if i.name == "HFMA2" and any(re.match(r"[-|]*U?R", s) for s in sources[-2:]):
        return lambda w, m: w.write(kind, row, u32(0), m)  # of two halves at a time: data
    if i.name == "HFMA2":
        high, low = (int(np.float16(float(s)).view(np.uint16)) for s in sources[-2:])
        value = u32(high << 16 | low)
        return lambda w, m: w.write(kind, row, np.full(32, value), m)
    match = re.match(r"(\S+)\.H([01])_H", sources[1])
    if match is None:
        return lambda w, m: None
    get, shift = integer(match[1]), u32(16 * int(match[2]))
    return lambda w, m: w.write(kind, row, (get(w) >> shift).astype(np.uint16).view(np.float16).astype(f32).view(u32), m)


def _extended(i: Instruction) -> Callable:
    """SGXT: the lowest bits of a register, the others filled with the sign, or with zeros."""
    kind, row, (source, bits) = _sources(i)
    get, by = integer(source), u32(32 - int(bits, 16))

    def run(w, m):
        v = np.asarray(get(w), u32) << by
        w.write(kind, row, v >> by if "U32" in i.parts else (v.view(i32) >> i32(by)).view(u32), m)

    return run


def _iabs(v):
    return np.abs(np.asarray(v, u32).view(i32)).view(u32)


def _addminmax(i: Instruction) -> Callable:
    kind, row, (a, b, c, p) = _sources(i)
    x, y, z, q = integer(a), integer(b), integer(c), predicate(p)

    def run(w, m):
        v, other = _signed(i, x(w) + y(w), z(w))
        w.write(kind, row, np.where(q(w), np.minimum(v, other), np.maximum(v, other)).view(u32), m)

    return run


def _fused(a, b, c):
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(f32)


def _mufu(i: Instruction) -> Callable:
    return _floats({"EX2": np.exp2, "LG2": np.log2, "RCP": np.reciprocal, "RSQ": lambda v: 1 / np.sqrt(v), "SQRT": np.sqrt,
                    "SIN": np.sin, "COS": np.cos, "TANH": np.tanh}[i.parts[1]])(i)  # fmt: skip


MEANINGS: dict[str, Callable] = {
    "MOV": simple(lambda v, *_: v, integer), "VIADD": simple(lambda a, b: a + b, integer),
    "IABS": simple(_iabs, integer), "SGXT": _extended, "IMAD": _imad, "IADD3": _iadd3, "LEA": _lea, "LOP3": _lop3, "PLOP3": _plop3,
    "SHF": _shf, "PRMT": _prmt, "SEL": _chosen(integer), "FSEL": _chosen(real),
    "VIMNMX": _chosen(integer, _signed), "IMNMX": _chosen(integer, _signed),
    "FMNMX": _chosen(real, lambda i, a, b: (a, b)), "VIADDMNMX": _addminmax, "ISETP": _setp, "FSETP": _setp,
    "FADD": _floats(lambda a, b: a + b), "FMUL": _floats(lambda a, b: a * b), "FFMA": _floats(_fused), "MUFU": _mufu,
    "I2F": _to_float, "I2FP": _to_float, "F2I": _to_integer,
    "F2FP": simple(lambda *v: u32(0), real), "F2F": simple(lambda v: u32(0), real),
    "HFMA2": _halves, "HADD2": _halves, "HSETP2": _compared_halves,
    "CS2R": _cs2r, "R2UR": _r2ur, "VOTE": _vote, "VOTEU": _vote, "P2R": _p2r, "R2P": _r2p,
    "FCHK": lambda i: lambda w, m: w.flag(i.operands[0], np.zeros(32, bool), m), "SHFL": shuffle,
    "LDSM": matrices, "STSM": matrices,
    "LDS": load, "LDG": load, "LD": load, "LDL": load, "STS": store, "STL": store, "LDC": constant,
    "S2R": special_register, "S2UR": special_register,
}  # fmt: skip
