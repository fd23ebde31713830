"""The group network: branches of different kind over one patch, guided by diffusion features, fused into one
prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..ops import philox_normal
from .branches import Branch


@dataclass
class GroupOutput:
    """What the network returns for n patches."""

    logits: list[Tensor]
    """Per branch (n, K)."""
    features: list[Tensor]
    """Per branch (n, width): the pooled feature f_b."""
    log_fused: Tensor
    """Log-probabilities of the fused prediction (n, K)."""


@dataclass
class Address:
    """Where the dropout of n samples comes from: a function of (seed, sample, step), whatever rank or batch they are in."""

    seed: int
    """Its own: no other noise may share it. Head k takes seed + k."""
    samples: Tensor
    """int64 (n,)."""
    step: int


class Head(nn.Module):
    """Pools (n, C, H, W) by mean, standard deviation and centre pixel (the label is the centre's); feature and
    logits."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.embed = nn.LayerNorm(3 * width), nn.Linear(3 * width, width)
        self.dropout, self.classify = dropout, nn.Linear(width, classes)

    def forward(self, x: Tensor, address: Address | None = None) -> tuple[Tensor, Tensor]:
        mean = x.mean((2, 3))
        deviation = ((x - mean[:, :, None, None]).square().mean((2, 3)) + 1e-6).sqrt()
        centre = x[:, :, x.shape[2] // 2, x.shape[3] // 2]
        feature = self.embed(self.norm(torch.cat([mean, deviation, centre], 1)))
        return feature, self.classify(self._drop(F.silu(feature), address))

    def _drop(self, x: Tensor, address: Address | None) -> Tensor:
        if not (self.training and self.dropout):
            return x
        if address is None:
            return F.dropout(x, self.dropout)
        normal = philox_normal(x.shape, address.seed, sample_ids=address.samples, stream=address.step, device=x.device)
        return x * (normal > NormalDist().inv_cdf(self.dropout)) / (1 - self.dropout)


class GroupNetwork(nn.Module):
    """Args: raw ``channels``, ``guides`` = channels of each guide map (coarsest first; empty = no guidance),
    ``classes``, config.

    ``forward(x, guides)``: x (n, C, h, w) normalised bands; guides: list of (n, C_g, h, w) on the same grid ->
    ``GroupOutput``.
    """

    def __init__(self, channels: int, guides: Sequence[int], classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.kinds, self.fusion, self.classes = tuple(config.branches), config.fusion, classes
        self.branches = nn.ModuleList(Branch(kind, channels, guides, config) for kind in self.kinds)
        self.heads = nn.ModuleList(Head(config.width, classes, config.dropout) for _ in self.kinds)
        self.weights = nn.Parameter(torch.zeros(len(self.kinds))) if config.fusion == "learned" else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form

    def forward(self, x: Tensor, guides: Sequence[Tensor] = (), address: Address | None = None) -> GroupOutput:
        """``address`` makes the dropout of training a function of seed, sample and step; None takes torch's generator."""
        x = x.contiguous(memory_format=torch.channels_last)
        guides = [guide.contiguous(memory_format=torch.channels_last) for guide in guides]
        features, logits = [], []
        for i, (branch, head) in enumerate(zip(self.branches, self.heads, strict=True)):
            own = None if address is None else replace(address, seed=address.seed + i)
            feature, logit = head(branch(x, guides), own)
            features.append(feature)
            logits.append(logit)
        return GroupOutput(logits, features, self._fuse(torch.stack(logits)))

    def _fuse(self, logits: Tensor) -> Tensor:
        if self.fusion == "mean":
            return torch.logsumexp(F.log_softmax(logits, 2), 0) - torch.log(logits.new_tensor(float(len(logits))))
        if self.weights is None:
            return F.log_softmax(logits.mean(0), 1)
        return F.log_softmax((self.weights.softmax(0)[:, None, None] * logits).sum(0), 1)
