"""Which crops of a scene pre-training sees, and which corners it never sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..config import PretrainConfig
from ..data.prepared import PreparedScene
from ..errors import UserError


@dataclass
class Holdout:
    """A square the training crops never touch, inside the crop that is put through the denoiser to judge it."""

    crop: tuple[int, int]
    """Upper left corner of the crop."""
    rows: slice
    columns: slice
    """The square, in the crop's coordinates."""


class CropSampler:
    """Draws the upper left corners of training crops.

    A crop's centre lies in a valid pixel and, for ``region="train"``, in the training region; at least half of its
    pixels are valid; and it keeps clear of up to four squares of half a crop in the scene's corners, which are held
    out for the reported R^2 (fewer, or none, where that would cost more than 40 % of the possible crops).
    """

    def __init__(self, prepared: PreparedScene, config: PretrainConfig, region: np.ndarray | None) -> None:
        height, width = prepared.height, prepared.width
        self.size = size = min(config.crop, height, width)
        if size < 7:
            raise UserError(f"the scene is {height} x {width} pixels; pre-training needs at least 7 x 7")
        valid = np.asarray(prepared.valid, bool)
        allowed = 2 * box_sum(valid, size) >= size * size
        centre = valid if region is None else valid & np.asarray(region, bool)
        allowed &= centre[size // 2 : size // 2 + allowed.shape[0], size // 2 : size // 2 + allowed.shape[1]]
        if not allowed.any():
            raise UserError(
                f"no crop of {size} x {size} pixels has half of its pixels valid and its centre in the "
                f"{'scene' if region is None else 'training region'}; lower pretrain.crop (now {config.crop})"
            )
        self.holdouts: list[Holdout] = []
        total, half = int(allowed.sum()), size // 2
        for bottom, right in ((0, 0), (1, 1), (0, 1), (1, 0)):
            y, x = bottom * (height - half), right * (width - half)
            if not valid[y : y + half, x : x + half].all():
                continue
            rest = allowed.copy()
            rest[max(0, y - size + 1) : y + half, max(0, x - size + 1) : x + half] = False
            if rest.sum() >= 0.6 * total:
                allowed = rest
                rows, columns = (slice(side * (size - half), side * (size - half) + half) for side in (bottom, right))
                self.holdouts.append(Holdout((bottom * (height - size), right * (width - size)), rows, columns))
        self.corners = torch.from_numpy(np.flatnonzero(allowed))
        self.columns = allowed.shape[1]

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """Upper left corners of ``count`` crops."""
        chosen = self.corners[torch.from_numpy(rng.integers(0, len(self.corners), count))]
        return [divmod(int(i), self.columns) for i in chosen]


def box_sum(mask: np.ndarray, size: int) -> np.ndarray:
    """Sums over all size x size windows of a bool (H, W): int64 (H - size + 1, W - size + 1), by an integral image."""
    total = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
