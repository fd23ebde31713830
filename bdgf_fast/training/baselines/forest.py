"""Random forests on the same pixels, bands and normalisation.

A random forest on the patch's mean, standard deviation and centre is a strong and cheap opponent in this field; a
method that does not beat it should say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FEATURES = ("pixel", "patch statistics")


def _features(prepared: Any, rc: torch.Tensor, patch: int, kind: str) -> np.ndarray:
    if kind == "pixel":
        return prepared.patches(rc, 1)[:, :, 0, 0].numpy()
    patches = prepared.patches(rc, patch)
    centre = patches[:, :, patch // 2, patch // 2]
    return torch.cat([patches.mean((2, 3)), patches.std((2, 3)), centre], 1).numpy()


def random_forest(
    prepared: Any, rc: torch.Tensor, *, patch: int, kind: str, seed: int, trees: int = 300, batch: int = 4096
) -> np.ndarray:
    """Fit a random forest on the split's training pixels and classify the pixels ``rc`` int64 (n, 2).

    Args:
        prepared: the normalised scene with its split (see `bdgf_fast.data.prepare`).
        patch: side of the patch in pixels (ignored by "pixel").
        kind: "pixel" (the bands of one pixel) or "patch statistics" (mean, standard deviation, centre).
        seed: random_state of the forest.
        trees: number of trees.
        batch: pixels whose features are held at once.

    Returns class indices int64 (n,).
    """
    from sklearn.ensemble import RandomForestClassifier

    if kind not in FEATURES:
        raise ValueError(f"kind is {kind!r}; takes one of {FEATURES}")
    train = torch.as_tensor(prepared.split.train)
    forest = RandomForestClassifier(trees, random_state=seed, n_jobs=torch.get_num_threads())
    forest.fit(_features(prepared, train, patch, kind), prepared.labels[train[:, 0], train[:, 1]].numpy())
    return np.concatenate([forest.predict(_features(prepared, part, patch, kind)) for part in rc.split(batch)])
