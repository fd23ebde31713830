"""Class shares of a scene, and probabilities corrected by them.

Training samples are drawn per class, so a network expects classes in the shares of its training labels; a scene has others. With
calibrated probabilities its shares can be estimated without labels, by expectation-maximisation (Saerens, Latinne and Decaestecker,
"Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 14, 2002).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import UserError, closest
from .calibration import TINY, Calibration

SAMPLE, SEED = 200_000, 0
"""Pixels whose probabilities the shares are estimated from, at most, drawn from the whole scene with this seed. The sampling error
of a share is 0.1 points at most."""
ROUNDS, TOLERANCE = 2000, 1e-6


def estimate_shares(probabilities: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Class shares (K,) of the pixels with calibrated ``probabilities`` (n, K), given the shares ``prior`` (K,) of the labels that
    the classifier learned from. O(rounds n K)."""
    p, prior = np.asarray(probabilities, np.float64), np.asarray(prior, np.float64)
    found = prior
    for _ in range(ROUNDS):
        ratio = found / prior
        before, found = found, ratio * ((1 / (p @ ratio)) @ p) / len(p)
        if np.abs(found - before).max() < TOLERANCE:
            break
    return found


def corrected(probabilities: np.ndarray, ratio: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Probabilities (K, ...) under other class shares: to a ``power``, times ``ratio`` (K,), new shares over old, divided by their
    sum; 0 for every class stays 0."""
    ratio = np.asarray(ratio, np.float32).reshape(-1, *(1,) * (probabilities.ndim - 1))
    found = np.maximum(probabilities, TINY) ** np.float32(power) * ratio
    return np.where(probabilities.any(0), found / found.sum(0), 0).astype(np.float32)


def named_shares(asked: str | Mapping[str, float], names: Sequence[str]) -> np.ndarray | None:
    """The shares (K,) that a person gave by class name, 0 for a class that is left out; None for "train" and "scene". Raises
    UserError."""
    if isinstance(asked, str):
        return None
    for name in asked:
        if name not in names:
            raise UserError(f"predict.priors names no class of this scene: {name!r}{closest(name, names)}; "
                            f"the classes are: {', '.join(names)}")  # fmt: skip
    return np.array([asked.get(name, 0.0) for name in names]) / sum(asked.values())


@dataclass
class Priors:
    """The class shares that a map goes by.

    Attributes: ``asked``, the setting; ``training`` (K,), the shares among the training labels, None where the checkpoint does not
    know them; ``estimated`` (K,), the scene's shares by expectation-maximisation, None without the former; ``given`` (K,), those of
    the setting; ``power`` and ``factor`` (K,), by which calibrated probabilities are made ready for other shares; ``pixels``, how
    many the shares were estimated from.
    """

    asked: str | Mapping[str, float]
    training: np.ndarray | None
    estimated: np.ndarray | None
    given: np.ndarray | None
    power: float
    factor: np.ndarray
    pixels: int

    @property
    def ratio(self) -> np.ndarray | None:
        """What the probabilities are multiplied by; None where they stay as they are."""
        if self.asked == "train" or self.training is None:
            return None
        shares = self.estimated if self.given is None else self.given
        return None if shares is None else self.factor * shares / self.training

    def correct(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (K, ...) under these shares."""
        return probabilities if self.ratio is None else corrected(probabilities, self.ratio, self.power)

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """JSON-able, for a report."""

        def by_name(shares: np.ndarray | None) -> dict[str, float] | None:
            return None if shares is None else dict(zip(names, map(float, shares), strict=True))

        asked = self.asked if isinstance(self.asked, str) else "given"
        return {"asked": asked, "training": by_name(self.training), "estimated": by_name(self.estimated),
                "given": by_name(self.given), "power": self.power, "factor": by_name(self.factor), "pixels": self.pixels,
                "seed": SEED}  # fmt: skip

    @classmethod
    def from_facts(cls, stored: Mapping[str, Any]) -> Priors:
        """Inverse of ``facts``."""

        def shares(name: str) -> np.ndarray | None:
            return None if stored[name] is None else np.array(list(stored[name].values()))

        asked = stored["given"] if stored["asked"] == "given" else stored["asked"]
        factor = np.array(list(stored["factor"].values()))
        return cls(asked, shares("training"), shares("estimated"), shares("given"), stored["power"], factor, stored["pixels"])


def settle_priors(
    asked: str | Mapping[str, float], calibration: Calibration, names: Sequence[str], shape: tuple[int, int],
    parts: Iterable[tuple[int, int, np.ndarray]],
) -> Priors:  # fmt: skip
    """The priors of a scene's map.

    Args:
        asked: ``predict.priors``. names: of the classes. shape: of the scene.
        parts: upper left pixel and calibrated probabilities (K, h, w) of each block, 0 for every class where there is no value.

    Holds one block and ``SAMPLE`` pixels at a time. Raises UserError.
    """
    given = named_shares(asked, names)
    if calibration.prior is None:
        if asked != "train":
            raise UserError("predict.priors: this network was trained by an earlier version, which did not keep the class "
                            "shares of its training labels; train again with `bdgf-fast train`")  # fmt: skip
        return Priors(asked, None, None, given, 1.0, np.ones(len(names)), 0)
    training = np.array(calibration.prior)
    total = shape[0] * shape[1]
    drawn = np.random.default_rng(SEED).choice(total, min(SAMPLE, total), replace=False, shuffle=False)
    rows, columns = np.divmod(drawn, shape[1])
    pixels = np.zeros((len(drawn), len(names)), np.float32)
    for y, x, block in parts:
        inside = (rows >= y) & (rows < y + block.shape[1]) & (columns >= x) & (columns < x + block.shape[2])
        pixels[inside] = block[:, rows[inside] - y, columns[inside] - x].T
    pixels = pixels[pixels.any(1)]
    power = calibration.temperature * calibration.power  # the pixels have their temperature already
    factor = np.ones(len(names)) if calibration.bias is None else np.exp(calibration.bias)
    estimated = estimate_shares(corrected(pixels.T, factor, power).T, training) if len(pixels) else training
    return Priors(asked, training, estimated, given, power, factor, len(pixels))


def confidences(found: np.ndarray, calibration: Calibration, priors: Priors) -> dict[str, np.ndarray]:
    """How sure the prediction of n pixels is: the class ``label`` under the training labels' shares, its probability ``calibrated``
    and ``uncalibrated``, and the probability ``written`` of the class that the map says, each (n,).

    Args:
        found: calibrated probabilities (K, n).
    """
    before = calibration.undo(torch.from_numpy(found), 0).amax(0).numpy()
    return {"label": found.argmax(0), "calibrated": found.max(0), "uncalibrated": before, "written": priors.correct(found).max(0)}
