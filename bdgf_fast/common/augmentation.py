"""The eight rotations and flips of a square, and patches turned around their labelled pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def dihedral(x: Tensor, which: int) -> Tensor:
    """One of the eight rotations and flips of the last two axes; 0 is the identity."""
    if which & 4:
        x = x.flip(-1)
    return torch.rot90(x, which & 3, (-2, -1))


def undo_dihedral(x: Tensor, which: int) -> Tensor:
    """Inverse of ``dihedral``."""
    x = torch.rot90(x, -(which & 3), (-2, -1))
    return x.flip(-1) if which & 4 else x


def cut(patch: int) -> int:
    """Side of the squares that patches are turned in: an even patch has no pixel in its middle, so it is cut from a square of one
    pixel more, in whose middle the labelled pixel stands."""
    return patch | 1


def turned(square: Tensor, which: int, patch: int) -> Tensor:
    """A patch (..., patch, patch) in one of the eight turns of squares (..., ``cut(patch)``, ``cut(patch)``) around labelled
    pixels; these stand at ``patch // 2`` in every turn."""
    return dihedral(square, which)[..., :patch, :patch]
