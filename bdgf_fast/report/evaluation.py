"""Accuracy of a network on labelled pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.progress import Progress
from ..config import Config
from ..features.source import FeatureSource
from ..network.predict import Prediction, predict_pixels
from ..network.train import Network
from .metrics import accuracy


def evaluate(
    network: Network,
    features: FeatureSource | None,
    prepared: Any,
    config: Config,
    rc: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy on the pixels rc (default: the split's test side).

    Returns ``overall_accuracy``, ``average_accuracy``, ``kappa``, ``per_class``, ``confusion_matrix``, of the branches
    ``branches`` and ``diversity``, and ``by_distance`` (see ``metrics``). Nothing is selected by these figures.
    """
    rc = torch.as_tensor(prepared.split.test if rc is None else rc, dtype=torch.int64)
    return score(prepared, rc, predicted_labels(predict_pixels(network, features, prepared, config, rc, progress)))


def predicted_labels(prediction: Prediction) -> dict[str, np.ndarray]:
    """Class indices (n,) of the fused prediction, as ``fused``, and of every branch."""
    branches = {name: labels.numpy() for name, labels in prediction.labels.items()}
    return {"fused": prediction.probabilities.argmax(1).numpy(), **branches}


def score(prepared: Any, rc: Tensor, labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """``metrics.accuracy`` of labels at the pixels rc int64 (n, 2) of a scene with a split."""
    truth = prepared.labels[rc[:, 0], rc[:, 1]].numpy()
    return accuracy(truth, labels, len(prepared.classes), torch.as_tensor(prepared.split.train).numpy(), rc.numpy())
