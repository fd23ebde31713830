"""One run: its stages over a run directory, each of them resumable, and the report at the end.

    pretrain  -> checkpoints/denoiser.safetensors
    train     -> checkpoints/network.safetensors (with the features' projection)
    predict   -> probabilities.tif, map.tif, map.png
    evaluate  -> report.json, report.html and its pictures
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..data import (
    PreparedScene,
    Scene,
    load_scene,
    make_split,
    prepare,
    synthetic_scene,
)
from ..data.export import atomic
from ..data.known_sets import absolute_reference
from ..data.ranges import warn_of_values
from ..diffusion import ArrayFeatures, DiffusionFeatures
from ..diffusion.denoiser import Denoiser
from ..errors import UserError
from .baselines import FORESTS, GUIDED_FOREST, available, predict_baseline
from .dense import reach
from .embedding import EMBEDDING, embed
from .memory import peak_memory_bytes
from .metrics import by_distance, diversity, scores
from .predict import predict_pixels
from .pretrain import load_denoiser, pretrain
from .progress import bar
from .ranks import barrier, leads
from .report import render
from .rundir import STAGES, RunDirectory, read_json, write_json
from .tensorboard import Log
from .train import check_split, load_network, train
from .versions import versions
from .whole_scene import Blocks, assemble, fit_to_memory, predict_blocks, within

SYNTHETIC = "synthetic"
LABELS = "labels.npz"
NO_TEST = "{}: the split leaves no test pixel; choose smaller blocks or a smaller train_fraction"
METRICS = ("overall_accuracy", "average_accuracy", "kappa")


def open_scene(reference: str) -> Scene:
    """The scene a person named: a TOML file, NAME:FOLDER of a known data set, or the built-in one."""
    return synthetic_scene() if reference == SYNTHETIC else load_scene(reference)


class Run:
    """A run directory with its scene, split and configuration.

    Args:
        directory: the run's directory.
        reference: a scene file, NAME:FOLDER or "synthetic".
        config: the whole configuration.
        seed: of the split, the weights and all noise.
        modalities: use these alone (default: all).
        quiet: no progress.
        device: where the networks run.
        tensorboard: also write logs for TensorBoard, to DIR/tensorboard.
    """

    def __init__(self, directory: RunDirectory, reference: str, config: Config, seed: int, *,
                 modalities: list[str] | None = None, quiet: bool = False, device: torch.device | str = "cpu",
                 tensorboard: bool = False):
        self.directory, self.config, self.seed, self.device = directory, config, seed, torch.device(device)
        self.quiet = quiet or not leads()
        self.reference = reference if reference == SYNTHETIC else absolute_reference(reference)
        self.modalities = modalities
        self.log = Log(directory / "tensorboard") if tensorboard and leads() else None
        self._bind()
        self.scene = open_scene(self.reference)
        patch = config.data.patch
        if config.model.mode == "patch" and patch > min(self.scene.height, self.scene.width):
            raise UserError(f"data.patch is {patch} pixels, larger than the scene ({self.scene.height} x {self.scene.width}); "
                            f"--set data.patch={min(self.scene.height, self.scene.width)} or less")
        self.split = make_split(self.scene, patch=patch, seed=seed, reach=reach(config))
        check_split(self.split, config)
        self.prepared: PreparedScene = prepare(self.scene, self.split)
        if modalities is not None:
            self.prepared = self.prepared.select(modalities)
        if not (directory / "scene.json").exists():
            write_json(directory / "scene.json", self.prepared.state())
        barrier()

    @classmethod
    def reopen(cls, path: Path, *, quiet: bool = False, device: torch.device | str = "cpu", tensorboard: bool = False) -> Run:
        """The run in `path`, as it was configured when it began."""
        directory = RunDirectory.open(path)
        settings = read_json(directory / "config.json")
        return cls(directory, settings["scene"], Config.from_dict(settings["config"]), settings["seed"],
                   modalities=settings["modalities"], quiet=quiet, device=device, tensorboard=tensorboard)

    def _bind(self) -> None:
        """Write config.json, or check that a resumed directory was begun with the same settings."""
        settings = {"scene": self.reference, "seed": self.seed, "modalities": self.modalities, "config": self.config.to_dict()}
        path = self.directory / "config.json"
        if not path.exists():
            write_json(path, settings)
            self.directory.mark("configured")
            return
        before = read_json(path)
        changed = sorted(_leaves(before).items() ^ _leaves(settings).items())
        if changed:
            names = ", ".join(sorted({name for name, _ in changed}))
            raise UserError(f"{self.directory.path} was begun with other settings ({names}); "
                            "resume with the same ones, or --overwrite")

    # --- stages ---

    def pretrain(self) -> None:
        """Stage 1. Goes on from its checkpoint where one is there; nothing to do where another model's features guide."""
        with self._stage("pretrain", "diffusion model") as progress:
            if self.config.features.path:
                return
            _, history = pretrain(self.prepared, self.config, seed=self.seed, checkpoint=self._checkpoint("denoiser"), resume=True,
                                  progress=progress, device=self.device)
            self._remember("pretrain", history)

    def train(self) -> None:
        """Stages 2 and 3: fit the features' projection, then train the group network."""
        self.directory.require("pretrain", "pretrain")
        with self._stage("train", "group network") as progress:
            if self.config.features.path:
                features: DiffusionFeatures = ArrayFeatures.fit(self.prepared, self.config, self.seed, self.config.features.path)
            else:
                features = DiffusionFeatures.fit(self.denoiser(), self.prepared, self.config, self.seed)
            _, history = train(self.prepared, features, self.config, seed=self.seed, checkpoint=self._checkpoint("network"),
                               resume=True, progress=progress, device=self.device)
            self._remember("train", history)

    def restart_training(self) -> None:
        """Forget a training that ended or was stopped, so that `train` begins anew."""
        self.directory.forget("train", "predict", "evaluate")
        if leads():
            self._checkpoint("network").unlink(missing_ok=True)
        barrier()

    def predict(self, reference: str | None = None, out: Path | None = None, *, memory: int | None = None, stride: int = 1,
                maps: Sequence[Path] | None = None, precision: str | None = None) -> None:
        """The whole scene, block by block: probabilities.tif, map.tif, map.png. A killed prediction goes on.

        Args:
            reference: another scene with the same modalities (default: the run's own).
            out: where the files go (default: the run's directory).
            memory: resident bytes to stay within; decides the size of a block.
            stride: classify every stride-th pixel and interpolate the probabilities.
            maps: the other scene's feature maps, where another model's guide (default: the run's own).
            precision: in place of the run's `predict.precision`.
        """
        if maps and not self.config.features.path:
            raise UserError("--features: this run's network is guided by its own denoiser, not by maps of another model")
        self.directory.require("train", "train")
        prepared, target = self.prepared, Path(out or self.directory.path)
        if reference is not None:
            prepared = PreparedScene.from_state(open_scene(reference), None, read_json(self.directory / "scene.json"))
            warn_of_values(prepared)
        target.mkdir(parents=True, exist_ok=True)
        own = reference is None and out is None
        stage = self._stage("predict", "prediction") if own else bar("prediction", self.quiet)
        with stage as progress, within(memory):
            network, features = self._network(prepared, maps)
            config = self.config if precision is None else self.config.override(f"predict.precision={precision}")
            if memory is not None:
                config = fit_to_memory(memory, prepared, config, features.channels, stride)
            facts = {"network": _digest(self._checkpoint("network")), "scene": reference or self.reference, "stride": stride,
                     "maps": [str(m) for m in maps or ()],
                     "shape": [prepared.height, prepared.width], "predict": config.to_dict()["predict"]}
            blocks = Blocks(target / "blocks", facts)
            predict_blocks(network, features, prepared, config, blocks, stride, progress)
            if leads():
                labels, note = assemble(prepared, config, blocks, target, self.split.test if own else None)
                if note:
                    logging.getLogger(__name__).warning("%s: %s", target / "map.tif", note)
                if own:
                    with atomic(self.directory.checkpoints / LABELS) as beside:
                        np.savez_compressed(beside, **labels)
                blocks.remove()
            barrier()

    def evaluate(self, baselines: dict[str, Any] | None = None) -> dict[str, Any]:
        """Accuracy on the test side and the report. Uses the predicted map where there is one, else predicts the test pixels."""
        self.directory.require("train", "train")
        with self._stage("evaluate", "test pixels") as progress:
            result = self._accuracy(progress) if leads() else {}
        if leads():
            self._report(result, baselines or {})
        barrier()
        return read_json(self.directory / "report.json")

    # --- parts ---

    def _accuracy(self, progress: Callable) -> dict[str, Any]:
        rc = self.split.test
        if len(rc) == 0:
            raise UserError(NO_TEST.format(self.scene.name))
        truth = self.prepared.labels[rc[:, 0], rc[:, 1]].numpy()
        stored = self.directory.checkpoints / LABELS
        network, features = self._network(self.prepared)
        if self.modalities is None:  # runs on single modalities are rows of another report
            embed(network, features, self.prepared, self.config, rc, self.seed, self.directory.checkpoints / EMBEDDING)
        if self.directory.done("predict") and stored.exists():
            with np.load(stored) as maps:
                labels = {name: maps[name] for name in maps.files}
        else:
            prediction = predict_pixels(network, features, self.prepared, self.config, rc, progress)
            labels = {"fused": prediction.probabilities.argmax(1).numpy(), **{k: v.numpy() for k, v in prediction.labels.items()}}
        fused = labels.pop("fused")
        near = by_distance(self.split.train.numpy(), rc.numpy(), fused == truth)
        return {**scores(truth, fused, len(self.prepared.classes)), **diversity(truth, labels), "by_distance": near}

    def _network(self, prepared: PreparedScene, maps: Sequence[Path] | None = None) -> tuple[Any, DiffusionFeatures]:
        network, state, tensors = load_network(self._checkpoint("network"), self.config)
        features: DiffusionFeatures
        if self.config.features.path:
            features = ArrayFeatures.restore(prepared, self.config, maps or self.config.features.path, state, tensors)
        else:
            features = DiffusionFeatures.restore(self.denoiser(), prepared, self.config, state, tensors)
        return network.to(self.device), features

    def denoiser(self) -> Denoiser:
        denoiser = load_denoiser(self._checkpoint("denoiser"))
        denoiser.unet.to(self.device)
        return denoiser

    def _report(self, result: dict[str, Any], baselines: dict[str, Any]) -> None:
        history = read_json(self.directory / "history.json")
        stage1 = history.get("pretrain", {"modalities": {}, "balance": None})  # left out where another model guides
        classes, counts = self.prepared.classes, self.split.counts
        report = {
            "name": self.scene.name,
            **{key: result[key] for key in ("overall_accuracy", "average_accuracy", "kappa")},
            "per_class": {info.name: value for info, value in zip(classes, result["per_class"], strict=True)},
            "confusion_matrix": result["confusion_matrix"],
            "classes": [{"code": info.code, "name": info.name, "colour": list(info.colour), "train": counts["train"][k],
                         "test": counts["test"][k]} for k, info in enumerate(classes)],
            "branches": result["branches"],
            "diversity": result["diversity"],
            "modalities": {name: {"loss": (stage1["curves"]["series"][name] or [None])[-1], **facts}
                           for name, facts in stage1["modalities"].items()},
            "balance": stage1["balance"],
            "features": self.config.features.path or "denoiser",
            "baselines": baselines,
            "train_pixels": len(self.split.train),
            "test_pixels": len(self.split.test),
            "split": self.split.summary(),
            "reach": reach(self.config),
            "by_distance": result["by_distance"],
            "normalisation": "fitted on the training side",
            "pretrain_region": self.config.pretrain.region,
            "seconds": {stage: self.directory.facts(stage).get("seconds", 0.0) for stage in STAGES},
            "peak_memory_bytes": max(facts.get("peak_memory_bytes", 0) for facts in self.directory.state["stages"].values()),
            "versions": versions(),
            "seed": self.seed,
            "config": self.config.to_dict(),
        }
        write_json(self.directory / "report.json", report)
        render(self.directory)
        if self.log is not None:
            self.log.report(report, self.directory.path)

    def _checkpoint(self, name: str) -> Path:
        return self.directory.checkpoints / f"{name}.safetensors"

    def _remember(self, stage: str, history: dict[str, Any]) -> None:
        path = self.directory / "history.json"
        if leads():
            write_json(path, {**(read_json(path) if path.exists() else {}), stage: history})
        if self.log is not None:
            self.log.history(stage, history)

    def _stage(self, name: str, title: str) -> AbstractContextManager[Callable]:
        return _Stage(self.directory, name, bar(title, self.quiet), self.log)


class _Stage:
    """Times a stage, takes the marks of the stages behind it back at the start and marks it at the end."""

    def __init__(self, directory: RunDirectory, name: str, progress: AbstractContextManager[Callable], log: Log | None):
        self.directory, self.name, self.progress, self.log = directory, name, progress, log

    def __enter__(self) -> Callable:
        self.directory.forget(*STAGES[STAGES.index(self.name) :])
        self.start = time.perf_counter()
        progress = self.progress.__enter__()
        return progress if self.log is None else self.log.watch(self.name, progress)

    def __exit__(self, kind, value, traceback) -> None:
        self.progress.__exit__(kind, value, traceback)
        if kind is None:
            seconds = round(time.perf_counter() - self.start, 3)
            self.directory.mark(self.name, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
            barrier()  # the stage's files stand before any rank reads them


def forests(run: Run) -> dict[str, Any]:
    """Forests beside the method, on the same split and normalisation."""
    return {name: _beside(run, name) for name in (*FORESTS, *(() if run.config.features.path else (GUIDED_FOREST,)))}


def networks(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Other networks beside the method, in its own training loop. The dual-branch denoiser takes the denoisers of the runs on
    single modalities, which must have pre-trained. Every rank must call it."""
    return {name: _beside(run, name) for name in names if name in available(len(run.prepared.groups))}


def _beside(run: Run, name: str) -> dict[str, float]:
    rc = run.split.test
    if len(rc) == 0:
        raise UserError(NO_TEST.format(run.scene.name))
    with bar(name, run.quiet) as progress:
        labels = predict_baseline(
            name, run.prepared, run.config, run.seed, rc, device=run.device, progress=progress,
            checkpoint=run.directory / "baselines" / f"{name.replace(' ', '-')}.safetensors",
            features=lambda: DiffusionFeatures.fit(run.denoiser(), run.prepared, run.config, run.seed),
            denoiser=lambda modality: load_denoiser(run.directory / "single" / modality / "checkpoints" / "denoiser.safetensors"),
        )
    result = scores(run.prepared.labels[rc[:, 0], rc[:, 1]].numpy(), labels, len(run.prepared.classes))
    return {key: result[key] for key in METRICS}


def _digest(path: Path) -> str:
    """The sha256 of a checkpoint, to know blocks predicted by other weights."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _leaves(inner, f"{path}.{key}" if path else str(key)).items()}
    return {path: repr(value)}


