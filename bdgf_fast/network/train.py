"""Stage 3: training of the group network on labelled pixels and the diffusion features around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.named_tensors import with_prefix, without_prefix
from ..common.optimisation import Optimisation
from ..common.progress import Progress
from ..common.random_streams import generator
from ..common.ranks import leads, reduce_sum
from ..config import Config, TrainConfig
from ..data.prepared import PreparedScene
from ..errors import UserError
from ..features.source import FeatureSource
from ..files import checkpoint as ckpt
from .calibration import Calibration
from .group_network import DenseNetwork, GroupNetwork
from .losses import group_loss, ramp
from .samples import DenseSamples, Part, PatchSamples

KIND = "train"
PARTS = ("loss", "ce", "ce_fused", "entropy", "similarity")
PATCH_TRAINING = ("model.mode=patch", "train.epochs=40", "train.accumulate=1")
"""Settings of a network over patches that was tuned as such."""
Network = DenseNetwork | GroupNetwork
NETWORKS: dict[str, type[DenseNetwork] | type[GroupNetwork]] = {"dense": DenseNetwork, "patch": GroupNetwork}


def train(
    prepared: PreparedScene,
    features: FeatureSource | None,
    config: Config,
    *,
    seed: int,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    split: Any = None,
    device: torch.device | str = "cpu",
    network: Any = None,
    targets: Tensor | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Train the group network on the split's training pixels.

    Args:
        features: source of the guide maps; None trains without guidance.
        seed: decides weights, order, augmentation and noise; each is a function of (seed, step): resuming is exact.
        checkpoint, resume, progress: as in ``pretrain``; progress counts optimiser steps.
        split: defaults to ``prepared.split``. Its validation part, where there is one, is only reported, unless
            ``train.patience`` asks to stop by it.
        network: a network to train in place of a new ``GroupNetwork``: called like it, with its ``kinds`` and ``classes``.
            Its ``fit(patches, guides)`` is called before and what its ``penalty()`` gives is added to the loss, where it has them.
        targets: float32 (n, K), class probabilities of the training pixels that a dense network learns in place of their labels.

    Returns the network (averaged weights, evaluation mode) and the history: ``curves`` ({"step", "series"}),
    ``parameters``, and ``validation_accuracy`` where the split has a validation part. By default a fixed budget: no epoch
    is chosen by any accuracy.

    With torch.distributed every batch is divided over the ranks; the result is that of one process, up to rounding.
    Training patches and their features are held in memory: 4 * n * patch^2 * (C + sum of guide channels) bytes.
    Raises UserError when the split has no training pixel or the checkpoint does not fit.
    """
    c = config.train
    split = prepared.split if split is None else split
    check_split(split, config)
    network = (make_network(prepared, features, config, seed) if network is None else network).to(device)
    samples = _samples(network, prepared, features, config, seed, split.train, device, targets)
    samples.fit(network)
    steps, per_round = samples.steps, samples.per_round
    optimisation = Optimisation(network, c.learning_rate, c.weight_decay, c.warmup, steps, c.ema, c.clip_gradient)
    run = {
        "config": {k: config.to_dict()[k] for k in ("data", "features", "model", "train")},
        "seed": seed,
        "pixels": len(split.train),
        "network": describe_network(network, prepared, features),
    }
    log: dict[str, list[Any]] = {"step": [], **{name: [] for name in PARTS}}
    stopping = _Stopping(c.patience)
    start = 0
    if resume and checkpoint is not None and Path(checkpoint).is_file():
        tensors, meta = ckpt.load(checkpoint, KIND)
        ckpt.require_same_run(checkpoint, meta["run"], run)
        optimisation.load(tensors)
        stopping.load(meta["stopping"], without_prefix("best", tensors))
        start, log = meta["epoch"], meta["log"]
    stored: Any = features if hasattr(features, "tensors") else None
    feature_state = {} if stored is None else with_prefix("features", stored.tensors())
    forward = torch.compile(network) if c.compile else network
    rounds = -(-steps // per_round)
    for done in range(start, rounds):
        if stopping.stops(done):
            break
        network.train()
        own_steps = range(done * per_round, min(steps, (done + 1) * per_round))
        sums = torch.zeros(len(PARTS), dtype=torch.float64)
        for step in own_steps:
            total = torch.zeros(len(PARTS), dtype=torch.float64)
            for part in samples.parts(step):
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=c.precision == "bfloat16"):
                    output = forward(*part.inputs, part.address)
                loss, parts = _loss(network, output, part, c, ramp(step, steps, c.ramp))
                (loss * part.share).backward()
                total += part.share * torch.stack([parts[name].double().cpu() for name in PARTS])
            optimisation.apply(step)
            sums += total
            if progress is not None:
                progress(step + 1, steps, {"loss": float(total[0])})
        log["step"].append(own_steps[-1] + 1)
        for name, value in zip(PARTS, (reduce_sum(sums) / len(own_steps)).tolist(), strict=True):
            log[name].append(value)
        if c.patience:
            with optimisation.averaged():
                accuracy = _validation_accuracy(network, features, prepared, config, split)
            stopping.add(done + 1, accuracy, optimisation.average if c.ema else optimisation.parameters)
        last = done + 1 == rounds or stopping.stops(done + 1)
        if checkpoint is not None and ((done + 1) % c.checkpoint_every == 0 or last) and leads():
            if last and stopping.best:
                optimisation.settle(stopping.best)
            meta = {"epoch": done + 1, "run": run, "log": log, "features": stored.state() if feature_state else None,
                    "stopping": stopping.state()}  # fmt: skip
            ckpt.save(checkpoint, KIND, {**optimisation.tensors(), **feature_state, **stopping.tensors()}, meta)
    if stopping.best:
        optimisation.settle(stopping.best)
    optimisation.use_average()
    network.eval().requires_grad_(False)
    history = _history(network, log)
    if len(split.val):
        history["validation_accuracy"] = _validation_accuracy(network, features, prepared, config, split)
    return network, history


def _samples(
    network: Network, prepared: PreparedScene, features: FeatureSource | None, config: Config, seed: int, pixels: Any,
    device: torch.device | str, targets: Tensor | None,
) -> DenseSamples | PatchSamples:  # fmt: skip
    """What the network learns from, in the form that it takes; ``pixels`` are the training pixels (n, 2), an array or a tensor."""
    rc = torch.as_tensor(pixels, dtype=torch.int64)
    if isinstance(network, DenseNetwork):
        return DenseSamples(prepared, features, config, seed, rc, device, targets)
    if targets is None:
        return PatchSamples(prepared, features, config, seed, rc, device)
    raise UserError('only the dense network learns from probabilities; set model.mode = "dense"')


def _history(network: Any, log: dict[str, list[Any]]) -> dict[str, Any]:
    """Curves of the losses there are (those between branches need two of them), and the number of parameters."""
    single = len(getattr(network, "branches", network.kinds)) - getattr(network, "twins", 0) == 1
    shown = [name for name in PARTS if not (single and name in PARTS[2:])]
    return {
        "curves": {"step": log["step"], "series": {name: log[name] for name in shown}},
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def check_split(split: Any, config: Config) -> None:
    """Raise UserError when ``train`` cannot work on the split; a run asks before it pre-trains."""
    if not len(split.train):
        raise UserError("the split has no training pixel; change the scene's [split] table")
    if config.train.patience and not len(split.val):
        raise UserError("train.patience needs a validation part, which this split lacks; set val_blocks in [split]")


def _loss(network: Any, output: Any, part: Part, c: TrainConfig, factor: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one part of a step, and its detached summands by the names in ``PARTS``."""
    loss = torch.zeros((), device=part.target.device)
    parts = dict.fromkeys(PARTS, loss)
    for group in output.parts():
        seen = group.features if part.share else [f * 0 for f in group.features]
        own, found = group_loss(
            [z.float() for z in group.logits], seen, group.log_fused.float(), part.target, c, factor, part.weight
        )
        loss = loss + own
        parts |= {name: parts[name] + value for name, value in found.items()}
    if hasattr(network, "penalty"):
        loss = loss + network.penalty()
    parts["loss"] = loss.detach()
    return loss, parts


def _validation_accuracy(network: Network, features: Any, prepared: PreparedScene, config: Config, split: Any) -> float:
    """Overall accuracy on the validation part."""
    from .predict import predict_pixels

    val = torch.as_tensor(split.val, dtype=torch.int64)
    training = network.training
    network.eval()
    fused = predict_pixels(network, features, prepared, config, val, refined=False).probabilities.argmax(1)
    network.train(training)
    return float((fused == prepared.labels[val[:, 0], val[:, 1]]).double().mean())


class _Stopping:
    """Early stopping: the best validation accuracy so far, when it was, and the weights it was reached with."""

    def __init__(self, patience: int) -> None:
        self.patience, self.accuracy, self.epoch = patience, -1.0, 0
        self.best: list[Tensor] = []

    def add(self, epoch: int, accuracy: float, weights: Sequence[Tensor]) -> None:
        if accuracy > self.accuracy:
            self.accuracy, self.epoch, self.best = accuracy, epoch, [w.detach().clone() for w in weights]

    def stops(self, epoch: int) -> bool:
        """Whether the training ends after ``epoch`` epochs."""
        return bool(self.patience) and epoch - self.epoch >= self.patience

    def state(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "epoch": self.epoch}

    def tensors(self) -> dict[str, Tensor]:
        return {f"best.{i}": w for i, w in enumerate(self.best)}

    def load(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.accuracy, self.epoch = state["accuracy"], state["epoch"]
        self.best = [tensors[str(i)] for i in range(len(tensors))]


def make_network(prepared: PreparedScene, features: FeatureSource | None, config: Config, seed: int) -> Network:
    """A new network for a scene and its features, its weights decided by ``seed``."""
    torch.manual_seed(int(generator(seed, "weights", 1).integers(2**63)))
    guides = () if features is None else features.channels
    return NETWORKS[config.model.mode](prepared.groups, guides, len(prepared.classes), config.model)


def describe_network(network: Network, prepared: PreparedScene, features: FeatureSource | None) -> dict[str, Any]:
    """JSON-able facts from which ``load_network`` builds the same network."""
    return {
        "groups": list(prepared.groups),
        "guides": [] if features is None else list(features.channels),
        "classes": len(prepared.classes),
        "branches": list(network.kinds),
    }


def load_network(path: Path | str, config: Config) -> tuple[Network, Any, dict[str, Tensor]]:
    """The averaged network of a checkpoint that ``train`` wrote, with the features' state and tensors (for
    ``DiffusionFeatures.restore``; None where features of another kind, or none, were used). Raises UserError."""
    tensors, meta = ckpt.load(path, KIND)
    facts = meta["run"]["network"]
    model = Config.from_dict({"model": meta["run"]["config"]["model"]}).model
    try:
        network = NETWORKS[model.mode](facts["groups"], facts["guides"], facts["classes"], model)
        network.load_state_dict({**without_prefix("model", tensors), **without_prefix("average", tensors)})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path} holds a network that this version of bdgf_fast does not build; train again") from error
    network.eval().requires_grad_(False)
    network.calibration = Calibration.from_meta(meta.get("calibration"))
    return network, meta["features"], without_prefix("features", tensors)
