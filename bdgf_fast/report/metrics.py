"""Accuracy figures, all from scikit-learn's definitions, and the diversity of the branches."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix

METRICS = ("overall_accuracy", "average_accuracy", "kappa")


def scores(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """Accuracy of ``predicted`` (n,) against ``truth`` (n,), both class indices 0..classes-1.

    Returns ``overall_accuracy``, ``average_accuracy`` (mean of the accuracies of the classes that occur in ``truth``),
    ``kappa`` (Cohen), ``per_class`` (list, None where a class has no pixel) and ``confusion_matrix`` (rows = truth),
    plain Python values throughout. Raises ValueError when there is nothing to score or an index lies outside the
    classes.
    """
    truth, predicted = np.asarray(truth).reshape(-1), np.asarray(predicted).reshape(-1)
    if truth.shape != predicted.shape or truth.size == 0:
        raise ValueError(
            f"scores takes two equally long, non-empty label vectors, got {truth.size} and {predicted.size} labels"
        )
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels lie in {low}..{high}, but there are {classes} classes (0..{classes - 1})")
    matrix = confusion_matrix(truth, predicted, labels=np.arange(classes))
    totals = matrix.sum(1)
    per_class = [float(matrix[k, k] / totals[k]) if totals[k] else None for k in range(classes)]
    average = np.mean([value for value in per_class if value is not None])  # balanced accuracy
    kappa = cohen_kappa_score(truth, predicted) if len(set(truth) | set(predicted)) > 1 else 1.0
    return {
        "overall_accuracy": float(np.trace(matrix) / truth.size),
        "average_accuracy": float(average),
        "kappa": float(kappa),
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def by_class(matrix: Any) -> list[dict[str, float | None]]:
    """Measures of each class from a confusion matrix (rows = truth): ``producers_accuracy`` (the share of its pixels that are
    found), ``users_accuracy`` (the share of what is called it that is it), ``f1`` and ``iou``; None where nothing is divided."""
    matrix = np.asarray(matrix, np.int64)
    right, truth, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    parts = {"producers_accuracy": (right, truth), "users_accuracy": (right, called), "f1": (2 * right, truth + called),
             "iou": (right, truth + called - right)}  # fmt: skip
    return [{name: float(a[k] / b[k]) if b[k] else None for name, (a, b) in parts.items()} for k in range(len(matrix))]


def diversity(truth: np.ndarray, branches: dict[str, np.ndarray]) -> dict[str, Any]:
    """How the branches differ: their labels (n,) each against ``truth`` (n,).

    Returns ``branches`` (overall accuracy of each) and ``diversity``: ``disagreement`` (share of pixels where a pair
    of branches differs, mean over pairs), ``any_right`` (share where at least one branch is right) and ``all_right``.
    """
    truth = np.asarray(truth).reshape(-1)
    right = np.stack([np.asarray(labels).reshape(-1) == truth for labels in branches.values()])
    labels = [np.asarray(value).reshape(-1) for value in branches.values()]
    pairs = [float(np.mean(labels[i] != labels[j])) for i in range(len(labels)) for j in range(i)]
    return {
        "branches": {name: float(row.mean()) for name, row in zip(branches, right, strict=True)},
        "diversity": {
            "disagreement": float(np.mean(pairs)) if pairs else 0.0,
            "any_right": float(right.any(0).mean()),
            "all_right": float(right.all(0).mean()),
        },
    }


def accuracy(
    truth: np.ndarray, labels: dict[str, np.ndarray], classes: int, train: np.ndarray | None, test: np.ndarray
) -> dict[str, Any]:
    """Everything a report says of the accuracy on the pixels ``test`` int64 (n, 2), plain Python values.

    Args:
        truth: class indices (n,).
        labels: predicted class indices (n,): ``fused``, and those of the branches by their names (none for a baseline).
        train: int64 (m, 2), the training pixels; None where they are not known.

    Returns ``scores`` of the fused labels, ``diversity`` of the branches, and ``by_distance`` where ``train`` is known.
    """
    branches = {name: values for name, values in labels.items() if name != "fused"}
    near = {} if train is None else {"by_distance": by_distance(train, test, labels["fused"] == truth)}
    return {**scores(truth, labels["fused"], classes), **(diversity(truth, branches) if branches else {}), **near}


NEAR, MIDDLE = 8, 12
"""Upper ends in pixels of the distances that ``by_distance`` keeps apart."""


def by_distance(train: np.ndarray, test: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by Chebyshev distance to the nearest training pixel: what lies near one is easier.

    Args:
        train, test: int64 (n, 2) of (row, column). right: bool, of each test pixel.

    Returns, for up to 8, 9 to 12 and 13 or more pixels, ``from``, ``to`` (None = no end), ``pixels`` and ``accuracy`` (None
    without a pixel). O(n log n).
    """
    from scipy.spatial import cKDTree

    distance = cKDTree(np.asarray(train)).query(np.asarray(test), p=np.inf)[0]
    found = []
    for low, high in ((0, NEAR), (NEAR + 1, MIDDLE), (MIDDLE + 1, None)):
        inside = (distance >= low) & (distance <= (np.inf if high is None else high))
        accuracy = float(np.asarray(right)[inside].mean()) if inside.any() else None
        found.append({"from": low, "to": high, "pixels": int(inside.sum()), "accuracy": accuracy})
    return found
