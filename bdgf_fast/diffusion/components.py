"""Principal components of features, fitted in one pass over a scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def principal_axes(samples: Iterable[Sequence[Tensor]], channels: int) -> list[tuple[Tensor, Tensor]]:
    """Principal components of several groups of variables, fitted on the same pixels and divided by one common factor.

    Args:
        samples: parts of the pixels, each with one (n, C_k) for every group k.
        channels: components kept of a group, at most.

    Returns for every group (weight (c, C_k), bias (c,)) with y = weight x + bias centred; the mean variance over all kept
    components is 1. float64 sums; O(pixels * channels^2). Raises ValueError for fewer than two pixels.
    """
    sums: list[list[Tensor]] = []
    count = 0
    for values in samples:
        parts = [[x.double().sum(0), x.double().T @ x.double()] for x in values]
        sums = parts if not sums else [[a + b for a, b in zip(old, new, strict=True)] for old, new in zip(sums, parts, strict=True)]
        count += len(values[0])
    if count < 2:
        raise ValueError("the features are fitted on the training side, which has fewer than 2 valid pixels")
    found, spread = [], []
    for total, outer in sums:
        mean = total / count
        values, vectors = torch.linalg.eigh(outer / count - mean[:, None] * mean)
        kept = min(channels, len(values))
        axes = vectors[:, -kept:].flip(1).T
        axes = axes * axes[torch.arange(kept), axes.abs().argmax(1)].sign()[:, None]  # eigenvectors have no sign of their own
        found.append((axes, -(axes @ mean)))
        spread.append(values[-kept:].clamp(min=0))
    factor = torch.cat(spread).mean().sqrt().clamp(min=1e-12)
    return [((axes / factor).float(), (bias / factor).float()) for axes, bias in found]
