"""Guide maps that are asked for again and again: computed once by tiles, kept in memory as far as they fit, else in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.prepared import mirror

CACHE_BYTES = 256 * 2**20


class StoredMaps:
    """``window(y0, x0, h, w)`` gives what ``compute`` gives there, to the bit.

    Args:
        compute: (y0, x0, h, w) -> maps float32 (C_k, h, w) of a place inside the scene; called once for each square of ``side``
            pixels in which something is asked for.
        height, width: of the scene.
        side: of the squares. Larger ones spend less on halos.
        cache_bytes: held in memory. Squares beyond it go to a temporary file that has no name, from which windows are read row
            by row.
    """

    def __init__(
        self, compute: Callable[[int, int, int, int], list[Tensor]], height: int, width: int, side: int = 256,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:  # fmt: skip
        self.compute, self.height, self.width, self.side, self.left = compute, height, width, side, cache_bytes
        self.channels: list[int] = []
        self._memory: dict[tuple[int, int], Tensor] = {}
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # offset in the file, columns
        self._file: Any = None

    def window(self, y0: int, x0: int, h: int, w: int) -> list[Tensor]:
        """Maps float32 (C_k, h, w) in channels-last memory, mirrored where they leave the scene."""
        rows, columns = mirror(torch.arange(y0, y0 + h), self.height), mirror(torch.arange(x0, x0 + w), self.width)
        top, left, bottom, right = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
        side = self.side
        strips = []
        for i in range(top // side, (bottom - 1) // side + 1):
            a, b = max(top, i * side), min(bottom, (i + 1) * side)
            pieces = []
            for j in range(left // side, (right - 1) // side + 1):
                c, d = max(left, j * side), min(right, (j + 1) * side)
                pieces.append(self._piece(i, j, a - i * side, b - i * side, c - j * side, d - j * side))
            strips.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1))
        found = strips[0] if len(strips) == 1 else torch.cat(strips)
        if (bottom - top, right - left) != (h, w) or int(rows[0]) != top or int(columns[0]) != left:
            found = found.index_select(0, rows - top).index_select(1, columns - left)
        return list(found.permute(2, 0, 1).split(self.channels))

    def _piece(self, i: int, j: int, a: int, b: int, c: int, d: int) -> Tensor:
        """Rows a..b-1, columns c..d-1 of a square, (rows, columns, channels)."""
        if (i, j) not in self._memory and (i, j) not in self._places:
            self._add(i, j)
        if (i, j) in self._memory:
            return self._memory[i, j][a:b, c:d]
        offset, columns = self._places[i, j]
        depth = 4 * sum(self.channels)
        rows = [os.pread(self._file.fileno(), (d - c) * depth, offset + (y * columns + c) * depth) for y in range(a, b)]
        return torch.from_numpy(np.frombuffer(bytearray(b"".join(rows)), np.float32).reshape(b - a, d - c, -1))

    def _add(self, i: int, j: int) -> None:
        y, x = i * self.side, j * self.side
        maps = self.compute(y, x, min(self.side, self.height - y), min(self.side, self.width - x))
        self.channels = [len(m) for m in maps]
        square = torch.cat([m.cpu() for m in maps]).permute(1, 2, 0).contiguous()
        if square.nbytes <= self.left:
            self.left -= square.nbytes
            self._memory[i, j] = square
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="bdgf-guides-")  # noqa: SIM115  # lives as long as the maps
        self._places[i, j] = (self._file.seek(0, os.SEEK_END), square.shape[1])
        self._file.write(square.numpy().tobytes())
        self._file.flush()
