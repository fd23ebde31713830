"""Which crops of a scene, or of several, pre-training sees, and which corners it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import PretrainConfig
from ..data.prepared import PreparedScene
from ..errors import UserError

STRIP = 1024
"""Rows whose windows are summed at once."""
MOST_HOLDOUTS = 16
"""Held-out squares that a denoiser is judged by, at most: evenly spread over the scenes."""

Corner = tuple[int, int, int]
"""Number of the scene, row and column of a crop's upper left pixel."""


@dataclass
class Holdout:
    """A square the training crops never touch, inside the crop that is put through the denoiser to judge it."""

    crop: tuple[int, int]
    """Upper left corner of the crop."""
    rows: slice
    columns: slice
    """The square, in the crop's coordinates."""
    scene: int = 0


class Corners:
    """The upper left corners of the training crops of one scene, numbered row by row.

    A crop's centre lies in a valid pixel and, with a ``region``, in that; at least half of its pixels are valid; and it keeps clear
    of up to four squares of half a crop in the scene's corners, which are held out for the reported R^2 (fewer, or none, where that
    would cost more than 40 % of the possible crops). Holds a bit a pixel.
    """

    def __init__(self, prepared: PreparedScene, size: int, region: np.ndarray | None = None) -> None:
        height, width = prepared.height, prepared.width
        valid = np.asarray(prepared.valid, bool)
        allowed = mostly(valid, size)
        centre = valid if region is None else valid & np.asarray(region, bool)
        allowed &= centre[size // 2 : size // 2 + allowed.shape[0], size // 2 : size // 2 + allowed.shape[1]]
        if not allowed.any():
            raise UserError(
                f"{prepared.scene.labels_source}: no crop of {size} x {size} pixels has half of its pixels valid and its centre in "
                f"the {'scene' if region is None else 'training region'}; lower pretrain.crop"
            )
        self.holdouts: list[Holdout] = []
        total, half = int(allowed.sum()), size // 2
        for bottom, right in ((0, 0), (1, 1), (0, 1), (1, 0)):
            y, x = bottom * (height - half), right * (width - half)
            if not valid[y : y + half, x : x + half].all():
                continue
            near = allowed[max(0, y - size + 1) : y + half, max(0, x - size + 1) : x + half]
            if allowed.sum() - near.sum() >= 0.6 * total:
                near[:] = False
                rows, columns = (slice(side * (size - half), side * (size - half) + half) for side in (bottom, right))
                self.holdouts.append(Holdout((bottom * (height - size), right * (width - size)), rows, columns))
        self._before = np.concatenate([[0], allowed.sum(1).cumsum()])  # corners in the rows above each row
        self._bits, self._columns = np.packbits(allowed, axis=1), allowed.shape[1]

    def __len__(self) -> int:
        """How many corners there are."""
        return int(self._before[-1])

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Row and column of a corner."""
        if index >= len(self):
            raise IndexError(index)
        y = int(np.searchsorted(self._before, index, "right")) - 1
        row = np.unpackbits(self._bits[y], count=self._columns)
        return y, int(np.flatnonzero(row)[index - self._before[y]])


class Crops:
    """Crops of scenes that are prepared alike, of one size; every possible crop of any scene is drawn as often.

    Scenes are thus drawn in proportion to their pixels: all ground is seen equally often, and a small scene is not learned by
    heart.
    """

    def __init__(self, scenes: Sequence[PreparedScene], config: PretrainConfig, region: np.ndarray | None = None) -> None:
        self.scenes = list(scenes)
        self.size = min(config.crop, *(side for scene in scenes for side in (scene.height, scene.width)))
        for scene in self.scenes:
            if self.size < 7 and self.size in (scene.height, scene.width):
                raise UserError(
                    f"{scene.scene.labels_source} is {scene.height} x {scene.width} pixels; pre-training needs at least 7 x 7"
                )
        self.corners = []
        for scene in self.scenes:
            self.corners.append(Corners(scene, self.size, region))
            if len(self.scenes) > 1:
                scene.forget_validity()
        self._before = np.concatenate([[0], np.cumsum([len(c) for c in self.corners])])
        names = scenes[0].modality_names
        self._absent = torch.tensor([[name in scene.absent for name in names] for scene in scenes])
        held = [Holdout(h.crop, h.rows, h.columns, i) for i, c in enumerate(self.corners) for h in c.holdouts]
        spread = np.linspace(0, len(held) - 1, min(len(held), MOST_HOLDOUTS)).round().astype(int)
        self.holdouts = [held[i] for i in spread]

    def draw(self, rng: np.random.Generator, count: int) -> list[Corner]:
        """``count`` crops."""
        found = []
        for index in rng.integers(0, int(self._before[-1]), count):
            scene = int(np.searchsorted(self._before, index, "right")) - 1
            found.append((scene, *self.corners[scene][int(index - self._before[scene])]))
        return found

    def window(self, corner: Corner) -> Tensor:
        """The crop (C, size, size); modalities that its scene has not are 0."""
        scene, y, x = corner
        return self.scenes[scene].window(y, x, self.size, self.size)

    def absent(self, scenes: Sequence[int]) -> Tensor:
        """The modalities bool (n, M) that these scenes have not."""
        return self._absent[list(scenes)]


def mostly(mask: np.ndarray, size: int) -> np.ndarray:
    """Whether at least half of each size x size window of a bool (H, W) is True: bool (H - size + 1, W - size + 1)."""
    height = mask.shape[0] - size + 1
    parts = [2 * box_sum(mask[y : min(y + STRIP, height) + size - 1], size) >= size * size for y in range(0, height, STRIP)]
    return np.concatenate(parts)


def box_sum(mask: np.ndarray, size: int) -> np.ndarray:
    """Sums over all size x size windows of a bool (H, W): int64 (H - size + 1, W - size + 1), by an integral image."""
    total = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
