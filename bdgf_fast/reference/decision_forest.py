"""Decision forests by their definition: every row walks every tree."""

from __future__ import annotations

import torch
from torch import Tensor

BATCH = 4096
"""Rows walked at once: (BATCH, trees) indices and (BATCH, trees, K) shares are held."""


def decision_forest(x: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, share: Tensor, root: Tensor) -> Tensor:
    """The mean over the trees of the shares of the leaf that each row reaches; see `bdgf_fast.ops.decision_forest`."""
    feature, child, root = feature.long(), child.long().reshape(-1), root.long()  # what torch takes as indices
    return torch.cat([_mean_share(part, feature, threshold, child, share, root) for part in x.split(BATCH)])


def _mean_share(x: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, share: Tensor, root: Tensor) -> Tensor:
    node = root.expand(len(x), -1)
    while True:
        right = x.gather(1, feature[node]) > threshold[node]  # NaN compares false and goes left
        following = child[2 * node + right]
        if torch.equal(following, node):  # every row has reached its leaves, which are their own children
            return share[node].mean(1)
        node = following
