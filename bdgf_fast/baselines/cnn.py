"""A residual CNN on the stacked bands, without diffusion features.

It is the group network's CNN branch alone, unguided, in the same training loop: the same rotations, noise, label smoothing,
schedule and averaged weights as the method, so that the difference is the method's and not the loop's. Its head is a plain
one, without statistics and dropout, with which it does better, and it is trained four times as long, without which it does worse.
"""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..data.prepared import PreparedScene
from ..network.train import Network, train


def residual_cnn(prepared: PreparedScene, config: Config, seed: int, **how: Any) -> tuple[Network, None]:
    """Train it on the split's training pixels; ``how`` goes to ``train`` (checkpoint, resume, progress, device)."""
    plain = ["model.statistics=false", "model.dropout=0", f"model.hidden={config.model.width}"]
    longer = 4 if config.model.mode == "dense" else 1
    plain.append(f"train.epochs={longer * config.train.epochs}")
    config = config.override("model.branches=[cnn]", "model.guide_cnn=none", *plain)
    network, _ = train(prepared, None, config, seed=seed, **how)
    return network, None
