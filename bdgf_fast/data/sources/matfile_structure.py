"""The skeleton of MATLAB v5 to v7.2 files, looked through before SciPy reads them: its reader takes type codes on trust and
ends the whole process where a damaged file holds one that does not exist."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

HEADER = 128
MATRIX, COMPRESSED = 14, 15
NUMERIC = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13))
TEXT = frozenset((16, 17, 18))
DEEPEST = 40


def damage(path: Path) -> str | None:
    """What is wrong with the elements of the file, None where nothing is.

    Compressed variables are skipped over: zlib's checksum tells of damage in them. So are files of version 4.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(HEADER)
        if len(head) < HEADER or 0 in head[:4]:  # too short is for SciPy to say; version 4 begins with numbers
            return None
        order = "<" if head[126:128] == b"IM" else ">"
        return _walk(file, HEADER, size, order, 0)


def _walk(file: BinaryIO, at: int, end: int, order: str, depth: int) -> str | None:
    """Look through the elements between two places."""
    while end - at >= 8:
        file.seek(at)
        kind, length = struct.unpack(f"{order}II", file.read(8))
        small = kind >> 16
        if small:  # up to four bytes stand in the tag itself
            kind, length = kind & 0xFFFF, small
            if length > 4:
                return f"an element of {length} bytes in four at byte {at}"
            start, following = at + 4, at + 8
        else:
            start = at + 8
            following = start + length + (-length % 8 if kind != COMPRESSED else 0)
        if kind not in NUMERIC | TEXT and kind not in (MATRIX, COMPRESSED):
            return f"no type of MATLAB has the code {kind} (at byte {at})"
        if start + length > end:
            return f"an element of {length} bytes at byte {at} is longer than what is left"
        if kind == MATRIX:
            if depth > DEEPEST:
                return "its variables are nested too deeply"
            found = _walk(file, start, start + length, order, depth + 1)
            if found:
                return found
        elif kind == COMPRESSED and depth:
            return f"a compressed variable inside another at byte {at}"
        elif depth == 0 and kind != COMPRESSED:
            return f"a bare element of type {kind} at byte {at}"
        at = following
    return None
