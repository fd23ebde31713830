"""What a library for macOS (Mach-O) or for Windows (PE) asks of the system that loads it, read without that system's tools."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class MachO:
    """What a Mach-O library asks of the system that loads it."""

    macos: str = "?"
    signed: bool = False  # arm64 loads nothing unsigned
    libraries: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()  # names that no library is named for: the process is searched for them
    exported: tuple[str, ...] = ()


def mach_o(data: bytes) -> MachO:
    """The load commands of a 64-bit Mach-O file."""
    found = MachO()
    if data[:4] != b"\xcf\xfa\xed\xfe":
        return found
    at, text = 32, lambda start: data[start : data.index(b"\0", start)].decode()
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command in (0xC, 0x80000018):  # LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB
            found.libraries += (text(at + struct.unpack_from("<I", data, at + 8)[0]),)
        elif command == 0x32:  # LC_BUILD_VERSION
            packed = struct.unpack_from("<I", data, at + 12)[0]
            found.macos = f"{packed >> 16}.{packed >> 8 & 255}"
        elif command == 0x80000022:  # LC_DYLD_INFO_ONLY, of which what is bound at once and what at the first call
            for start, count in (struct.unpack_from("<II", data, at + offset) for offset in (16, 32)):
                found.undefined += tuple(sorted(name for name, library in _bound(data[start : start + count]) if library == -2))
        elif command == 0x2:  # LC_SYMTAB
            first, count, names = struct.unpack_from("<III", data, at + 8)
            symbols = [struct.unpack_from("<IBBH", data, first + 16 * k) for k in range(count)]
            # Defined in a section, external and not private to the library.
            found.exported = tuple(text(names + s[0]) for s in symbols if s[1] == 0x0F)
        found.signed = found.signed or command == 0x1D  # LC_CODE_SIGNATURE
        at += size
    return found


def _bound(program: bytes) -> set[tuple[str, int]]:
    """The names that a program for dyld binds, with the number of the library of each (-2: the process is searched)."""
    found, at, name, library = set(), 0, "", 0

    def number() -> int:  # seven bits a byte
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value, shift = value | (program[at - 1] & 127) << shift, shift + 7
            if program[at - 1] < 128:
                return value

    while at < len(program):
        code, value = program[at] & 0xF0, program[at] & 0x0F
        at += 1
        if code == 0x10:
            library = value
        elif code == 0x20:
            library = number()
        elif code == 0x30:
            library = value - 16 if value else 0
        elif code == 0x40:
            end = program.index(b"\0", at)
            name, at = program[at:end].decode(), end + 1
        elif code in (0x60, 0x70, 0x80):  # an addend, a place, a step
            number()
        elif code in (0x90, 0xA0, 0xB0, 0xC0):
            found.add((name, library))
            for _ in range({0xA0: 1, 0xC0: 2}.get(code, 0)):
                number()
    return found


@dataclass
class PE:
    """What a Windows library takes from others, by library, and what it shows them."""

    machine: int = 0
    imports: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exported: tuple[str, ...] = ()


def pe(data: bytes) -> PE:
    """The tables of a 64-bit PE file."""
    found = PE()
    head = struct.unpack_from("<I", data, 0x3C)[0] if data[:2] == b"MZ" else len(data)
    if data[head : head + 4] != b"PE\0\0":
        return found
    found.machine, sections, optional_size = struct.unpack_from("<HH12xH", data, head + 4)
    optional = head + 24
    table = [struct.unpack_from("<8xIIII", data, optional + optional_size + 40 * k) for k in range(sections)]

    def at(address: int) -> int:
        """Where in the file the address of the loaded library lies."""
        return next(address - start + raw for size, start, raw_size, raw in table if start <= address < start + max(size, raw_size))

    def text(address: int) -> str:
        return data[at(address) : data.index(b"\0", at(address))].decode()

    exports, imports = (struct.unpack_from("<I", data, optional + 112 + 8 * k)[0] for k in range(2))
    if exports:
        count, _, names = struct.unpack_from("<III", data, at(exports) + 24)
        found.exported = tuple(text(struct.unpack_from("<I", data, at(names) + 4 * k)[0]) for k in range(count))
    entry = at(imports) if imports else len(data)
    while entry < len(data) and (row := struct.unpack_from("<IIIII", data, entry))[3]:
        thunk, names = at(row[0] or row[4]), []
        while value := struct.unpack_from("<Q", data, thunk)[0]:
            names.append(f"#{value & 0xFFFF}" if value >> 63 else text(value + 2))
            thunk += 8
        found.imports[text(row[3])] = tuple(names)
        entry += 20
    return found
