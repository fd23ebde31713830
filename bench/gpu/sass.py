"""Executes one block of a compiled kernel, instruction by instruction, and counts what it executes.

The kernel is SASS as cuobjdump prints it (sm_80, sm_90); its launch (grid, block, shared memory, parameters) is given.
Integers, predicates, addresses and floats are computed for all lanes of every warp, so that loops and branches go as they do
on the chip. Global memory reads as zeros: what kernels decide by data is not followed, and no result is meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LANES = np.arange(32)
NONE, ZERO = np.zeros(32, np.int64), np.zeros(32, np.uint32)  # added to what may be one number for all lanes
RZ, NOWHERE = 255, 256  # a row of zeros, and one that takes what is written to RZ
SPECIAL = {"MUFU", "I2F", "F2I", "F2F"}  # what the special function units execute
PARAMETERS = {"sm_80": 0x160, "sm_90": 0x210}  # where a kernel's parameters begin in constant bank 0
u32, u64, i32, i64, f32 = np.uint32, np.uint64, np.int32, np.int64, np.float32
LOW = u64(0xFFFFFFFF)


@dataclass
class Launch:
    grid: tuple[int, ...]
    block: int
    shared: int  # bytes, static and dynamic
    parameters: bytes
    architecture: str = "sm_90"


@dataclass
class Instruction:
    address: int
    text: str
    name: str = ""
    guard: str = ""  # P0, !P0, UP0, ... or nothing
    parts: list[str] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)
    run: Callable | None = None  # for all but control flow
    holds: Callable | None = None  # the lanes whose guard is true
    conditions: list[Callable] = field(default_factory=list)  # what a jump asks for besides

    def __post_init__(self) -> None:
        match = re.match(r"(?:@(!?U?P[0-9T]+)\s+)?(\S+)\s*(.*)", self.text)
        assert match, self.text
        self.guard, name, rest = match[1] or "", match[2], match[3].replace(".reuse", "")
        self.parts = name.split(".")
        self.name = self.parts[0]
        self.operands = [x.strip() for x in re.split(r",\s*(?![^\[]*\])", rest)] if rest.strip() else []
        self.holds = predicate(self.guard) if self.guard else None
        self.conditions = [predicate(x) for x in self.operands[:-1] if is_predicate(x)]


# ---------------------------------------------------------------------------------------------------- operands
def bits(text: str) -> u32:
    """An immediate as 32 bits: 0x10, -0x1, or a float."""
    text = text.strip()
    if "0x" in text:
        return u32(int(text, 16) & 0xFFFFFFFF)
    number = {"+INF": np.inf, "-INF": -np.inf, "+QNAN": np.nan, "-QNAN": np.nan, "INF": np.inf, "QNAN": np.nan}.get(text)
    return f32(float(text) if number is None else number).view(u32)


def register(text: str) -> tuple[str, int]:
    """("R", 12) of R12, ("UR", 4) of UR4, ("R", 255) of RZ."""
    match = re.match(r"(U?R)(\d+|Z)", text)
    assert match, text
    return match[1], RZ if match[2] == "Z" else int(match[2])


def raw(text: str, offset: int = 0) -> Callable:
    """warp -> the 32 bits of an operand without its sign (`offset` 1: the upper half of a pair)."""
    if match := re.match(r"c\[(\w+)\]\[(?:(U?R\w+?)\+?)?(-?0x[0-9a-f]+)?\]", text):
        bank, by, at = int(match[1], 16), match[2], int(match[3] or "0", 16) + 4 * offset
        if by is None:
            return lambda w: w.constant(bank, at)
        kind, row = register(by)

        def indexed(w):
            where = w.bank[kind][row].astype(i32)
            some = {int(x): w.constant(bank, int(x) + at) for x in np.unique(where[w.mask])}
            return np.array([some.get(int(x), 0) for x in where], u32)

        return indexed
    if re.match(r"U?R(\d+|Z)", text):
        kind, row = register(text)
        row += 0 if row == RZ else offset
        return lambda w: w.bank[kind][row]
    value = bits(text) if offset == 0 else u32(0)
    return lambda w: value


def integer(text: str, offset: int = 0) -> Callable:
    if text[0] in "-~" and text[1] in "RUc":
        get = raw(text[1:], offset)
        return (lambda w: ~get(w)) if text[0] == "~" else (lambda w: u32(0) - get(w))
    return raw(text, offset)


def wide(text: str) -> Callable:
    """For sums with carries: as 64 bits, where the negative is 2^32 minus the number."""
    if text[0] == "-" and text[1] in "RUc":
        get = raw(text[1:])
        return lambda w: u64(1 << 32) - np.asarray(get(w), u64)
    get = integer(text)
    return lambda w: np.asarray(get(w), u64)


def pair(text: str) -> Callable:
    low, high = integer(text), integer(text, 1)
    return lambda w: np.asarray(low(w), u64) | (np.asarray(high(w), u64) << u64(32))


def real(text: str) -> Callable:
    negative, text = text.startswith("-") and text[1] in "RUc|", text.lstrip("-") if text[:2] in ("-R", "-U", "-c", "-|") else text
    absolute, text = text.startswith("|"), text.replace("|", "")
    get = raw(text)

    def value(w):
        v = np.asarray(get(w), u32).view(f32)
        v = np.abs(v) if absolute else v
        return -v if negative else v

    return value


def predicate(text: str) -> Callable:
    negative, text = text.startswith("!"), text.lstrip("!")
    kind = "UP" if text.startswith("UP") else "P"
    row = 7 if text.endswith("T") else int(text[len(kind) :])
    return (lambda w: ~w.flags[kind][row]) if negative else (lambda w: w.flags[kind][row])


def is_predicate(text: str) -> bool:
    return re.fullmatch(r"!?U?P[0-9T]", text) is not None


def address(text: str) -> Callable:
    """The lanes' byte addresses of [R2.64+UR4+0x10] or desc[UR4][R2.64]."""
    inside = text[text.rindex("[") + 1 : text.rindex("]")]
    terms = []
    for term in re.split(r"\+", inside):
        if re.match(r"-?0x", term):
            number = i64(int(term, 16))
            terms.append(lambda w, n=number: n)
        elif term.endswith(".64"):
            get = pair(term[:-3])
            terms.append(lambda w, g=get: g(w).view(i64))
        else:
            get = raw(term.replace(".X4", "").replace(".U32", ""))
            terms.append(lambda w, g=get: np.asarray(g(w), i64))
    first, *others = terms

    def lanes(w):
        at = first(w) + NONE
        for term in others:
            at = at + term(w)
        return at

    return lanes


# ---------------------------------------------------------------------------------------------------- a warp
class Warp:
    """32 lanes: registers, predicates, and the groups of lanes that stand at different addresses."""

    def __init__(self, kernel: Kernel, launch: Launch, block: tuple[int, ...], number: int, shared: np.ndarray, counts: Counter):
        self.kernel, self.launch, self.block, self.number, self.counts = kernel, launch, block, number, counts
        self.shared, self.words = shared, shared.view(u32)
        self.bank = {"R": np.zeros((257, 32), u32), "UR": np.zeros((257, 32), u32)}
        self.flags = {"P": np.zeros((9, 32), bool), "UP": np.zeros((9, 32), bool)}
        for flags in self.flags.values():
            flags[7] = True
        self.local: dict[int, np.ndarray] = {}
        self.mask = np.arange(32) + 32 * number < launch.block

    def constant(self, bank: int, at: int) -> u32:
        base = PARAMETERS[self.launch.architecture]
        if bank == 0 and 0 <= at - base <= len(self.launch.parameters) - 4:
            return u32(int.from_bytes(self.launch.parameters[at - base : at - base + 4], "little"))
        sizes = (self.launch.block, 1, 1, *self.launch.grid, 1, 1)
        return u32(sizes[at // 4] if bank == 0 and at < 24 else 0)

    def write(self, kind: str, row: int, value, mask) -> None:
        row = NOWHERE if row == RZ else row
        np.copyto(self.bank[kind][row], np.asarray(value).astype(u32, copy=False), where=mask if kind == "R" else True)

    def flag(self, text: str, value, mask) -> None:
        kind = "UP" if text.startswith("UP") else "P"
        row = 8 if text.endswith("T") else int(text[len(kind) :])
        np.copyto(self.flags[kind][row], value, where=mask if kind == "P" else True)

    def run(self):
        """Executes the warp; yields at each barrier of the block. Lanes that part meet again at the BSYNC of their BSSY,
        and where all lanes of a warp must be together."""
        groups, joins, waiting, alive = [(0, self.mask)], {}, {}, self.mask.copy()

        def release(name: str) -> None:  # lanes that wait for others to join them, if none is missing
            if name in waiting and not (joins[name] & alive & ~waiting[name][1]).any():
                groups.append(waiting.pop(name))

        program = self.kernel.program
        while groups or waiting:
            if not groups:  # cannot happen in a sound program: let them go on
                groups.append(waiting.pop(next(iter(waiting))))
            at, mask = groups.pop()
            while True:
                ins = program[at]
                self.counts[ins.name] += 1
                self.mask = mask
                hold = ins.holds(self) & mask if ins.holds else mask
                at += 16
                if ins.run is not None:
                    if hold is mask or hold.any():
                        ins.run(self, hold)
                elif ins.name in ("BRA", "CALL", "RET", "BRX"):
                    hold, target = self.jump(ins, hold)
                    if hold.any():
                        rest = mask & ~hold
                        if rest.any():
                            groups.append((at, rest))
                        at, mask = target, hold
                elif ins.name == "EXIT":
                    alive &= ~hold
                    mask = mask & ~hold
                    for name in list(waiting):
                        release(name)
                    if not mask.any():
                        break
                elif ins.name == "BSSY":
                    joins[ins.operands[0]] = mask
                elif ins.name == "BREAK":
                    joins[ins.operands[0]] = joins[ins.operands[0]] & ~hold
                    release(ins.operands[0])
                elif ins.name == "BSYNC":
                    name = ins.operands[0]
                    waiting[name] = (at, waiting[name][1] | mask if name in waiting else mask)
                    release(name)
                    break
                elif ins.name in ("BAR", "WARPSYNC") and (mask != alive).any():  # all lanes meet here, then execute it
                    name = f"{ins.name} {at}"
                    self.counts[ins.name] -= name not in waiting
                    joins[name] = alive
                    waiting[name] = (at - 16, waiting[name][1] | mask if name in waiting else mask)
                    release(name)
                    break
                elif ins.name == "BAR":
                    yield

    def jump(self, ins: Instruction, hold: np.ndarray) -> tuple[np.ndarray, int]:
        """The lanes that jump, and where to."""
        if ins.name == "RET":
            return hold, int(self.bank["R"][register(ins.operands[0])[1]][int(np.argmax(hold))])
        if "DIV" in ins.parts:  # the way for lanes that are apart; they are not
            return hold & False, 0
        for condition in ins.conditions:
            hold = hold & condition(self)
        if ins.name == "BRX":  # by a table that cuobjdump does not print: the first of its ways follows
            return hold, ins.address + 16
        return hold, int(ins.operands[-1], 16)


class Kernel:
    """A function that can be executed."""

    def __init__(self, code: list[tuple[int, str]]):
        from sass_semantics import compiled  # the meaning of each instruction

        self.program = {address: Instruction(address, text) for address, text in code}
        for i in self.program.values():
            i.run = compiled(i)

    def count(self, launch: Launch, block: tuple[int, ...] = (0, 0, 0)) -> Counter:
        """Warp instructions of one block by name, with "shared_wavefronts" beside them."""
        counts: Counter = Counter()
        shared = np.zeros((launch.shared + 4096) // 4 * 4, np.uint8)
        warps = [Warp(self, launch, block, n, shared, counts).run() for n in range((launch.block + 31) // 32)]
        with np.errstate(all="ignore"):
            while warps:
                warps = [w for w in warps if next(w, "done") != "done"]
        return counts
