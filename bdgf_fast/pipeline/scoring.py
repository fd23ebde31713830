"""What a run says of its test pixels: kept from the map where that is what is scored, else predicted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..data import PreparedScene
from ..features.source import FeatureSource
from ..files.atomic import atomic
from ..network.calibration import Calibration
from ..network.predict import predict, predict_pixels
from ..network.priors import Priors, confidences, settle_priors
from ..report.evaluation import predicted_labels
from ..report.metrics import METRICS, scores
from ..report.reliability import calibration_report
from .run_directory import RunDirectory

LABELS, CONFIDENCE = "labels.npz", "confidence."


@dataclass
class Scored:
    """Of n test pixels the class indices ``labels`` (n,) of the fused prediction and of every member, the ``confidence`` of
    `network.priors.confidences`, and the class ``priors`` they go by."""

    labels: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    priors: Priors


def is_scored(facts: dict[str, Any], config: Config) -> bool:
    """Whether a map with these facts says of the test pixels what is scored: not a coarse map, nor one that was computed in another
    precision or refined in other rounds."""
    made = facts.get("stride"), facts.get("precision"), facts.get("refine", 0)
    return made == (1, config.predict.precision, config.predict.refine)


def keep(directory: RunDirectory, config: Config, facts: dict[str, Any], found: Any) -> None:
    """Keep what an assembled map says of the test pixels, where that is what is scored."""
    path = directory.checkpoints / LABELS
    if not is_scored(facts, config):
        path.unlink(missing_ok=True)
        return
    confidence: dict[str, Any] = {CONFIDENCE + name: values for name, values in found.confidence.items()}
    with atomic(path) as beside:
        np.savez_compressed(beside, **found.labels, **confidence)


def score_pixels(
    directory: RunDirectory, prepared: PreparedScene, config: Config, network: Any, features: FeatureSource | None,
    rc: torch.Tensor, progress: Callable,
) -> Scored:  # fmt: skip
    """What is said of the test pixels rc int64 (n, 2): under the class shares that the run's map goes by, where there is one, else
    under those of its setting."""
    facts, path = directory.facts("predict"), directory.checkpoints / LABELS
    if "priors" not in facts:
        priors = _priors(prepared, config, network, features)
    else:
        priors = Priors.from_facts(facts["priors"])
        if path.exists():
            return _kept(path, priors)
    prediction = predict_pixels(network, features, prepared, config, rc, progress)
    confidence = confidences(prediction.probabilities.T.numpy(), Calibration.of(network), priors)
    return Scored(predicted_labels(prediction, priors), confidence, priors)


def _kept(path: Path, priors: Priors) -> Scored:
    with np.load(path) as stored:
        found = {name: stored[name] for name in stored.files}
    confidence = {name.removeprefix(CONFIDENCE): found.pop(name) for name in list(found) if name.startswith(CONFIDENCE)}
    return Scored(found, confidence, priors)


def _priors(prepared: PreparedScene, config: Config, network: Any, features: FeatureSource | None) -> Priors:
    """The class shares where there is no map. Only ``scene`` needs the whole scene predicted."""
    blocks = predict(network, features, prepared, config) if config.predict.priors == "scene" else ()
    return settle_priors(
        config.predict.priors, Calibration.of(network), [info.name for info in prepared.classes],
        (prepared.height, prepared.width), ((y, x, block.numpy()) for y, x, block, _ in blocks),
    )  # fmt: skip


def trust(truth: np.ndarray, scored: Scored, network: Any, names: list[str]) -> dict[str, Any]:
    """For a report: ``calibration`` (temperature and reliability on the test pixels, see `report.reliability`) and ``priors`` (the
    class shares, and the accuracy ``with_training_shares``)."""
    stored = asdict(Calibration.of(network))
    stored.pop("prior")
    plain = scores(truth, scored.confidence["label"], len(names))
    return {
        "calibration": {**stored, **calibration_report(truth, scored.labels["fused"], scored.confidence)},
        "priors": {**scored.priors.facts(names), "with_training_shares": {key: plain[key] for key in METRICS}},
    }
