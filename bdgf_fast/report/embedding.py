"""t-SNE of what the branches see: pooled features of a few hundred test pixels, for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import FeatureSource
from ..files.atomic import atomic
from ..network.predict import Network, predict_pixels

EMBEDDING = "tsne.npz"
PIXELS, FEWEST = 400, 30
FUSION = "fusion"


def pooled_features(
    network: Network, features: FeatureSource | None, prepared: PreparedScene, config: Config, rc: Tensor
) -> dict[str, np.ndarray]:
    """Features of the pixels rc int64 (n, 2): {branch: float32 (n, hidden)}, and where there are several branches their
    ``fusion``, the concatenation with every branch divided by its overall deviation."""
    prediction = predict_pixels(network, features, prepared, config, rc, keep_features=True, refined=False)
    found = {name: values.numpy() for name, values in prediction.features.items()}
    if len(found) > 1:
        found[FUSION] = np.concatenate([(f - f.mean(0)) / max(f.std(), 1e-12) for f in found.values()], 1)
    return found


def embed(
    network: Network, features: FeatureSource | None, prepared: PreparedScene, config: Config, rc: Tensor, seed: int, path: Path
) -> None:
    """Write ``path`` (.npz): the labels ``truth`` int64 (n,) of at most ``PIXELS`` random pixels of rc, and their t-SNE float32
    (n, 2) per branch and of the fusion. Too few pixels leave no file."""
    from sklearn.manifold import TSNE

    path.unlink(missing_ok=True)
    chosen = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(rc))[:PIXELS]))
    if len(chosen) < FEWEST:
        return
    rc = rc[chosen]
    maps = {}
    for name, values in pooled_features(network, features, prepared, config, rc).items():
        perplexity = min(30.0, (len(rc) - 1) / 3)
        maps[name] = TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=seed).fit_transform(values)
    with atomic(path) as beside:
        np.savez_compressed(beside, truth=prepared.labels[rc[:, 0], rc[:, 1]].numpy(), **maps)
