"""Baselines in the method's own harness: the same split, normalisation, training loop and scoring.

The residual CNN and the dual-branch denoiser take the form of the network that ``model.mode`` names; channel exchange is a network
over patches, trained as such.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.progress import Progress
from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import tiles_of
from ..network.predict import predict_pixels
from .channel_exchange import channel_exchange
from .cnn import residual_cnn
from .dual_denoiser import dual_denoiser
from .forest import EXTRA, FOREST, PATCH, PIXEL, RADII, RADII_AND_FEATURES, random_forest

_GROWN = ((FOREST, PIXEL), (FOREST, PATCH), (FOREST, RADII), (EXTRA, RADII))
FORESTS = {f"{grower}, {kind}": (grower, kind) for grower, kind in _GROWN}
GUIDED_FOREST = f"{FOREST}, {RADII_AND_FEATURES}"
"""Needs the method's own features."""
CNN, EXCHANGE, DUAL = "residual CNN", "channel exchange", "dual-branch denoiser"
NETWORKS = (CNN, EXCHANGE, DUAL)


def available(modalities: int) -> list[str]:
    """Names of the baselines for a scene; fusion methods need two modalities."""
    return [*FORESTS, GUIDED_FOREST, *(NETWORKS if modalities > 1 else (CNN,))]


def predict_baseline(
    name: str,
    prepared: PreparedScene,
    config: Config,
    seed: int,
    rc: Tensor,
    *,
    denoiser: Callable[[str], Any] | None = None,
    features: Callable[[], Any] | None = None,
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> np.ndarray:
    """Train the baseline ``name`` on the split's training pixels and classify ``rc`` int64 (n, 2): class indices (n,).

    Args:
        denoiser: the trained denoiser of one modality by its name; the dual-branch denoiser needs it.
        features: gives the method's feature source; the forest on features needs it.
        checkpoint: file of the network; an interrupted training goes on from it. Forests leave none.
    """
    if name in FORESTS:
        grower, kind = FORESTS[name]
        return random_forest(prepared, rc, config=config, kind=kind, seed=seed, grower=grower)
    if name == GUIDED_FOREST:
        if features is None:
            raise ValueError(f"{GUIDED_FOREST} needs the method's features")
        return random_forest(prepared, rc, config=config, kind=RADII_AND_FEATURES, seed=seed, tile=tiles_of(features()))
    how = {"checkpoint": checkpoint, "resume": True, "device": device, "progress": progress}
    network: Any
    source: Any
    if name == DUAL:
        if denoiser is None:
            raise ValueError(f"{DUAL} needs the denoisers of the single modalities")
        network, source = dual_denoiser(prepared, config, seed, denoiser=denoiser, **how)
    else:
        network, source = {CNN: residual_cnn, EXCHANGE: channel_exchange}[name](prepared, config, seed, **how)
    return predict_pixels(network, source, prepared, config, rc).probabilities.argmax(1).numpy()
