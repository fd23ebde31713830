"""A small network that learns what a trained one says of pixels without a label (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.random_streams import generator
from ..config import Config
from ..data.prepared import PreparedScene

STUDENT = (
    "model.branches=[cnn]", "model.guide_cnn=none", "model.guide_mamba=none", "model.guide_transformer=none", "model.twins=false",
    "model.trees=0", "model.hide_rate=0", "model.width=32", "model.stages=2", "model.hidden=96", "model.dropout=0.1",
    "model.statistics_noise=0.05", "train.label_smoothing=0", "train.epochs=4",
)  # fmt: skip
"""How a student differs from its teacher: one narrow branch of convolutions, no guidance and no forests."""
SQUARE = 64
"""Side in pixels of the squares that are learned from, where a scene has more pixels than are needed."""


def student_config(teacher: Config) -> Config:
    """The configuration of a student by default."""
    return teacher.override(*STUDENT)


def unlabelled(prepared: PreparedScene, test: Tensor, count: int, seed: int) -> Tensor:
    """Valid pixels int64 (n, 2) outside ``test`` int64 (m, 2), in random squares of the scene until there are ``count`` of them."""
    free = torch.as_tensor(prepared.valid).clone()
    free[test[:, 0], test[:, 1]] = False
    corners = [(y, x) for y in range(0, prepared.height, SQUARE) for x in range(0, prepared.width, SQUARE)]
    found: list[Tensor] = []
    total = 0
    for k in generator(seed, "windows", 2**40).permutation(len(corners)):
        if total >= count:
            break
        y, x = corners[k]
        found.append(free[y : y + SQUARE, x : x + SQUARE].nonzero() + torch.tensor([y, x]))
        total += len(found[-1])
    rc = torch.cat(found) if found else torch.empty(0, 2, dtype=torch.int64)
    return rc[(rc[:, 0] * prepared.width + rc[:, 1]).argsort()]
