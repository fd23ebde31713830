"""Losses of the group network: cross-entropies and the two mutual-learning terms.

The abstract of the BDGF paper fixes what is aligned (probability entropy and feature similarity); the formulas are
ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ranks import sum_over_ranks
from ..config import TrainConfig


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over samples, or the sum of ``weight`` (of sum 1) times them."""
    return values.mean() if weight is None else (weight * values).sum()


def entropy_alignment(logits: Sequence[Tensor], kind: str = "squared", weight: Tensor | None = None) -> Tensor:
    """Alignment of the branches' probability entropy; ``logits``: per branch (n, K). Zero for fewer than two branches.

    ``squared``: mean over pairs and samples of (H(p_i) - H(p_j))^2 with H divided by log K, so that it lies in [0, 1].
    ``kl``: mean over pairs and samples of KL(p_i || p_j) + KL(p_j || p_i), halved.
    """
    logs = [F.log_softmax(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, 1) for z in logits]
    pairs = list(combinations(logs, 2))
    if not pairs:
        return logits[0].new_zeros(())
    if kind == "kl":
        return torch.stack([_mean(((a.exp() - b.exp()) * (a - b)).sum(1), weight) / 2 for a, b in pairs]).mean()
    scale = math.log(max(logits[0].shape[1], 2))
    entropies = {id(z): -(z.exp() * z).sum(1) / scale for z in logs}
    return torch.stack([_mean((entropies[id(a)] - entropies[id(b)]).square(), weight) for a, b in pairs]).mean()


def similarity_alignment(features: Sequence[Tensor], weight: Tensor | None = None) -> Tensor:
    """Similarity-preserving alignment; ``features``: per branch (n, d). Zero for fewer than two branches.

    Mean over pairs of (1/n) ||G_s - G_t||_F^2, where G is F F^T with L2-normalised rows (similarity-preserving
    distillation, arXiv 1907.09682, with 1/n in place of 1/n^2, which vanishes as the batch grows). No n x n matrix is
    formed: ||G_s - G_t||_F^2 = 2 sum_i (1 - c_i / sqrt(a_i b_i)) with a_i = f_i' (F_s'F_s) f_i, b_i likewise for t and
    c_i = f_s,i' (F_s'F_t) f_t,i. O(n d^2) time, O(n d + d^2) memory. Over several ranks the d x d matrices are summed, so
    that the batch is everybody's; the mean is over a rank's own samples.
    """
    features = [f.float() if f.dtype in (torch.float16, torch.bfloat16) else f for f in features]
    pairs = list(combinations(features, 2))
    if not pairs:
        return features[0].new_zeros(())
    total = features[0].new_zeros(())
    for s, t in pairs:
        ss, tt, st = (sum_over_ranks(x) for x in (s.T @ s, t.T @ t, s.T @ t))
        a, b, c = ((s @ ss) * s).sum(1), ((t @ tt) * t).sum(1), ((s @ st) * t).sum(1)
        tiny = torch.finfo(s.dtype).tiny
        total = total + 2 * _mean(1 - c / (a.clamp(min=tiny).sqrt() * b.clamp(min=tiny).sqrt()), weight)
    return total / len(pairs)


def ramp(step: int, steps: int, share: float) -> float:
    """Factor of the mutual-learning weights at ``step`` of ``steps``: 0 to 1 over the first ``share`` of them."""
    return 1.0 if share <= 0 else min(1.0, step / max(1.0, share * steps))


def group_loss(
    logits: Sequence[Tensor],
    features: Sequence[Tensor],
    log_fused: Tensor,
    target: Tensor,
    config: TrainConfig,
    factor: float,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the branches' cross-entropies, that of the fused prediction, and the mutual-learning terms.

    Args:
        logits: per branch (n, K). features: per branch (n, d). log_fused: log-probabilities (n, K). target: (n,) int64.
        factor: the ramp's value.
        weight: (n,), of sum 1, of each sample in every mean; None = all alike.

    Returns the loss and its detached parts (``ce``, ``ce_fused``, ``entropy``, ``similarity``).
    """
    def cross_entropy(z: Tensor) -> Tensor:
        return _mean(F.cross_entropy(z, target, label_smoothing=config.label_smoothing, reduction="none"), weight)

    ce = torch.stack([cross_entropy(z) for z in logits]).sum()
    parts = {"ce": ce}
    loss = ce
    if len(logits) > 1:
        # log-probabilities are logits of themselves: log_softmax leaves them as they are
        parts["ce_fused"] = cross_entropy(log_fused)
        parts["entropy"] = entropy_alignment(logits, config.entropy, weight)
        parts["similarity"] = similarity_alignment(features, weight)
        loss = (
            ce
            + parts["ce_fused"]
            + factor * (config.lambda_entropy * parts["entropy"] + config.lambda_similarity * parts["similarity"])
        )
    return loss, {name: value.detach() for name, value in parts.items()}
