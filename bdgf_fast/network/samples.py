"""What each optimiser step of the group network learns from: patches of labelled pixels, or crops with labels inside.

Everything about step s is a function of (seed, s): resuming is exact, and ranks divide a step without talking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.augmentation import cut, dihedral, turned
from ..common.random_streams import generator
from ..common.ranks import ranks
from ..config import Config
from ..data.prepared import PreparedScene
from ..features.source import FeatureSource, Tile, hiding, tiles_of
from .group_network import learns_without
from .head import Address
from .statistics import fit_context, statistics_at
from .stored_maps import StoredMaps

DROPOUT_STREAM = 2**40


@dataclass
class Part:
    """What goes through the network at once."""

    inputs: tuple[Any, ...]
    address: Address
    target: Tensor
    weight: Tensor | None
    """Of each sample, with sum 1; None = all alike."""
    share: float
    """Of the whole step's loss; 0 for a rank without a sample, which takes part in the sums all the same."""


def shares(count: int, accumulate: int) -> list[tuple[slice, bool]]:
    """This rank's parts of ``count`` things, each as a slice and whether it holds any.

    Every rank has equally many, since they sum matrices in between: one without a sample takes the first with share 0. What all
    ranks work on at the same time is together what one process would, so that a loss within a part is the same.
    """
    rank, world = ranks()
    parts = max(1, min(accumulate, count))
    taken = [(slice(k, None, parts * world), k < count) for k in range(rank * parts, (rank + 1) * parts)]
    return [(part if some else slice(0, 1), some) for part, some in taken]


class PatchSamples:
    """Every training pixel with a patch around it; an epoch takes each once. Patches and guides are held in memory:
    4 n patch^2 (C + sum of guide channels) bytes."""

    def __init__(
        self, prepared: PreparedScene, features: FeatureSource | None, config: Config, seed: int, rc: Tensor, device: Any
    ) -> None:
        self.config, self.seed, self.device = config, seed, device
        size = cut(config.data.patch)
        self.target = prepared.labels[rc[:, 0], rc[:, 1]]
        self.raw = prepared.patches(rc, size)
        self.guides = [] if features is None else features.patches(rc, size)
        self.count = len(rc)
        self.per_epoch = -(-self.count // config.train.batch)
        self.steps = config.train.epochs * self.per_epoch
        self.per_round = self.per_epoch

    def fit(self, network: Any) -> None:
        """Let the network see the data once before training, where it asks to."""
        if hasattr(network, "fit"):
            size = self.config.data.patch
            network.fit(turned(self.raw, 0, size).to(self.device), [turned(g, 0, size).to(self.device) for g in self.guides])

    def parts(self, step: int) -> Iterator[Part]:
        """This rank's parts of step ``step``."""
        epoch, i = divmod(step, self.per_epoch)
        order = torch.from_numpy(generator(self.seed, "batches", epoch).permutation(self.count))
        index = order[i * self.config.train.batch : (i + 1) * self.config.train.batch]
        x, maps = augmented(self.raw[index], [g[index] for g in self.guides], self.config, self.seed, step)
        for mine, some in shares(len(index), self.config.train.accumulate):
            chosen = index[mine]
            inputs = (x[mine].to(self.device), [m[mine].to(self.device) for m in maps])
            address = Address(dropout_seed(self.seed), chosen.to(self.device), step)
            yield Part(inputs, address, self.target[chosen].to(self.device), None, len(chosen) / len(index) if some else 0.0)


class View:
    """The scene as the network sees it, whole or with a modality hidden, and its guide maps, which are computed once."""

    def __init__(self, prepared: PreparedScene, features: FeatureSource | None, config: Config) -> None:
        self.prepared = prepared
        self.tile: Tile | None = None
        tile = tiles_of(features)
        if tile is not None:
            self.tile = StoredMaps(tile, prepared.height, prepared.width, config.features.tile).window


class DenseSamples:
    """Crops around training pixels; the loss is taken at every training pixel in their core.

    A step has ``train.crops`` crops of ``train.crop`` pixels, each laid at random over a training pixel and turned or flipped;
    an epoch takes each pixel once to lay a crop over. Labels near each other are seen more often: a label weighs the inverse of
    its expected visits. Crops and their guides are read when they are needed; each label's statistics are kept.
    ``targets`` (n, K) are class probabilities of the pixels in place of their labels; a network that learns them has no forests.
    """

    def __init__(
        self, prepared: PreparedScene, features: FeatureSource | None, config: Config, seed: int, rc: Tensor, device: Any,
        targets: Tensor | None = None,
    ) -> None:  # fmt: skip
        c = config.train
        self.prepared, self.config, self.seed, self.device, self.rc = prepared, config, seed, device, rc
        self.margin = config.model.map_radius
        self.core = c.crop - 2 * self.margin
        self.width = prepared.width
        flat = rc[:, 0] * self.width + rc[:, 1]
        self.sorted, self.order = flat.sort()
        self.target = prepared.labels[rc[:, 0], rc[:, 1]] if targets is None else targets
        self.views = [View(prepared, features, config)]
        for name in prepared.modality_names if learns_without(config.model, len(prepared.groups)) else ():
            self.views.append(View(*hiding(prepared, features, name), config))
        self.statistics: Tensor | None = None
        self.weight = 1 / self._visits()
        self.per_epoch = -(-len(rc) // c.crops)
        self.steps = min(c.epochs * self.per_epoch, c.most_steps)
        self.per_round = min(self.per_epoch, 50)

    def fit(self, network: Any) -> None:
        """Fit the context's axes, set what the heads standardise their inputs by, and grow the forests."""
        c = self.config
        if not c.model.statistics:
            return
        if network.context is not None:
            fit_context(network.context, self.prepared, c)
        found = [statistics_at(v.prepared, v.tile, c.model, self.rc, c.features.tile, network.context) for v in self.views]
        self.statistics = torch.stack(found).to(self.device)
        network.fit(self.statistics, self.target, self.seed)

    def _lookup(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Index of the training pixel at each (row, column), -1 where there is none."""
        inside = (rows >= 0) & (columns >= 0) & (rows < self.prepared.height) & (columns < self.width)
        wanted = rows * self.width + columns
        at = torch.searchsorted(self.sorted, wanted).clamp(max=len(self.sorted) - 1)
        return torch.where(inside & (self.sorted[at] == wanted), self.order[at], -1)

    def _visits(self) -> Tensor:
        """Expected visits of each label an epoch: over the labels near it, the share of the crops laid over them that cover it."""
        total, core = torch.zeros(len(self.rc)), self.core
        for dy in range(1 - core, core):
            for dx in range(1 - core, core):
                near = self._lookup(self.rc[:, 0] + dy, self.rc[:, 1] + dx) >= 0
                total += near * ((core - abs(dy)) * (core - abs(dx)) / core**2)
        return total

    def _hidden(self, step: int) -> np.ndarray:
        """The view (crops,) that each crop of a step is read from; 0 shows all modalities."""
        count = self.config.train.crops
        if len(self.views) == 1:
            return np.zeros(count, int)
        rng = generator(self.seed, "hidden", step)
        return np.where(rng.random(count) < self.config.model.hide_rate, rng.integers(1, len(self.views), count), 0)

    def _crops(self, step: int) -> tuple[Tensor, np.ndarray, Tensor]:
        """Upper left corners (crops, 2), turns (crops,) and the cores' labels (crops, core, core) of a step, turned."""
        count, n = self.config.train.crops, len(self.rc)
        drawn = []
        for k in range(step * count // n, ((step + 1) * count - 1) // n + 1):  # the permutations this step reaches into
            order = generator(self.seed, "batches", k).permutation(n)
            drawn.append(order[max(0, step * count - k * n) : (step + 1) * count - k * n])
        centre = self.rc[torch.from_numpy(np.concatenate(drawn))]
        rng = generator(self.seed, "windows", step)
        offset = torch.from_numpy(rng.integers(0, self.core, (count, 2)))
        turns = rng.integers(0, 8, count) if self.config.train.augment else np.zeros(count, int)
        top = centre - offset
        inside = torch.arange(self.core)
        labels = self._lookup(top[:, :1, None] + inside[:, None], top[:, 1:, None] + inside)
        labels = torch.stack([dihedral(own, int(turn)) for own, turn in zip(labels, turns, strict=True)])
        return top - self.margin, turns, labels

    def parts(self, step: int) -> Iterator[Part]:
        """This rank's parts of step ``step``."""
        c = self.config.train
        corners, turns, labels = self._crops(step)
        view_of = self._hidden(step)
        weights = torch.where(labels >= 0, self.weight[labels], 0.0).sum((1, 2))
        noise = None
        if c.noise:
            source = torch.Generator().manual_seed(int(generator(self.seed, "noise", step).integers(2**63)))
            noise = c.noise * torch.randn(len(corners), self.prepared.channels, c.crop + 2, c.crop + 2, generator=source)
        for mine, some in shares(len(corners), c.accumulate):
            crops = torch.arange(len(corners))[mine]
            x, guides = self._read(corners[mine], turns[mine], view_of[mine])
            if noise is not None:
                x = x + noise[mine]
            at = (labels[mine] >= 0).nonzero()
            own = labels[mine][at[:, 0], at[:, 1], at[:, 2]]
            samples = crops[at[:, 0]] * self.core**2 + at[:, 1] * self.core + at[:, 2]
            at[:, 1:] += self.margin
            views = torch.from_numpy(view_of[mine])[at[:, 0]]
            rows = None if self.statistics is None else self.statistics[views.to(self.device), own.to(self.device)]
            inputs = (x.to(self.device), [g.to(self.device) for g in guides], rows, at.to(self.device))
            weight = self.weight[own] / self.weight[own].sum()
            share = float(weights[mine].sum() / weights.sum()) if some else 0.0
            address = Address(dropout_seed(self.seed), samples.to(self.device), step)
            yield Part(inputs, address, self.target[own].to(self.device), weight.to(self.device), share)

    def _read(self, corners: Tensor, turns: np.ndarray, views: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        """Crops with the stem's frame of one pixel, and the guides there."""
        side, raw, guides = self.config.train.crop, [], []
        for (y, x), turn, number in zip(corners.tolist(), turns.tolist(), views.tolist(), strict=True):
            view = self.views[number]
            raw.append(dihedral(view.prepared.window(y - 1, x - 1, side + 2, side + 2), turn))
            guides.append([] if view.tile is None else [dihedral(g, turn) for g in view.tile(y, x, side, side)])
        return torch.stack(raw), [torch.stack(level) for level in zip(*guides, strict=True)]


def dropout_seed(seed: int) -> int:
    return int(generator(seed, "noise", DROPOUT_STREAM).integers(2**62))


def augmented(raw: Tensor, guides: list[Tensor], config: Config, seed: int, step: int) -> tuple[Tensor, list[Tensor]]:
    """Patches of squares of bands and guides: turned together (one of the eight ways per sample), and noise on both."""
    c, size = config.train, config.data.patch
    which = generator(seed, "augmentation", step + 2**32).integers(0, 8, len(raw)) if c.augment else np.zeros(len(raw), int)
    maps = [raw, *guides]
    patches = [torch.empty_like(m[..., :size, :size]) for m in maps]
    for k in range(8):
        mine = torch.from_numpy(np.flatnonzero(which == k))
        for m, target in zip(maps, patches, strict=True):
            target[mine] = turned(m[mine], k, size)
    raw, guides = patches[0], patches[1:]
    if c.noise:
        source = torch.Generator().manual_seed(int(generator(seed, "noise", step).integers(2**63)))
        raw = raw + c.noise * torch.randn(raw.shape, generator=source)
    if c.guide_noise:
        source = torch.Generator().manual_seed(int(generator(seed, "noise", step + 2**31).integers(2**63)))
        guides = [g + c.guide_noise * torch.randn(g.shape, generator=source) for g in guides]
    return raw, guides
