"""Channel exchange between modality branches, after CEN (Wang et al., arXiv 2011.05005), in a small form.

One branch a modality, convolutions shared, norms private. The scale of a norm tells what a channel is worth to its
modality: where it falls below a threshold, the channel is replaced by the mean of the other modalities' channel of the
same index. An L1 penalty on the scales makes room, for a disjoint part of the channels in each modality, so that no index
is given up by all. The prediction weighs the branches' logits by learned weights.

Ours, not the paper's: LayerNorm per pixel in place of BatchNorm (a result must not depend on the batch), patches and not
images, scales stored divided by ``GAIN`` (a few hundred steps of AdamW, each about as long as the learning rate, would
not move a scale from 1 to the threshold). On the built-in scene about half of the channels that may be are exchanged after
200 steps, and none after 50: then it is one CNN a modality with shared convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.layers import PixelNorm
from ..common.random_streams import generator
from ..config import Config, ModelConfig
from ..data.prepared import PreparedScene
from ..network.group_network import GroupOutput
from ..network.head import Address, Head, pooled
from ..network.train import PATCH_TRAINING, train

GAIN = 8.0
THRESHOLD = 0.02
PENALTY = 2e-3
"""Weight of the sum of the penalised channels' absolute scales."""


class ExchangeNorm(nn.Module):
    """Per-pixel norm of M maps (B, C, H, W) with private scales, then the exchange."""

    penalised: Tensor

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((modalities, width), 1 / GAIN))
        self.bias = nn.Parameter(torch.zeros(modalities, width))
        part = torch.arange(width) * modalities // width
        self.register_buffer("penalised", part == torch.arange(modalities)[:, None], persistent=False)

    def exchanged(self) -> Tensor:
        """bool (M, C): the channels that are replaced."""
        return self.penalised & (GAIN * self.scale.detach().abs() < THRESHOLD)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        normed = [
            F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], GAIN * s, b).permute(0, 3, 1, 2)
            for x, s, b in zip(maps, self.scale, self.bias, strict=True)
        ]
        total = torch.stack(normed).sum(0)
        return [
            torch.where(away[:, None, None], (total - y) / (len(normed) - 1), y)
            for y, away in zip(normed, self.exchanged(), strict=True)
        ]


class ExchangeStage(nn.Module):
    """x_m + conv(silu(exchange(norm_m(conv(silu(norm_m(x_m))))))), the convolutions shared by the modalities."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(PixelNorm(width) for _ in range(modalities))
        self.conv1, self.exchange = nn.Conv2d(width, width, 3, padding=1), ExchangeNorm(modalities, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inner = self.exchange([self.conv1(F.silu(norm(x))) for norm, x in zip(self.norms, maps, strict=True)])
        return [x + self.conv2(F.silu(y)) for x, y in zip(maps, inner, strict=True)]


class ChannelExchangeNetwork(nn.Module):
    """Args: ``groups`` = channels per modality (two or more), ``names`` of the modalities, ``classes``, config.

    Called like ``GroupNetwork``, without guides; its branches are the modalities.
    """

    def __init__(self, groups: Sequence[int], names: Sequence[str], classes: int, config: ModelConfig) -> None:
        super().__init__()
        if len(groups) < 2:
            raise ValueError("channels are exchanged between two modalities or more, the scene has one")
        self.kinds, self.groups, self.classes = tuple(names), tuple(groups), classes
        self.stems = nn.ModuleList(nn.Conv2d(c, config.width, 3, padding=1) for c in groups)
        self.stages = nn.ModuleList(ExchangeStage(len(groups), config.width) for _ in range(config.stages))
        self.heads = nn.ModuleList(Head(config.width, classes, config.width, 0.0) for _ in groups)
        self.weights = nn.Parameter(torch.zeros(len(groups)))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form

    def forward(self, x: Tensor, guides: Sequence[Tensor] = (), address: Address | None = None) -> GroupOutput:
        x = x.contiguous(memory_format=torch.channels_last)
        maps = [stem(part) for stem, part in zip(self.stems, x.split(self.groups, 1), strict=True)]
        for stage in self.stages:
            maps = stage(maps)
        features, logits = [], []
        for i, (head, y) in enumerate(zip(self.heads, maps, strict=True)):
            feature, logit = head(pooled([y]), address=None if address is None else replace(address, seed=address.seed + i))
            features.append(feature)
            logits.append(logit)
        fused = (self.weights.softmax(0)[:, None, None] * torch.stack(logits)).sum(0)
        return GroupOutput(logits, features, F.log_softmax(fused, 1))

    def penalty(self) -> Tensor:
        """What training adds to the loss: L1 of the penalised scales."""
        return PENALTY * torch.stack([(GAIN * norm.scale)[norm.penalised].abs().sum() for norm in self._norms()]).sum()

    def exchanged_share(self) -> float:
        """Share of the channels that may be exchanged which are."""
        return float(torch.cat([norm.exchanged()[norm.penalised] for norm in self._norms()]).float().mean())

    def _norms(self) -> list[ExchangeNorm]:
        return [m for m in self.modules() if isinstance(m, ExchangeNorm)]


def channel_exchange(prepared: PreparedScene, config: Config, seed: int, **how: Any) -> tuple[ChannelExchangeNetwork, None]:
    """Train it on the split's training pixels, without mutual learning; ``how`` goes to ``train``."""
    torch.manual_seed(int(generator(seed, "weights", 1).integers(2**63)))
    config = config.override(*PATCH_TRAINING, "train.lambda_entropy=0", "train.lambda_similarity=0")
    network = ChannelExchangeNetwork(prepared.groups, prepared.modality_names, len(prepared.classes), config.model)
    train(prepared, None, config, seed=seed, network=network, **how)  # in place
    return network, None
