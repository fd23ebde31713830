"""The group network: branches of different kind over one patch, guided by diffusion features, fused into one
prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .branches import Branch
from .head import Address, Head, Standardise, pooled


@dataclass
class GroupOutput:
    """What the network returns for n patches."""

    logits: list[Tensor]
    """Per branch (n, K)."""
    features: list[Tensor]
    """Per branch (n, hidden): the feature f_b."""
    log_fused: Tensor
    """Log-probabilities of the fused prediction (n, K)."""
    groups: list[GroupOutput] = field(default_factory=list)
    """The guided branches and their twins, each group with its own fusion; empty where there is one group."""

    def parts(self) -> list[GroupOutput]:
        """What is trained apart: groups that learned from each other would lose what they know beside each other."""
        return self.groups or [self]


class GroupNetwork(nn.Module):
    """Args: ``groups`` = raw channels per modality, ``guides`` = channels of each guide map (coarsest first; empty = no
    guidance), ``classes``, config.

    ``forward(x, guides)``: x (n, sum of groups, h, w) normalised bands; guides: list of (n, C_g, h, w) on the same grid ->
    ``GroupOutput``. Call ``fit`` before training.
    """

    scale: Tensor | None

    def __init__(self, groups: Sequence[int], guides: Sequence[int], classes: int, config: ModelConfig) -> None:
        super().__init__()
        channels = sum(groups)
        self.register_buffer("scale", balancing(groups) if config.balance else None, persistent=False)
        members = [(kind, bool(guides) and getattr(config, f"guide_{kind}") != "none") for kind in config.branches]
        if config.twins:
            members += [(kind, False) for kind, guided in members if guided]
        self.twins = len(members) - len(config.branches)
        names = [kind if i < len(config.branches) else f"unguided {kind}" for i, (kind, _) in enumerate(members)]
        self.kinds, self.fusion, self.classes = tuple(names), config.fusion, classes
        self.branches = nn.ModuleList(Branch(kind, channels, guides if guided else (), config) for kind, guided in members)
        # a branch without guidance sees no guide in its head either
        self.seen = [3 * (channels + sum(guides) * guided) if config.statistics else 0 for _, guided in members]
        self.standardise = Standardise(max(self.seen)) if config.statistics else None
        self.heads = nn.ModuleList(Head(config.width, classes, config.hidden, config.dropout, n) for n in self.seen)
        self.weights = nn.Parameter(torch.zeros(len(self.kinds))) if config.fusion == "learned" else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form

    def fit(self, x: Tensor, guides: Sequence[Tensor] = ()) -> None:
        """Set the statistics by which the heads' inputs are standardised, from the training patches."""
        if self.standardise is not None:
            self.standardise.fit(self._pooled(x, guides))

    def _pooled(self, x: Tensor, guides: Sequence[Tensor]) -> Tensor:
        return pooled([x, *guides] if max(self.seen) > 3 * x.shape[1] else [x])

    def forward(self, x: Tensor, guides: Sequence[Tensor] = (), address: Address | None = None) -> GroupOutput:
        """``address`` makes the dropout of training a function of seed, sample and step; None takes torch's generator."""
        x = x.contiguous(memory_format=torch.channels_last)
        guides = [guide.contiguous(memory_format=torch.channels_last) for guide in guides]
        statistics = None if self.standardise is None else self.standardise(self._pooled(x, guides))
        if self.scale is not None:
            x = x * self.scale
        features, logits = [], []
        for i, (branch, head) in enumerate(zip(self.branches, self.heads, strict=True)):
            own = None if address is None else replace(address, seed=address.seed + i)
            of_patch = None if statistics is None else statistics[:, : self.seen[i]]
            feature, logit = head(branch(x, guides), of_patch, own)
            features.append(feature)
            logits.append(logit)
        if not self.twins:
            return GroupOutput(logits, features, self._fuse(logits, 0))
        first = len(logits) - self.twins
        guided = GroupOutput(logits[:first], features[:first], self._fuse(logits[:first], 0))
        twins = GroupOutput(logits[first:], features[first:], self._fuse(logits[first:], first))
        log_fused = torch.logaddexp(guided.log_fused, twins.log_fused) - math.log(2)
        return GroupOutput(logits, features, log_fused, [guided, twins])

    def _fuse(self, logits: list[Tensor], first: int) -> Tensor:
        """Log-probabilities of the fusion of the branches first, first + 1, ..."""
        stacked = torch.stack(logits)
        if self.fusion == "mean":
            return torch.logsumexp(F.log_softmax(stacked, 2), 0) - math.log(len(logits))
        if self.weights is None:
            return F.log_softmax(stacked.mean(0), 1)
        weights = self.weights[first : first + len(logits)].softmax(0)
        return F.log_softmax((weights[:, None, None] * stacked).sum(0), 1)


def balancing(groups: Sequence[int]) -> Tensor:
    """Factor of each band, (1, sum of groups, 1, 1): equal within a modality, and the squares' sum is the same for each modality
    and sum(groups) in all, so that the stem's output keeps its size. Scaling the input and not the stem's first weights
    also divides what the stem learns: an optimiser that normalises gradients moves every weight alike."""
    share = sum(groups) / len(groups)
    return torch.cat([torch.full((size,), math.sqrt(share / size)) for size in groups]).view(1, -1, 1, 1)
