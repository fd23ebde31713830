"""A random forest beside the branches: decision trees as plain tensors, so that a checkpoint holds them without pickle.

Few labels and several hundred statistics of a pixel's surroundings are what forests are good at, and their errors are not those of
a network. scikit-learn grows the trees (Breiman, Machine Learning 45, 2001); here they are stored and walked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import ops

TABLES = ("feature", "threshold", "child", "share", "root")
"""The buffers that `bdgf_fast.ops.decision_forest` takes, in its order."""


class Forest(nn.Module):
    """``fit`` once, then ``forward``: x (n, S) float32 -> class probabilities (n, classes), the mean over the trees' leaves.

    The nodes of all trees stand in one table; a leaf is its own child on both sides.
    """

    feature: Tensor
    threshold: Tensor
    child: Tensor
    share: Tensor
    root: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("feature", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("child", torch.zeros(0, 2, dtype=torch.int32))
        self.register_buffer("share", torch.zeros(0, classes))
        self.register_buffer("root", torch.zeros(0, dtype=torch.int32))

    def fit(self, x: Tensor, target: Tensor, trees: int, seed: int, extra: bool = False) -> None:
        """Grow ``trees`` trees on x (n, S) and its classes (n,); O(trees sqrt(S) n log^2 n).

        ``extra``: extremely randomised trees (Geurts et al., Machine Learning 63, 2006), whose thresholds are drawn, not sought.
        """
        from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

        kind = ExtraTreesClassifier if extra else RandomForestClassifier
        grown = kind(trees, random_state=seed % 2**32, n_jobs=torch.get_num_threads())
        grown.fit(x.cpu().numpy(), target.cpu().numpy())
        tables: dict[str, list[Any]] = {name: [] for name in TABLES}
        first = 0
        for tree in (estimator.tree_ for estimator in grown.estimators_):
            inner = tree.children_left >= 0
            own = np.arange(tree.node_count)
            tables["feature"].append(np.where(inner, tree.feature, 0))
            # trees compare float32 values with float64 thresholds: rounded down, the comparison stays the same
            tables["threshold"].append(_round_down(tree.threshold))
            sides = [np.where(inner, side, own) for side in (tree.children_left, tree.children_right)]
            tables["child"].append(np.stack(sides, 1) + first)
            share = np.zeros((tree.node_count, self.classes), np.float32)
            share[:, grown.classes_] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
            tables["share"].append(share)
            tables["root"].append([first])
            first += tree.node_count
        for name, parts in tables.items():
            current = getattr(self, name)
            setattr(self, name, torch.from_numpy(np.concatenate(parts)).to(current))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """O(n trees depth)."""
        return ops.decision_forest(x.float(), *(getattr(self, name) for name in TABLES))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Take the stored sizes: they are not known before the trees are grown."""
        for name, buffer in self._buffers.items():
            stored = state_dict.get(prefix + name)
            if stored is not None and buffer is not None:
                setattr(self, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _round_down(values: np.ndarray) -> np.ndarray:
    """float64 -> the nearest float32 that is not greater."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
