"""Forests on the same pixels, bands and normalisation.

A random forest on simple statistics of a pixel's surroundings is a strong and cheap opponent in this field; a method that does
not beat it should say so. The statistics at several radii are those that the dense network's heads see, and reach as far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import Tile
from ..network.context import Context
from ..network.statistics import fit_context, statistics_at

FOREST, EXTRA = "random forest", "extra trees"
PIXEL, PATCH, RADII, RADII_AND_FEATURES = (
    "pixel", "patch statistics", "statistics at several radii", "statistics at several radii, bands and features",
)  # fmt: skip


def _features(
    prepared: PreparedScene, rc: torch.Tensor, config: Config, kind: str, tile: Tile | None, context: Context | None
) -> np.ndarray:
    if kind == PIXEL:
        return prepared.patches(rc, 1)[:, :, 0, 0].numpy()
    if context is not None:
        return statistics_at(prepared, tile, config.model, rc, config.features.tile, context).numpy()
    patch = config.data.patch
    patches = prepared.patches(rc, patch)
    centre = patches[:, :, patch // 2, patch // 2]
    return torch.cat([patches.mean((2, 3)), patches.std((2, 3)), centre], 1).numpy()


@dataclass(frozen=True)
class Grown:
    """A forest that was fitted on one scene, for this or another one with the same normalisation."""

    forest: Any
    config: Config
    kind: str
    context: Context | None

    def predict(self, prepared: PreparedScene, rc: torch.Tensor, tile: Tile | None = None, batch: int = 16384) -> np.ndarray:
        """Class indices int64 (n,) of the pixels ``rc`` int64 (n, 2); ``batch`` pixels' statistics are held at once."""
        return self.forest.classes_[self.probabilities(prepared, rc, tile, batch).argmax(1)]

    def probabilities(self, prepared: PreparedScene, rc: torch.Tensor, tile: Tile | None = None, batch: int = 16384) -> np.ndarray:
        """Class probabilities float64 (n, k) of the same pixels, of the k classes in ``forest.classes_``."""
        parts = (_features(prepared, part, self.config, self.kind, tile, self.context) for part in rc.split(batch))
        return np.concatenate([self.forest.predict_proba(part) for part in parts])


def grow(
    prepared: PreparedScene, *, config: Config, kind: str, seed: int, grower: str = FOREST, tile: Tile | None = None,
    trees: int = 300,
) -> Grown:  # fmt: skip
    """Fit a forest on the training pixels of the split of ``prepared``; arguments as for ``random_forest``."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    if kind not in (PIXEL, PATCH, RADII, RADII_AND_FEATURES):
        raise ValueError(f"kind is {kind!r}; it takes one of {(PIXEL, PATCH, RADII, RADII_AND_FEATURES)}")
    if kind == RADII_AND_FEATURES and tile is None:
        raise ValueError(f"{kind!r} needs the features' maps: tile")
    assert prepared.split is not None, "the scene has no split: make one with make_split and prepare"
    train = torch.as_tensor(prepared.split.train)
    context = None
    if kind in (RADII, RADII_AND_FEATURES):
        context = Context(prepared.channels, config.model.context)
        fit_context(context, prepared, config)
    made = {FOREST: RandomForestClassifier, EXTRA: ExtraTreesClassifier}[grower]
    forest = made(trees, random_state=seed, n_jobs=torch.get_num_threads())
    forest.fit(_features(prepared, train, config, kind, tile, context), prepared.labels[train[:, 0], train[:, 1]].numpy())
    return Grown(forest, config, kind, context)


def random_forest(
    prepared: PreparedScene, rc: torch.Tensor, *, config: Config, kind: str, seed: int, grower: str = FOREST,
    tile: Tile | None = None, trees: int = 300, batch: int = 16384,
) -> np.ndarray:  # fmt: skip
    """Fit a forest on the split's training pixels and classify the pixels ``rc`` int64 (n, 2).

    Args:
        prepared: the normalised scene with its split (see `bdgf_fast.data.prepare`).
        config: ``data.patch`` and the radii of ``model``.
        kind: "pixel" (the bands of one pixel), "patch statistics" (mean, standard deviation, centre), "statistics at several
            radii" (what the dense network's heads see of the bands) or these of "bands and features".
        seed: random_state of the forest.
        grower: "random forest" or "extra trees" (extremely randomised trees).
        tile: the features' maps, where they are asked for.
        trees: number of trees.
        batch: pixels whose features are held at once.

    Returns class indices int64 (n,).
    """
    tile = tile if kind == RADII_AND_FEATURES else None
    grown = grow(prepared, config=config, kind=kind, seed=seed, grower=grower, tile=tile, trees=trees)
    return grown.predict(prepared, rc, tile, batch)
