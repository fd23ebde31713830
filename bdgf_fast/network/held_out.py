"""Labels of the training side that a network has not learned from, to fit a temperature on.

The network's own training labels do not serve: its forests have grown until they know them by heart. So whole squares of them are
left out in turn, because labels beside each other say nearly the same, and stand-ins learn from the rest: the network's forests
grown anew, which takes seconds, or where it has none a network of one branch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.random_streams import generator
from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import FeatureSource, tiles_of
from .calibration import Calibration, fit_bias, fit_temperature
from .forest import Forest
from .predict import predict_pixels
from .statistics import statistics_at
from .train import train

FOREST_FOLDS, NETWORK_FOLDS = 4, 2
STREAM = 2**41
"""Of the generator that deals squares to folds; no window of a training comes so far."""


def calibrate(
    network: Any, features: FeatureSource | None, prepared: PreparedScene, config: Config, *, seed: int,
    device: torch.device | str = "cpu",
) -> Calibration:  # fmt: skip
    """The calibration of a trained network.

    It is fitted on the split's validation part where there is one, else on squares of training labels that stand-ins have not
    learned from (``predict.calibrate``). Either way every class counts as much as among the training labels, whose shares the
    losses saw.
    """
    split = prepared.split
    assert split is not None, "a calibration needs the split's training pixels"
    train_rc = torch.as_tensor(split.train)
    counts = np.bincount(prepared.labels[train_rc[:, 0], train_rc[:, 1]].numpy(), minlength=len(prepared.classes))
    prior = counts / counts.sum()
    if not config.predict.calibrate:
        return Calibration(prior=tuple(prior))
    if len(split.val):
        rc, where = torch.as_tensor(split.val), "validation part"
        said = predict_pixels(network, features, prepared, config, rc, refined=False).probabilities
    else:
        rc, said = held_out(network, features, prepared, config, seed=seed, device=device)
        where = "squares left out in turn"
    truth = prepared.labels[rc[:, 0], rc[:, 1]].numpy()
    if not len(truth):
        return Calibration(prior=tuple(prior))
    weight = (prior / np.maximum(np.bincount(truth, minlength=len(prior)), 1))[truth]
    temperature = fit_temperature(said.numpy(), truth, weight)
    power, bias = fit_bias(said.numpy(), truth, weight)
    return Calibration(temperature, tuple(prior), power, tuple(bias), where, len(truth))


def held_out(
    network: Any, features: FeatureSource | None, prepared: PreparedScene, config: Config, *, seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Training pixels int64 (n, 2) and their probabilities (n, K) by stand-ins that have not learned from them or from any label
    within the patch radius."""
    split: Any = prepared.split
    rc = torch.as_tensor(split.train)
    target = prepared.labels[rc[:, 0], rc[:, 1]]
    rows = None
    if len(getattr(network, "forests", ())):
        tile = tiles_of(features)
        rows = statistics_at(prepared, tile, config.model, rc, config.features.tile, network.context).cpu()
    folds = NETWORK_FOLDS if rows is None else FOREST_FOLDS
    fold = block_folds(rc, target, prepared.scene.split_spec.block, folds, seed)
    pixels, said = [], []
    for k in range(fold.max() + 1):
        kept = fold != k
        apart = judged(rc, target, kept, config.data.patch // 2)
        if not apart.any():
            continue
        pixels.append(rc[apart])
        if rows is not None:
            said.append(_forests(network, rows, target, kept, apart, seed + k))
        else:
            own = dataclasses.replace(split, train=rc[kept], val=rc[:0])
            other, _ = train(prepared, features, stand_in(config), seed=seed + k, split=own, device=device)
            said.append(predict_pixels(other, features, prepared, config, rc[apart], refined=False).probabilities)
    if not pixels:
        return rc[:0], torch.empty(0, len(prepared.classes))
    return torch.cat(pixels), torch.cat(said)


def _forests(network: Any, rows: Tensor, target: Tensor, kept: np.ndarray, apart: np.ndarray, seed: int) -> Tensor:
    """Probabilities of the pixels ``apart`` by forests like the network's, grown on those ``kept``; ``rows`` are statistics."""
    found = []
    for size in network.forest_seen:
        forest = Forest(network.classes)
        forest.fit(rows[kept, :size], target[kept], network.trees, seed, extra=True)
        found.append(forest(rows[apart, :size]))
    return torch.stack(found).mean(0)


def stand_in(config: Config) -> Config:
    """The configuration of a network of one branch in place of several."""
    return config.override(f"model.branches=[{config.model.branches[0]}]", "model.twins=false", "train.patience=0")


def block_folds(rc: Tensor, target: Tensor, side: int, folds: int, seed: int) -> np.ndarray:
    """The fold (n,) of each labelled pixel rc int64 (n, 2): whole squares of ``side`` pixels, dealt so that every fold gets about
    as much of each class."""
    _, square = np.unique(np.asarray(rc) // side, axis=0, return_inverse=True)
    classes = int(target.max()) + 1
    table = np.zeros((square.max() + 1, classes))
    np.add.at(table, (square.reshape(-1), np.asarray(target)), 1)
    table /= np.maximum(table.sum(0), 1)
    order = generator(seed, "windows", STREAM).permutation(len(table))
    got, fold = np.zeros((folds, classes)), np.zeros(len(table), np.int64)
    for k in order[np.argsort(-table[order].sum(1), kind="stable")]:  # the largest first
        fold[k] = np.argmin((got * table[k]).sum(1))
        got[fold[k]] += table[k]
    return fold[square.reshape(-1)]


def judged(rc: Tensor, target: Tensor, kept: np.ndarray, gap: int) -> np.ndarray:
    """Which of the labelled pixels rc (n, 2) may be judged by a network that learned from those ``kept``: the others, more than
    ``gap`` pixels (Chebyshev) from them, of the classes that it knows."""
    from scipy.spatial import cKDTree

    if not kept.any():
        return np.zeros(len(rc), bool)
    places, classes = np.asarray(rc), np.asarray(target)
    distance = cKDTree(places[kept]).query(places, p=np.inf)[0]
    return ~kept & (distance > gap) & np.isin(classes, classes[kept])
