"""Random numbers as functions of a seed, a purpose and a step."""

from __future__ import annotations

import numpy as np

SEEDS = 2**32
"""Seeds lie below this: scikit-learn takes no larger ones."""
DRAWS = {
    "crops": 1,
    "augmentation": 2,
    "timesteps": 3,
    "masks": 4,
    "influence": 5,
    "evaluation": 6,
    "weights": 7,
    "batches": 8,
    "noise": 9,
    "features": 10,
    "windows": 11,
    "hidden": 12,
}


def generator(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """Random numbers that are a function of (seed, purpose, step) alone: nothing has to be stored to resume exactly."""
    return np.random.default_rng([seed % 2**64, DRAWS[purpose], step])
