"""Baselines that a report shows beside the method: random forests on the same pixels, bands and normalisation.

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
    prepared: Any, split: Any, *, patch: int, kind: str, seed: int, trees: int = 300, batch: int = 4096
) -> dict[str, float]:
    """Fit a random forest on the training pixels and score it on the test pixels.

    Args:
        prepared: the normalised scene (see `bdgf_fast.data.prepare`).
        split: its training and test pixels.
        patch: side of the patch in pixels (ignored by "pixel").
        kind: "pixel" (the bands of one pixel) or "patch statistics" (mean, standard deviation, centre).
        seed: random_state of the forest.
        trees: number of trees.
        batch: test pixels whose features are held at once.

    Returns:
        overall_accuracy, average_accuracy and kappa on the test side.
    """
    from sklearn.ensemble import RandomForestClassifier

    from .metrics import scores

    if kind not in FEATURES:
        raise ValueError(f"kind is {kind!r}; takes one of {FEATURES}")
    labels = prepared.labels
    forest = RandomForestClassifier(trees, random_state=seed, n_jobs=torch.get_num_threads())
    forest.fit(_features(prepared, split.train, patch, kind), labels[split.train[:, 0], split.train[:, 1]].numpy())
    predicted = np.concatenate([forest.predict(_features(prepared, rc, patch, kind)) for rc in split.test.split(batch)])
    truth = labels[split.test[:, 0], split.test[:, 1]].numpy()
    result = scores(truth, predicted, len(prepared.classes))
    return {name: result[name] for name in ("overall_accuracy", "average_accuracy", "kappa")}
