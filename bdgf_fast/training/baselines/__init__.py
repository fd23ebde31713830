"""Baselines in the method's own harness: the same split, normalisation, patches, training loop and scoring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config import Config
from ..predict import predict_pixels
from .channel_exchange import channel_exchange
from .cnn import residual_cnn
from .dual_denoiser import dual_denoiser
from .forest import FEATURES, random_forest

FORESTS = {f"random forest, {kind}": kind for kind in FEATURES}
CNN, EXCHANGE, DUAL = "residual CNN", "channel exchange", "dual-branch denoiser"
NETWORKS = (CNN, EXCHANGE, DUAL)


def available(modalities: int) -> list[str]:
    """Names of the baselines for a scene; fusion methods need two modalities."""
    return [*FORESTS, *(NETWORKS if modalities > 1 else (CNN,))]


def predict_baseline(
    name: str,
    prepared: Any,
    config: Config,
    seed: int,
    rc: Tensor,
    *,
    denoiser: Callable[[str], Any] | None = None,
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> np.ndarray:
    """Train the baseline ``name`` on the split's training pixels and classify ``rc`` int64 (n, 2): class indices (n,).

    Args:
        denoiser: the trained denoiser of one modality by its name; the dual-branch denoiser needs it.
        checkpoint: file of the network; an interrupted training goes on from it. Forests leave none.
    """
    if name in FORESTS:
        return random_forest(prepared, rc, patch=config.data.patch, kind=FORESTS[name], seed=seed)
    how = {"checkpoint": checkpoint, "resume": True, "device": device, "progress": progress}
    network: Any
    features: Any
    if name == DUAL:
        if denoiser is None:
            raise ValueError(f"{DUAL} needs the denoisers of the single modalities")
        network, features = dual_denoiser(prepared, config, seed, denoiser=denoiser, **how)
    else:
        network, features = {CNN: residual_cnn, EXCHANGE: channel_exchange}[name](prepared, config, seed, **how)
    return predict_pixels(network, features, prepared, config, rc).probabilities.argmax(1).numpy()
