"""Accuracy of a network on labelled pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.progress import Progress
from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import FeatureSource
from ..network.predict import Prediction, predict_pixels
from ..network.priors import Priors
from ..network.train import Network
from .metrics import accuracy


def evaluate(
    network: Network,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    rc: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy on the pixels rc (default: the split's test side).

    Returns ``overall_accuracy``, ``average_accuracy``, ``kappa``, ``per_class``, ``confusion_matrix``, of the branches
    ``branches`` and ``diversity``, and ``by_distance`` (see ``metrics``). Nothing is selected by these figures.
    """
    if rc is None:
        assert prepared.split is not None, "the scene has no split: make one with make_split and prepare"
        rc = prepared.split.test
    rc = torch.as_tensor(rc, dtype=torch.int64)
    return score(prepared, rc, predicted_labels(predict_pixels(network, features, prepared, config, rc, progress)))


def predicted_labels(prediction: Prediction, priors: Priors | None = None) -> dict[str, np.ndarray]:
    """Class indices (n,) of the fused prediction under the class shares ``priors``, as ``fused``, and of every branch."""
    fused = prediction.probabilities.numpy().T
    branches = {name: labels.numpy() for name, labels in prediction.labels.items()}
    return {"fused": (fused if priors is None else priors.correct(fused)).argmax(0), **branches}


def score(prepared: PreparedScene, rc: Tensor, labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """``metrics.accuracy`` of labels at the pixels rc int64 (n, 2); without a split nothing is known of distances."""
    truth = prepared.labels[rc[:, 0], rc[:, 1]].numpy()
    train = None if prepared.split is None else torch.as_tensor(prepared.split.train).numpy()
    return accuracy(truth, labels, len(prepared.classes), train, rc.numpy())
