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
RIDGE = 0.01
"""Weight of the squared biases beside the mean log-likelihood; chosen on splits 0 to 2 of the Sentinel tile."""


@dataclass(frozen=True)
class Calibration:
    """What turns a network's fused probabilities into those it gives; stored in its checkpoint."""

    temperature: float = 1.0
    """Divides the fused log-probabilities."""
    prior: tuple[float, ...] | None = None
    """Share of each class among the training labels, which the losses saw; None in checkpoints of earlier versions."""
    power: float = 1.0
    """The fused probabilities to this power, times e^``bias``, are what class shares are estimated from and corrected in: one
    temperature leaves what a class is over- or underrated by, and that would be taken for its share (Alexandari, Kundaje and
    Shrikumar, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation", 2020)."""
    bias: tuple[float, ...] | None = None
    """Of each class; None = 0."""
    fitted_on: str = "none"
    """Where the labels came from: "validation part", "squares left out in turn" or "none"."""
    pixels: int = 0
    """How many they were."""

    @classmethod
    def of(cls, network: Any) -> Calibration:
        """That of a network; one without has temperature 1."""
        return getattr(network, "calibration", UNCALIBRATED)

    @classmethod
    def from_meta(cls, stored: dict[str, Any] | None) -> Calibration:
        """From a checkpoint's ``calibration``; None stands in those of earlier versions."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in (stored or {}).items()
        }
        return cls(**known)

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


def fit_bias(probabilities: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Power and bias (K,) by which the probabilities fit n labelled pixels best, see ``Calibration``; arguments as for
    ``fit_temperature``. ``RIDGE`` holds the biases, of which there are many for few labels."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    log = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY))
    own, share = np.arange(len(truth)), np.asarray(weight, np.float64) / np.sum(weight)

    def loss(values: np.ndarray) -> float:
        said = values[0] * log + values[1:]
        return float(share @ (logsumexp(said, axis=1) - said[own, truth]) + RIDGE * (values[1:] ** 2).sum())

    found = minimize(loss, np.r_[1.0, np.zeros(log.shape[1])], bounds=[(1 / HIGHEST, 1 / LOWEST)] + [(None, None)] * log.shape[1]).x
    return float(found[0]), found[1:]


def store(path: Path | str, kind: str, calibration: Calibration) -> None:
    """Write the calibration into the network's checkpoint, which stays whole if the process is killed meanwhile."""
    tensors, meta = ckpt.load(path, kind)
    ckpt.save(path, kind, tensors, {**meta, "calibration": dataclasses.asdict(calibration)})
