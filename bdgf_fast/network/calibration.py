"""Probabilities that mean what they say: one temperature of the fused prediction (Guo et al., "On calibration of modern neural
networks", 2017). It is monotone: which class is the likeliest does not change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import checkpoint as ckpt

TINY = 1e-12
"""Least probability whose logarithm is taken."""
LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a fitted temperature."""


@dataclass(frozen=True)
class Calibration:
    """What turns a network's fused probabilities into those it gives; stored in its checkpoint."""

    temperature: float = 1.0
    """Divides the fused log-probabilities."""
    prior: tuple[float, ...] | None = None
    """Share of each class among the training labels, which the losses saw; None in checkpoints of earlier versions."""
    fitted_on: str = "none"
    """Where the labels came from that the temperature was fitted on: "validation", "held-out blocks" or "none"."""
    pixels: int = 0
    """How many they were."""

    @classmethod
    def of(cls, network: Any) -> Calibration:
        """That of a network; one without has temperature 1."""
        return getattr(network, "calibration", UNCALIBRATED)

    @classmethod
    def from_meta(cls, stored: dict[str, Any] | None) -> Calibration:
        """From a checkpoint's ``calibration``; None stands in those of earlier versions."""
        return UNCALIBRATED if stored is None else cls(**{**stored, "prior": tuple(stored["prior"])})

    def apply(self, probabilities: Tensor, dim: int) -> Tensor:
        """Calibrated probabilities, the classes along ``dim``; pixels with 0 for every class keep it."""
        return tempered(probabilities, self.temperature, dim)

    def undo(self, probabilities: Tensor, dim: int) -> Tensor:
        """What ``apply`` was given."""
        return tempered(probabilities, 1 / self.temperature, dim)


UNCALIBRATED = Calibration()


def tempered(probabilities: Tensor, temperature: float, dim: int) -> Tensor:
    """p^(1 / temperature), divided by its sum along ``dim``; 0 for every class stays 0."""
    if temperature == 1:
        return probabilities
    found = (probabilities.clamp(min=TINY).log() / temperature).softmax(dim)
    return torch.where(probabilities.sum(dim, keepdim=True) > 0, found, 0)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The temperature with the least negative log-likelihood on n labelled pixels; 1 where there is none.

    Args:
        probabilities: (n, K), of a prediction that has not learned from these labels.
        truth: class indices (n,).
        weight: of each pixel (n,); None = all alike.

    The likelihood is concave in 1 / temperature, so the search has one end.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(truth):
        return 1.0
    log = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY))
    own = log[np.arange(len(truth)), np.asarray(truth)]
    weight = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)

    def loss(inverse: float) -> float:
        return float(weight @ (logsumexp(inverse * log, axis=1) - inverse * own) / weight.sum())

    return float(1 / minimize_scalar(loss, bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded", options={"xatol": 1e-4}).x)


def store(path: Path | str, kind: str, calibration: Calibration) -> None:
    """Write the calibration into the network's checkpoint, which stays whole if the process is killed meanwhile."""
    tensors, meta = ckpt.load(path, kind)
    ckpt.save(path, kind, tensors, {**meta, "calibration": dataclasses.asdict(calibration)})
