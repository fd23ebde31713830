"""The group network: branches of different kind, guided by diffusion features, fused into one prediction.

It comes in two forms. The dense one maps a piece of a scene at once; the other classifies each pixel by a patch of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..ops import box_statistics
from .branches import Branch
from .calibration import UNCALIBRATED, Calibration
from .context import Context
from .forest import Forest
from .head import Address, Head, Standardise, pooled

TINY = 1e-12
"""Least share of a class in a forest whose logarithm is taken."""


def learns_without(config: ModelConfig, modalities: int) -> bool:
    """Whether a dense network sees each of its modalities hidden in training, and then also classifies pixels that lack one."""
    return config.hide_rate > 0 and modalities > 1


@dataclass
class GroupOutput:
    """What the network returns for n patches."""

    logits: list[Tensor]
    """Per member (n, K): branches, then forests."""
    features: list[Tensor]
    """Per branch (n, hidden): the feature f_b."""
    log_fused: Tensor
    """Log-probabilities of the fused prediction (n, K)."""
    groups: list[GroupOutput] = field(default_factory=list)
    """The guided branches and their twins, each group with its own fusion; empty where there is one group."""

    def parts(self) -> list[GroupOutput]:
        """What is trained apart: groups that learned from each other would lose what they know beside each other."""
        return self.groups or [self]


class Members(nn.Module):
    """Branches with a head each, and the fusion of their predictions: what the two forms of the group network share.

    Args:
        groups: raw channels per modality. guides: channels of each guide map, coarsest first; empty = no guidance.
        band_statistics: how many statistics of the bands the heads see. guide_statistics: of each channel of the guides.
    """

    scale: Tensor | None
    calibration: Calibration = UNCALIBRATED
    """What ``predict`` applies to the fused probabilities; no part of the module's state."""

    def __init__(
        self, groups: Sequence[int], guides: Sequence[int], classes: int, config: ModelConfig, *, dense: bool,
        band_statistics: int, guide_statistics: int, statistics_noise: float,
    ) -> None:  # fmt: skip
        super().__init__()
        channels = sum(groups)
        self.register_buffer("scale", balancing(groups) if config.balance else None, persistent=False)
        members = [(kind, bool(guides) and getattr(config, f"guide_{kind}") != "none") for kind in config.branches]
        if config.twins:
            members += [(kind, False) for kind, guided in members if guided]
        self.twins = len(members) - len(config.branches)
        names = [kind if i < len(config.branches) else f"unguided {kind}" for i, (kind, _) in enumerate(members)]
        self.kinds, self.fusion, self.classes = tuple(names), config.fusion, classes
        self.branches = nn.ModuleList(
            Branch(kind, channels, guides if guided else (), config, dense) for kind, guided in members
        )
        # a branch without guidance sees no guide in its head either
        self.seen = [
            band_statistics + guide_statistics * sum(guides) * guided if config.statistics else 0
            for _, guided in members
        ]
        self.standardise = Standardise(max(self.seen)) if config.statistics else None
        self.heads = nn.ModuleList(
            Head(config.width, classes, config.hidden, config.dropout, n, statistics_noise) for n in self.seen
        )
        self.weights = nn.Parameter(torch.zeros(len(self.kinds))) if config.fusion == "learned" else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form

    def branch_maps(self, x: Tensor, guides: Sequence[Tensor]) -> Iterator[Tensor]:
        """Each branch's map of x (B, C, ..) and the guides (B, C_k, ..), one after the other."""
        x = x.contiguous(memory_format=torch.channels_last)
        guides = [guide.contiguous(memory_format=torch.channels_last) for guide in guides]
        if self.scale is not None:
            x = x * self.scale
        for branch in self.branches:
            yield branch(x, guides)

    def classify(self, seen: Sequence[Tensor], statistics: Tensor | None, address: Address | None = None) -> GroupOutput:
        """Heads and fusion for n pixels.

        Args:
            seen: each branch's pooled map (n, 3 width). statistics: (n, S), standardised; those of the raw channels first.
            address: makes the dropout of training a function of seed, sample and step; None takes torch's generator.
        """
        features, logits = [], []
        for i, (head, rows) in enumerate(zip(self.heads, seen, strict=True)):
            own = None if address is None else replace(address, seed=address.seed + i)
            feature, logit = head(rows, None if statistics is None else statistics[:, : self.seen[i]], own)
            features.append(feature)
            logits.append(logit)
        return self.fuse(features, logits)

    def fuse(self, features: list[Tensor], logits: list[Tensor]) -> GroupOutput:
        """What all branches together predict."""
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


class GroupNetwork(Members):
    """The group network over patches: each pixel is classified by a patch of its own.

    ``forward(x, guides)``: x (n, sum of groups, h, w) normalised bands; guides: list of (n, C_g, h, w) on the same grid ->
    ``GroupOutput``. Call ``fit`` before training. Arguments as for ``Members``.
    """

    def __init__(self, groups: Sequence[int], guides: Sequence[int], classes: int, config: ModelConfig) -> None:
        super().__init__(
            groups, guides, classes, config, dense=False, band_statistics=3 * sum(groups), guide_statistics=3,
            statistics_noise=0.0,
        )  # fmt: skip

    def fit(self, x: Tensor, guides: Sequence[Tensor] = ()) -> None:
        """Set the statistics by which the heads' inputs are standardised, from the training patches."""
        if self.standardise is not None:
            self.standardise.fit(self._pooled(x, guides))

    def _pooled(self, x: Tensor, guides: Sequence[Tensor]) -> Tensor:
        return pooled([x, *guides] if max(self.seen) > 3 * x.shape[1] else [x])

    def forward(self, x: Tensor, guides: Sequence[Tensor] = (), address: Address | None = None) -> GroupOutput:
        """``address`` makes the dropout of training a function of seed, sample and step; None takes torch's generator."""
        statistics = None if self.standardise is None else self.standardise(self._pooled(x, guides))
        return self.classify([pooled([m]) for m in self.branch_maps(x, guides)], statistics, address)


class DenseNetwork(Members):
    """The group network over pieces of a scene: every pixel of a map is computed once and serves all its neighbours.

    ``forward(x, guides, statistics, at)``: x (B, sum of groups, H + 2, W + 2) normalised bands with a frame of one pixel;
    guides (B, C_k, H, W); statistics (n, S) of the pixels; at int64 (n, 3), each pixel's sample, row and column in the map, at
    least ``config.map_radius`` from its border -> ``GroupOutput`` of the n pixels. Call ``fit`` before training.

    Beside the branches stand forests of extremely randomised trees on the same statistics: one on those of the bands and, in a
    guided network, one on those of bands and guides. They have no part in training by gradients; in evaluation mode each counts
    as much in the fusion as all branches together.
    """

    def __init__(self, groups: Sequence[int], guides: Sequence[int], classes: int, config: ModelConfig) -> None:
        context = Context(sum(groups), config.context) if config.context and config.statistics else None
        surroundings = 1 + 2 * len(config.guide_radii)
        bands = sum(groups) * (1 + 2 * len(config.radii)) + (0 if context is None else context.channels * surroundings)
        super().__init__(
            groups, guides, classes, config, dense=True, band_statistics=bands, guide_statistics=surroundings,
            statistics_noise=config.statistics_noise,
        )  # fmt: skip
        self.context, self.radius, self.trees = context, config.map_radius, config.trees
        views = sorted({bands, max(self.seen)}) if config.trees and config.statistics else []
        self.hides = learns_without(config, len(groups))
        self.forests = nn.ModuleList(Forest(classes) for _ in views)
        self.forests_without = nn.ModuleList(
            nn.ModuleList(Forest(classes) for _ in views) for _ in range(len(groups) if self.hides else 0)
        )
        self.forest_seen = views
        self.kinds += ("forest of bands", "forest of bands and guides")[: len(views)]

    def fit(self, statistics: Tensor, target: Tensor, seed: int) -> None:
        """Take the training pixels' statistics (V, n, S), of the whole scene and, in a network that hides, without each modality:
        what the heads' inputs are standardised by. Grow the forests."""
        if self.standardise is not None:
            self.standardise.fit(statistics[0, :, : max(self.seen)])
        hidden = [None, *range(len(self.forests_without))]
        for own, forests in zip(statistics, map(self._forests, hidden), strict=True):
            for k, (forest, size) in enumerate(zip(forests, self.forest_seen, strict=True)):
                forest.fit(own[:, :size], target, self.trees, seed + k, extra=True)

    def _forests(self, hidden: int | None) -> list[Forest]:
        """Those of the whole scene, or those that were grown without a modality."""
        return list(cast(Iterable[Forest], self.forests if hidden is None else self.forests_without[hidden]))

    def pooled(self, x: Tensor) -> Tensor:
        """A branch's map (B, width, H, W) -> value, mean and deviation by box (B, 3 width, H - 2 r, W - 2 r)."""
        return box_statistics(x, [self.radius])

    def forward(
        self, x: Tensor, guides: Sequence[Tensor], statistics: Tensor | None, at: Tensor, address: Address | None = None
    ) -> GroupOutput:
        sample, row, column = at[:, 0], at[:, 1] - self.radius, at[:, 2] - self.radius
        seen = [self.pooled(m).permute(0, 2, 3, 1)[sample, row, column] for m in self.branch_maps(x, guides)]
        return self.classify(seen, statistics, address)

    def classify(
        self, seen: Sequence[Tensor], statistics: Tensor | None, address: Address | None = None, hidden: int | None = None
    ) -> GroupOutput:
        """As ``Members.classify``, from statistics as they are; in evaluation mode with the forests, of those pixels that lack the
        modality ``hidden`` with the forests that were grown without it."""
        ready = None if statistics is None or self.standardise is None else self.standardise(statistics[:, : max(self.seen)])
        output = super().classify(seen, ready, address)
        if self.training or not self.forests or statistics is None:
            return output
        forests = self._forests(None if not self.hides else hidden)
        found = [forest(statistics[:, :size]) for forest, size in zip(forests, self.forest_seen, strict=True)]
        output.logits += [share.clamp(min=TINY).log() for share in found]
        members = torch.stack([output.log_fused.float().exp(), *found])
        output.log_fused = members.mean(0).clamp(min=TINY).log()
        return output


def balancing(groups: Sequence[int]) -> Tensor:
    """Factor of each band, (1, sum of groups, 1, 1): equal within a modality, and the squares' sum is the same for each modality
    and sum(groups) in all, so that the stem's output keeps its size. Scaling the input and not the stem's first weights
    also divides what the stem learns: an optimiser that normalises gradients moves every weight alike."""
    share = sum(groups) / len(groups)
    return torch.cat([torch.full((size,), math.sqrt(share / size)) for size in groups]).view(1, -1, 1, 1)
