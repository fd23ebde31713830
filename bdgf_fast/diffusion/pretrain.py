"""Stage 1: pre-training of the multimodal denoiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.augmentation import dihedral
from ..common.named_tensors import without_prefix
from ..common.optimisation import Optimisation
from ..common.progress import Progress
from ..common.random_streams import generator
from ..common.ranks import leads, ranks, reduce_mean, reduce_sum
from ..config import Config, PretrainConfig
from ..data.prepared import PreparedScene
from ..errors import UserError
from ..files import checkpoint as ckpt
from ..ops import denoising_loss
from .crops import Crops
from .denoiser import Denoiser
from .evaluation import BATCH, INFLUENCE_BELOW, evaluate_denoiser
from .masking import MaskingPolicy, make_policy, measure_influence

KIND = "pretrain"


def pretrain(
    prepared: PreparedScene | Sequence[PreparedScene],
    config: Config,
    *,
    seed: int,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Denoiser, dict[str, Any]]:
    """Pre-train a denoiser on a prepared scene, or on several that are prepared alike, without labels.

    Args:
        prepared: the scene (``bdgf_fast.data.PreparedScene``); with ``pretrain.region = "train"`` its split's
            ``train_region`` is used. Or several, whose crops are drawn in proportion to their pixels (see ``Crops``); a modality
            that a scene has not is hidden in its crops and takes no part in their loss.
        seed: decides weights, crops, timesteps, masks and noise. Each is a function of (seed, step), so a resumed run
            gives the same bits as an uninterrupted one.
        checkpoint: file to write every ``pretrain.checkpoint_every`` steps and at the end.
        resume: go on from ``checkpoint`` where it exists; a finished one is returned as it is.
        progress: called with (steps done, steps, {"loss": ...}) after each step.

    Returns the denoiser (averaged weights, in evaluation mode) and the history: ``curves`` ({"step", "series": {label:
    values}}), ``modalities`` ({name: {mask_rate, influence, visible_r2, hidden_r2}}), ``balance``, ``evaluations``
    (the same figures over time). With torch.distributed the batch is divided over the ranks, and the result is the
    same up to rounding.

    Raises UserError for a checkpoint that is damaged or was made with another configuration, seed or set of modalities.
    """
    c = config.pretrain
    scenes = [prepared] if isinstance(prepared, PreparedScene) else list(prepared)
    torch.manual_seed(int(generator(seed, "weights").integers(2**63)))
    denoiser = Denoiser.create(scenes[0].groups, scenes[0].modality_names, c).to(device)
    optimisation = Optimisation(
        denoiser.unet, c.learning_rate, c.weight_decay, c.warmup, c.steps, c.ema, c.clip_gradient
    )
    policy = make_policy(c, len(denoiser.groups))
    region = None
    if c.region == "train":
        if len(scenes) > 1:
            raise UserError('pretrain.region is "train", which is a part of one scene; several scenes are seen whole: "scene"')
        assert scenes[0].split is not None, "the scene has no split: make one with make_split and prepare"
        region = scenes[0].split.train_region
    crops = Crops(scenes, c, region)
    run = {"config": config.to_dict()["pretrain"], "seed": seed, "denoiser": denoiser.describe()}
    log = _Log(denoiser.names, c.steps)
    start = 0
    if resume and checkpoint is not None and Path(checkpoint).is_file():
        tensors, meta = ckpt.load(checkpoint, KIND)
        ckpt.require_same_run(checkpoint, meta["run"], run)
        start = meta["step"]
        policy.load(meta["policy"])
        log.load(meta["log"])
        optimisation.load(tensors)
    for step in range(start, c.steps):
        x0, absent = _batch(crops, c, seed, step, *ranks())
        losses = _step(denoiser, policy, optimisation, x0.to(device), absent.to(device), c, seed, step)
        log.add(step, losses, ~absent, policy)
        if policy.wants_influence and step % c.mask_every == 0:
            x0, absent = _batch(crops, c, seed, step)
            whole = ~absent.any(1)
            if int(whole.sum()) >= 2:  # an influence is that of a modality among all of them
                policy.update(_influence(denoiser, x0[whole].to(device), seed, step))
        done = step + 1
        if done % c.evaluate_every == 0 or done == c.steps:
            with optimisation.averaged():
                log.evaluations.append(
                    {
                        "step": done,
                        "mask_rate": policy.rates().tolist(),
                        **evaluate_denoiser(denoiser, crops, seed),
                    }
                )
        if checkpoint is not None and (done % c.checkpoint_every == 0 or done == c.steps) and leads():
            meta = {"step": done, "run": run, "policy": policy.state(), "log": log.state()}
            ckpt.save(checkpoint, KIND, optimisation.tensors(), meta)
        if progress is not None:
            progress(done, c.steps, {"loss": float(losses.mean(0).sum() / len(denoiser.groups))})
    optimisation.use_average()
    if not log.evaluations:  # an untrained control
        log.evaluations.append(
            {"step": 0, "mask_rate": policy.rates().tolist(), **evaluate_denoiser(denoiser, crops, seed)}
        )
        if checkpoint is not None and leads():
            ckpt.save(
                checkpoint,
                KIND,
                optimisation.tensors(),
                {"step": 0, "run": run, "policy": policy.state(), "log": log.state()},
            )
    denoiser.unet.eval().requires_grad_(False)
    return denoiser, log.history()


def load_denoiser(path: Path | str) -> Denoiser:
    """The averaged denoiser of a checkpoint that ``pretrain`` wrote. Raises UserError."""
    tensors, meta = ckpt.load(path, KIND)
    denoiser = Denoiser.restore(meta["run"]["denoiser"], without_prefix("average", tensors))
    denoiser.unet.eval().requires_grad_(False)
    return denoiser


def _batch(crops: Crops, c: PretrainConfig, seed: int, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
    """A rank's crops of the step's batch (by default all of them): (b, C, crop, crop), and what they have not: bool (b, M)."""
    corners = crops.draw(generator(seed, "crops", step), c.batch)
    turns = generator(seed, "augmentation", step).integers(0, 8, c.batch)
    windows = [
        dihedral(crops.window(corner), int(turns[i]) if c.augment else 0) for i, corner in enumerate(corners) if i % world == rank
    ]
    x0 = torch.stack(windows) if windows else torch.empty(0, crops.scenes[0].channels, crops.size, crops.size)
    return x0, crops.absent([scene for scene, _, _ in corners[rank::world]])


def _step(
    denoiser: Denoiser,
    policy: MaskingPolicy,
    optimisation: Optimisation,
    x0: Tensor,
    absent: Tensor,
    c: PretrainConfig,
    seed: int,
    step: int,
) -> Tensor:
    """One optimiser step; returns the unweighted losses (b, M), 0 where the sample has not the modality, detached."""
    rank, world = ranks()
    mine = torch.arange(rank, c.batch, world, device=x0.device)
    t = torch.from_numpy(generator(seed, "timesteps", step).integers(0, c.timesteps, c.batch)).to(x0.device)[mine]
    uniform = torch.from_numpy(generator(seed, "masks", step).random((c.batch, len(denoiser.groups) + 1)))
    hidden = policy.draw(uniform).to(x0.device)[mine] | absent
    hidden = torch.where(hidden.all(1, keepdim=True), absent, hidden)  # the one that stays may be one that is not there
    noisy = denoiser.noisy(x0, t, seed, hidden=hidden, sample_ids=mine, stream=step)
    with torch.autocast(x0.device.type, torch.bfloat16, enabled=c.precision == "bfloat16"):
        prediction = denoiser.unet(noisy, t, ~hidden)
    prediction = prediction.float()
    losses = denoising_loss(
        prediction,
        t,
        denoiser.schedule,
        seed,
        x0=x0,
        prediction_type=c.prediction,
        channel_groups=denoiser.groups,
        hidden=hidden,
        min_snr_gamma=c.min_snr_gamma or None,
        sample_ids=mine,
        stream=step,
    )
    losses = losses * ~absent
    weights = torch.full((len(denoiser.groups),), 1 / len(denoiser.groups), device=x0.device)
    if c.weights == "channels":
        weights = torch.tensor(denoiser.groups, device=x0.device) / sum(denoiser.groups)
    optimisation.step((losses * weights).sum() / c.batch, step)
    return losses.detach()


def _influence(denoiser: Denoiser, x0: Tensor, seed: int, step: int) -> Tensor:
    t = torch.from_numpy(
        generator(seed, "influence", step).integers(0, max(1, int(INFLUENCE_BELOW * denoiser.timesteps)), len(x0))
    ).to(x0.device)
    noisy = denoiser.noisy(x0[:BATCH], t[:BATCH], seed, stream=step)
    return reduce_mean(measure_influence(denoiser.unet, noisy, t[:BATCH], denoiser.groups)).cpu()


class _Log:
    """Loss per modality, averaged over at most 200 intervals, and the evaluations."""

    def __init__(self, names: tuple[str, ...], steps: int) -> None:
        self.names, self.every = names, max(1, math.ceil(steps / 200))
        self.sums, self.counts = np.zeros(len(names)), np.zeros(len(names), int)
        self.steps: list[int] = []
        self.losses: list[list[float]] = []
        self.rates: list[list[float]] = []
        self.evaluations: list[dict[str, Any]] = []

    def add(self, step: int, losses: Tensor, present: Tensor, policy: MaskingPolicy) -> None:
        total = reduce_sum(torch.stack([losses.double().sum(0), present.sum(0).to(losses.device).double()])).cpu().numpy()
        self.sums += total[0] / total[1].clip(min=1)
        self.counts += total[1] > 0
        if (step + 1) % self.every == 0:
            self.steps.append(step + 1)
            self.losses.append((self.sums / self.counts.clip(min=1)).tolist())
            self.rates.append(policy.rates().tolist())
            self.sums, self.counts = np.zeros(len(self.names)), np.zeros(len(self.names), int)

    def state(self) -> dict[str, Any]:
        return {
            "sums": self.sums.tolist(),
            "count": self.counts.tolist(),
            "steps": self.steps,
            "losses": self.losses,
            "rates": self.rates,
            "evaluations": self.evaluations,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.__dict__.update({key: value for key, value in state.items() if key != "count"})
        self.sums = np.array(state["sums"])
        self.counts = np.array(np.broadcast_to(state["count"], len(self.names)))  # one number in checkpoints of one scene's time

    def history(self) -> dict[str, Any]:
        last = self.evaluations[-1]
        figures = ("mask_rate", "influence", "visible_r2", "hidden_r2")
        return {
            "curves": {
                "step": self.steps,
                "series": {n: [row[m] for row in self.losses] for m, n in enumerate(self.names)},
            },
            "mask_rates": {n: [row[m] for row in self.rates] for m, n in enumerate(self.names)},
            "modalities": {n: {key: last[key][m] for key in figures} for m, n in enumerate(self.names)},
            "balance": last["balance"],
            "evaluations": self.evaluations,
        }
