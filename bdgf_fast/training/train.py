"""Stage 3: training of the group network on labelled patches and their diffusion features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..diffusion.crops import dihedral, generator
from ..diffusion.features import FeatureSource
from ..errors import UserError
from ..models import GroupNetwork
from . import checkpoint as ckpt
from .losses import group_loss, ramp
from .optimisation import Optimisation, ranks, reduce_sum

KIND = "train"
PARTS = ("loss", "ce", "ce_fused", "entropy", "similarity")
Progress = Callable[[int, int, dict[str, float]], None]


def train(
    prepared: Any,
    features: FeatureSource | None,
    config: Config,
    *,
    seed: int,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    split: Any = None,
    device: torch.device | str = "cpu",
) -> tuple[GroupNetwork, dict[str, Any]]:
    """Train the group network on the split's training pixels.

    Args:
        features: source of the guide maps; None trains without guidance.
        seed: decides weights, order, augmentation and noise; each is a function of (seed, step): resuming is exact.
        checkpoint, resume, progress: as in ``pretrain``; progress counts optimiser steps.
        split: defaults to ``prepared.split``. Its validation part, where there is one, is only reported.

    Returns the network (averaged weights, evaluation mode) and the history: ``curves`` ({"step", "series"}),
    ``parameters``, and ``validation_accuracy`` where the split has a validation part. A fixed budget: no epoch is
    chosen by any accuracy.

    With torch.distributed every batch is divided over the ranks; L_sim then compares within a rank's share of it.
    Training patches and their features are held in memory: 4 * n * patch^2 * (C + sum of guide channels) bytes.
    Raises UserError when the split has no training pixel or the checkpoint does not fit.
    """
    c = config.train
    split = prepared.split if split is None else split
    rc = torch.as_tensor(split.train, dtype=torch.int64)
    if len(rc) == 0:
        raise UserError("the split has no training pixel; change the scene's [split] table")
    size = config.data.patch
    target = prepared.labels[rc[:, 0], rc[:, 1]]
    raw = prepared.patches(rc, size)
    guides = [] if features is None else features.patches(rc, size)
    network = make_network(prepared, features, config, seed).to(device)
    per_epoch = -(-len(rc) // c.batch)
    steps = c.epochs * per_epoch
    optimisation = Optimisation(network, c.learning_rate, c.weight_decay, c.warmup, steps, c.ema, c.clip_gradient)
    run = {
        "config": {k: config.to_dict()[k] for k in ("data", "features", "model", "train")},
        "seed": seed,
        "pixels": len(rc),
        "network": describe_network(network, prepared, features),
    }
    log = {"step": [], **{name: [] for name in PARTS}}
    start = 0
    if resume and checkpoint is not None and Path(checkpoint).is_file():
        tensors, meta = ckpt.load(checkpoint, KIND)
        ckpt.require_same_run(checkpoint, meta["run"], run)
        optimisation.load(tensors)
        start, log = meta["epoch"], meta["log"]
    feature_state = (
        {} if features is None or not hasattr(features, "tensors") else ckpt.with_prefix("features", features.tensors())
    )
    rank, world = ranks()
    for epoch in range(start, c.epochs):
        network.train()
        order = torch.from_numpy(generator(seed, "batches", epoch).permutation(len(rc)))
        sums = torch.zeros(len(PARTS), dtype=torch.float64)
        for i, index in enumerate(order.split(c.batch)):
            step = epoch * per_epoch + i
            x, maps = augmented(raw[index], [g[index] for g in guides], config, seed, step)
            mine = slice(rank, None, world)
            share = len(index[mine]) / len(index)
            torch.manual_seed(int(generator(seed, "noise", step + 2**32 * (1 + rank)).integers(2**63)))  # dropout
            if share:
                output = network(x[mine].to(device), [m[mine].to(device) for m in maps])
                loss, parts = group_loss(
                    output.logits, output.features, output.log_fused, target[index[mine]].to(device), c,
                    ramp(step, steps, c.ramp),
                )  # fmt: skip
            else:  # more ranks than samples in the last batch: take part in the sum of the gradients with zeros
                loss, parts = sum((p * 0).sum() for p in network.parameters()), {}
            optimisation.step(loss * share, step)
            parts["loss"] = loss.detach()
            sums += share * torch.stack([parts.get(name, loss.new_zeros(())).double().cpu() for name in PARTS])
            if progress is not None:
                progress(step + 1, steps, {"loss": float(loss.detach())})
        log["step"].append((epoch + 1) * per_epoch)
        for name, value in zip(PARTS, (reduce_sum(sums) / per_epoch).tolist(), strict=True):
            log[name].append(value)
        if (
            checkpoint is not None
            and ((epoch + 1) % c.checkpoint_every == 0 or epoch + 1 == c.epochs)
            and ranks()[0] == 0
        ):
            meta = {"epoch": epoch + 1, "run": run, "log": log, "features": features.state() if feature_state else None}
            ckpt.save(checkpoint, KIND, {**optimisation.tensors(), **feature_state}, meta)
    optimisation.use_average()
    network.eval().requires_grad_(False)
    single = len(network.kinds) == 1
    shown = [name for name in PARTS if not (single and name in PARTS[2:])]
    history = {
        "curves": {"step": log["step"], "series": {name: log[name] for name in shown}},
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    val = torch.as_tensor(split.val, dtype=torch.int64)
    if len(val):
        from .predict import predict_pixels

        fused = predict_pixels(network, features, prepared, config, val).probabilities.argmax(1)
        history["validation_accuracy"] = float((fused == prepared.labels[val[:, 0], val[:, 1]]).double().mean())
    return network, history


def make_network(prepared: Any, features: FeatureSource | None, config: Config, seed: int) -> GroupNetwork:
    """A new network for a scene and its features, its weights decided by ``seed``."""
    torch.manual_seed(int(generator(seed, "weights", 1).integers(2**63)))
    guides = () if features is None else features.channels
    return GroupNetwork(prepared.channels, guides, len(prepared.classes), config.model)


def describe_network(network: GroupNetwork, prepared: Any, features: FeatureSource | None) -> dict[str, Any]:
    """JSON-able facts from which ``load_network`` builds the same network."""
    return {
        "channels": prepared.channels,
        "guides": [] if features is None else list(features.channels),
        "classes": len(prepared.classes),
        "branches": list(network.kinds),
    }


def load_network(path: Path | str, config: Config) -> tuple[GroupNetwork, dict[str, Any] | None, dict[str, Tensor]]:
    """The averaged network of a checkpoint that ``train`` wrote, with the features' state and tensors (for
    ``DiffusionFeatures.restore``; None where features of another kind, or none, were used). Raises UserError."""
    tensors, meta = ckpt.load(path, KIND)
    facts = meta["run"]["network"]
    model = Config.from_dict({"model": meta["run"]["config"]["model"]}).model
    network = GroupNetwork(facts["channels"], facts["guides"], facts["classes"], model)
    network.load_state_dict(ckpt.without_prefix("average", tensors))
    network.eval().requires_grad_(False)
    return network, meta["features"], ckpt.without_prefix("features", tensors)


def augmented(raw: Tensor, guides: list[Tensor], config: Config, seed: int, step: int) -> tuple[Tensor, list[Tensor]]:
    """Rotations and flips of patch and guides together (one of the eight per sample), and noise on bands and guides."""
    c = config.train
    if c.augment:
        which = generator(seed, "augmentation", step + 2**32).integers(0, 8, len(raw))
        maps = [raw, *guides]
        turned = [torch.empty_like(m) for m in maps]
        for k in range(8):
            mine = torch.from_numpy(np.flatnonzero(which == k))
            for m, target in zip(maps, turned, strict=True):
                target[mine] = dihedral(m[mine], k)
        raw, guides = turned[0], turned[1:]
    if c.noise:
        source = torch.Generator().manual_seed(int(generator(seed, "noise", step).integers(2**63)))
        raw = raw + c.noise * torch.randn(raw.shape, generator=source)
    if c.guide_noise:
        source = torch.Generator().manual_seed(int(generator(seed, "noise", step + 2**31).integers(2**63)))
        guides = [g + c.guide_noise * torch.randn(g.shape, generator=source) for g in guides]
    return raw, guides
