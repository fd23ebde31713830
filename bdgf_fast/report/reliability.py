"""Whether probabilities mean what they say: reliability by bins, and the expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The expected calibration error of n predictions, and the bins it is taken over (Guo et al. 2017).

    Args:
        confidence: probability of the predicted class (n,). right: bool (n,), whether it is the pixel's.

    Returns ``expected_calibration_error`` (mean over the pixels of the absolute difference between accuracy and mean confidence of
    their bin) and ``bins``: for each of 15 bins of equal width ``pixels``, ``confidence`` and ``accuracy`` (None without a pixel).
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    which = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    pixels = np.bincount(which, minlength=BINS)
    sure, correct = (np.bincount(which, values, BINS) for values in (confidence, right))
    bins = [
        {"pixels": int(n), "confidence": float(s / n) if n else None, "accuracy": float(c / n) if n else None}
        for n, s, c in zip(pixels, sure, correct, strict=True)
    ]
    return {"expected_calibration_error": float(np.abs(sure - correct).sum() / len(right)), "bins": bins}


def calibration_report(truth: np.ndarray, written: np.ndarray, confidence: dict[str, np.ndarray]) -> dict[str, Any]:
    """Reliability on n test pixels ``uncalibrated`` and ``calibrated``, both under the shares of the training labels, and of what
    is ``written`` in the map under the shares it goes by.

    Args:
        truth: class indices (n,). written: those of the map. confidence: as `network.priors.confidences` gives it.
    """
    labels = {"uncalibrated": confidence["label"], "calibrated": confidence["label"], "written": written}
    return {name: reliability(confidence[name], label == truth) for name, label in labels.items()}
