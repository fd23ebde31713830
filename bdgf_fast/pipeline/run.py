"""One run: its stages over a run directory, each of them resumable, and the report at the end.

    pretrain  -> checkpoints/denoiser.safetensors
    train     -> checkpoints/network.safetensors (with the features' projection)
    predict   -> probabilities.tif, map.tif, map.png, areas.csv
    evaluate  -> report.json, report.html and its pictures
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.progress import bar
from ..common.ranks import barrier, leads
from ..config import Config
from ..data import PreparedScene, Scene, make_split, prepare
from ..data.known_sets import absolute_reference
from ..data.ranges import warn_of_values
from ..data.split import Split
from ..diffusion.denoiser import Denoiser
from ..diffusion.pretrain import load_denoiser, pretrain
from ..errors import UserError
from ..features.arrays import ArrayFeatures, check_maps
from ..features.dense import DiffusionFeatures
from ..features.source import FeatureSource, hiding
from ..files.json_files import read_json, write_json
from ..network.calibration import store
from ..network.distil import unlabelled
from ..network.held_out import calibrate
from ..network.predict import Prediction, predict_pixels
from ..network.priors import Priors, named_shares
from ..network.reach import guided, reach
from ..network.train import KIND as TRAINED
from ..network.train import check_split, load_network, train
from ..network.whole_scene import predict_scene, within
from ..report.areas import area_table, write_areas
from ..report.embedding import EMBEDDING, embed
from ..report.evaluation import predicted_labels, score
from ..report.figure import write_png
from ..report.metrics import METRICS
from ..report.tensorboard import Log
from . import origin
from .locks import create, lock
from .pretrained import Pretrained
from .report import write_report
from .run_directory import RunDirectory
from .scenes import NO_TEST, SYNTHETIC, check_size, open_scene
from .scoring import keep, score_pixels, trust
from .stage import Stage, remember, require_same_settings


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
        own_scene: open the run's scene; without it only `predict` of another one works.
        pretrained: a denoiser that takes the place of stage 1; a new run keeps a copy of it.
        given: the facts about that denoiser, of a run that is opened again.
        teacher: directory of a trained run whose probabilities are learned in place of labels, on its split.

    A new run settles its split and normalisation and keeps them with a description of what it was made from; a run that is opened
    again takes them from there, and refuses a scene that has changed.
    """

    scene: Scene
    split: Split
    prepared: PreparedScene

    def __init__(self, directory: RunDirectory, reference: str, config: Config, seed: int, *,
                 modalities: list[str] | None = None, quiet: bool = False, device: torch.device | str = "cpu",
                 tensorboard: bool = False, own_scene: bool = True, pretrained: Pretrained | None = None,
                 given: dict[str, Any] | None = None, teacher: str | None = None):
        self.directory, self.config, self.seed, self.device = directory, config, seed, torch.device(device)
        self.quiet = quiet or not leads()
        self.reference = reference if reference == SYNTHETIC else absolute_reference(reference)
        self.modalities, self.pretrained, self.teacher = modalities, pretrained, teacher
        self.given = given if pretrained is None else pretrained.facts
        self.log = Log(directory / "tensorboard") if tensorboard and leads() else None
        require_same_settings(directory, self._settings())
        if own_scene:
            self._open_scene()
            barrier()

    def _open_scene(self) -> None:
        stored = self.directory / "scene.json"  # written last: what it stands for is complete
        begun = stored.exists()
        barrier()  # every rank has looked before the first writes
        self.scene = open_scene(self.reference)
        if begun:
            origin.check(self.directory.path, self.scene, self.config.features.path,
                         None if self.given is None else self._checkpoint("denoiser"))
            self.split = origin.load_split(self.directory / origin.SPLIT)
            self.prepared = PreparedScene.from_state(self.scene, self.split, read_json(stored))
            return
        config, scene = self.config, self.scene
        check_size(scene, config)  # nothing is written before all this has gone well
        named_shares(config.predict.priors, [info.name for info in scene.classes])
        if self.teacher is None:
            self.split = make_split(scene, patch=config.data.patch, seed=self.seed, reach=reach(config))
        else:
            self.split = origin.load_split(Path(self.teacher) / origin.SPLIT)
        check_split(self.split, config)
        if self.pretrained is None:
            self.prepared = prepare(scene, self.split, align=config.data.align == "scene")
        else:
            self.prepared = self.pretrained.prepare(scene, self.split)
        if self.modalities is not None:
            self.prepared = self.prepared.select(self.modalities)
        if self.guide == "maps":
            check_maps(self.prepared, config.features.path)
        settings = self.directory / "config.json"
        if not settings.exists():
            write_json(settings, self._settings())
            self.directory.mark("configured")
        if leads():
            origin.save_split(self.directory / origin.SPLIT, self.split, scene.labels)
            origin.bind(self.directory.path, scene, config.features.path, None if self.given is None else self.given["sha256"])
        if self.pretrained is not None:
            warn_of_values(self.prepared)
            self.pretrained.copy_to(self.directory)
            remember(self.directory, "pretrain", self.pretrained.history, None)
        write_json(stored, self.prepared.state())

    @classmethod
    def reopen(cls, path: Path, *, quiet: bool = False, device: torch.device | str = "cpu", tensorboard: bool = False,
               elsewhere: bool = False, own_scene: bool = True) -> Run:
        """The run in `path`, as it was configured when it began; `elsewhere` when nothing is to be written into it."""
        directory = RunDirectory.open(path, read_only=elsewhere)
        settings = read_json(directory / "config.json")
        if "scenes" in settings:
            raise UserError(f"{path} holds a denoiser of several scenes, and no run; use it with `run SCENE --denoiser {path}`")
        return cls(directory, settings["scene"], Config.from_dict(settings["config"]), settings["seed"],
                   modalities=settings["modalities"], quiet=quiet, device=device, tensorboard=tensorboard, own_scene=own_scene,
                   given=settings.get("denoiser"), teacher=settings.get("teacher"))

    @staticmethod
    def settings_of(path: Path) -> Config:
        """The configuration of the run in `path`."""
        return Config.from_dict(read_json(RunDirectory.open(path, read_only=True) / "config.json")["config"])

    def _settings(self) -> dict[str, Any]:
        own = {"scene": self.reference, "seed": self.seed, "modalities": self.modalities, "config": self.config.to_dict()}
        more = {"denoiser": self.given, "teacher": self.teacher}
        return {**own, **{name: value for name, value in more.items() if value is not None}}

    # --- stages ---

    def complete(self, *stages: str) -> None:
        """Run those of the stages, in their order, that have not ended."""
        for stage in stages:
            if not self.directory.done(stage):
                getattr(self, stage)()

    @property
    def guide(self) -> str:
        """What guides the network: "denoiser", "maps" of another model, or "none"."""
        return "none" if not guided(self.config.model) else "maps" if self.config.features.path else "denoiser"

    def pretrain(self) -> None:
        """First stage. Goes on from its checkpoint where one is there; nothing to do where no denoiser guides, or one was given."""
        with self._stage("pretrain", "diffusion model", {} if self.given is None else {"given": True}) as progress:
            if self.guide != "denoiser" or self.given is not None:
                return
            _, history = pretrain(self.prepared, self.config, seed=self.seed, checkpoint=self._checkpoint("denoiser"), resume=True,
                                  progress=progress, device=self.device)
            remember(self.directory, "pretrain", history, self.log)

    def train(self) -> None:
        """Second stage: fit the features' projection, then train the classifier."""
        self.directory.require("pretrain", "pretrain")
        with self._stage("train", "classifier") as progress:
            features: FeatureSource | None = None
            if self.guide == "maps":
                features = ArrayFeatures.fit(self.prepared, self.config, self.seed, self.config.features.path)
            elif self.guide == "denoiser":
                features = DiffusionFeatures.fit(self.denoiser(), self.prepared, self.config, self.seed)
            split, targets = (None, None) if self.teacher is None else self._lessons()
            network, history = train(self.prepared, features, self.config, seed=self.seed, checkpoint=self._checkpoint("network"),
                               resume=True, progress=progress, device=self.device, split=split, targets=targets)
            self._calibrate(network, features)
            remember(self.directory, "train", history, self.log)

    def _calibrate(self, network: Any, features: FeatureSource | None) -> None:
        """Fit the temperature and store it with the network. A student learned calibrated probabilities, under its teacher's
        shares."""
        if self.teacher is None:
            found = calibrate(network, features, self.prepared, self.config, seed=self.seed, device=self.device)
        else:
            path = self.taught_by()._checkpoint("network")
            own = load_network(path, self.config)[0].calibration
            found = replace(own, temperature=1.0, power=own.temperature * own.power, fitted_on="none", pixels=0)
        if leads():
            store(self._checkpoint("network"), TRAINED, found)
        barrier()

    def restart_training(self) -> None:
        """Forget a training that ended or was stopped, so that `train` begins anew."""
        self.directory.forget("train", "predict", "evaluate")
        if leads():
            self._checkpoint("network").unlink(missing_ok=True)
        barrier()

    def predict(self, reference: str | None = None, out: Path | None = None, *, memory: int | None = None, stride: int = 1,
                maps: Sequence[Path] | None = None, precision: str | None = None, scene: Scene | None = None,
                priors: str | Mapping[str, float] | None = None, refine: int | None = None, align: bool = True,
                pixels: torch.Tensor | None = None) -> dict[str, np.ndarray] | None:
        """The whole scene, block by block: probabilities.tif, map.tif, map.png. A killed prediction goes on.

        Args:
            reference: another scene with the same modalities (default: the run's own).
            out: where the files go (default: the run's directory).
            memory: resident bytes to stay within; decides the size of a block.
            stride: classify every stride-th pixel and interpolate the probabilities.
            maps: the other scene's feature maps, where another model's guide (default: the run's own).
            precision, priors, refine: in place of the run's `predict.precision`, `predict.priors` and `predict.refine`.
            scene: what `reference` names, where it is open already.
            align: False leaves the values of the other scene as they are, whatever the run's `data.align` says.
            pixels: int64 (n, 2), those of the other scene whose labels are wanted.

        Returns the labels (n,) of these by the fused prediction and every branch, on the first rank.
        """
        if maps and self.guide != "maps":
            raise UserError("--features: this run's network is not guided by maps of another model")
        self.directory.require("train", "train")
        target = Path(out or self.directory.path)
        if reference is None:
            prepared = self.prepared
        else:
            prepared = self.prepare_other(scene or open_scene(reference), align=align)
            warn_of_values(prepared)
        config, names = self.predict_config(precision, priors, refine), [info.name for info in prepared.classes]
        create(target)
        if leads():
            lock(target)
        own = reference is None and out is None
        facts: dict[str, Any] = {"stride": stride, "precision": config.predict.precision, "refine": config.predict.refine}
        stage = self._stage("predict", "prediction", facts) if own else bar("prediction", self.quiet)
        test = self.split.test if own else None
        labels = None
        with stage as progress:
            network, features = self._network(prepared, maps)
            made_of = {"network": origin.digest_of(self._checkpoint("network")), "scene": reference or self.reference,
                       "files": self._stamps(prepared.scene, maps), "aligned": prepared.levels is not None}
            found, blocks = predict_scene(network, features, prepared, config, target, made_of, memory=memory, stride=stride,
                                          pixels=test if own else pixels, progress=progress)  # fmt: skip
            if found is not None:
                labels = found.labels
                with within(memory):  # the picture reads the scene again
                    self._draw(prepared, found.index, test, target / "map.png")
                if found.note:
                    logging.getLogger(__name__).warning("%s: %s", target / "map.tif", found.note)
                amounts = found.amounts(names)
                write_areas(target / "areas.csv", area_table(prepared.classes, amounts))
                if own:
                    facts |= amounts
                    keep(self.directory, self.config, facts, found)
                blocks.remove()
            barrier()
        return labels

    def prepare_other(self, scene: Scene, *, align: bool = True) -> PreparedScene:
        """Another scene as the run's network takes it; see `predict` for ``align``."""
        state = read_json(self.directory / "scene.json")
        if not align:
            state.pop("levels", None)
        return PreparedScene.from_state(scene, None, state, may_lack=self.config.model.hide_rate > 0)

    def _stamps(self, scene: Scene, maps: Sequence[Path] | None) -> dict[str, list[int]]:
        """Size and time of every file that a map is made of: blocks of other ones are not taken."""
        chosen = maps or (self.config.features.path if self.guide == "maps" else ())
        facts = {str(path): path.stat() for path in origin.files(scene, chosen)}
        return {path: [found.st_size, found.st_mtime_ns] for path, found in facts.items()}

    @staticmethod
    def _draw(prepared: PreparedScene, index: np.ndarray, test: torch.Tensor | None, path: Path) -> None:
        """The picture of a map, with the training blocks outlined and, in the run's own scene, the errors at the test pixels."""
        split, scored = prepared.split, None
        if test is not None and len(test):
            scored = np.zeros(index.shape, bool)
            scored[tuple(test.numpy().T)] = True
        blocks = split.train_region if split is not None and split.kind == "blocks" else None
        write_png(path, prepared.scene, index, classes=prepared.classes, title=prepared.scene.name, scored=scored, blocks=blocks)

    def predict_config(
        self, precision: str | None = None, priors: str | Mapping[str, float] | None = None, refine: int | None = None
    ) -> Config:
        """The configuration with these values of its section `predict`, where they are not None. Raises UserError."""
        asked = {"precision": precision, "priors": priors, "refine": refine}
        given = {name: value for name, value in asked.items() if value is not None}
        try:  # texts may be JSON, as in --set
            config = self.config.override(
                *(f"predict.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items())
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        classes = read_json(self.directory / "scene.json").get("classes")  # the earliest runs kept none
        names = [entry["name"] for entry in classes] if classes else [info.name for info in self.scene.classes]
        named_shares(config.predict.priors, names)
        return config

    def evaluate(self, baselines: dict[str, Any] | None = None, notes: Sequence[str] = ()) -> dict[str, Any]:
        """Accuracy on the test pixels and the report. Takes their labels from the map where every pixel of it was predicted, else
        predicts them."""
        self.directory.require("train", "train")
        with self._stage("evaluate", "test pixels") as progress:
            result = self._accuracy(progress) if leads() else {}
        if leads():
            report = write_report(self.directory, self.prepared, self.config, self.seed, self.guide, result, baselines or {}, notes,
                                  self.given)  # fmt: skip
            if self.log is not None:
                self.log.report(report, self.directory.path)
        barrier()
        return read_json(self.directory / "report.json")

    # --- parts ---

    def _accuracy(self, progress: Callable) -> dict[str, Any]:
        rc = self.split.test
        if len(rc) == 0:
            raise UserError(NO_TEST.format(self.scene.name))
        network, features = self._network(self.prepared)
        if self.modalities is None:  # runs on single modalities are rows of another report
            embed(network, features, self.prepared, self.config, rc, self.seed, self.directory.checkpoints / EMBEDDING)
        found = score_pixels(self.directory, self.prepared, self.config, network, features, rc, progress)
        truth = self.prepared.labels[rc[:, 0], rc[:, 1]].numpy()
        names = [info.name for info in self.prepared.classes]
        result = {**score(self.prepared, rc, found.labels), **trust(truth, found, network, names)}
        if self.teacher is not None:
            result["teacher"] = self._beside_teacher(rc, found.labels["fused"], found.priors)
        if getattr(network, "hides", False):
            result["without"] = {name: self._without(network, features, rc, name, found.priors)
                                 for name in self.prepared.modality_names}
        return result

    def taught_by(self) -> Run:
        """The run whose probabilities this one learns."""
        assert self.teacher is not None
        teacher = Run.reopen(Path(self.teacher), quiet=self.quiet, device=self.device, elsewhere=True)
        teacher.directory.require("train", "train")
        return teacher

    def _ask_teacher(self, rc: torch.Tensor) -> Prediction:
        """What the teacher says of the pixels rc int64 (n, 2)."""
        teacher = self.taught_by()
        network, features = teacher._network(teacher.prepared)
        return predict_pixels(network, features, teacher.prepared, teacher.config, rc)

    def _lessons(self) -> tuple[Split, torch.Tensor]:
        """Pixels to learn from, without a label and outside the test side, and what the teacher says of them."""
        rc = unlabelled(self.prepared, self.split.test, self.config.features.fit_pixels, self.seed)
        return replace(self.split, train=rc), self._ask_teacher(rc).probabilities

    def _beside_teacher(self, rc: torch.Tensor, labels: np.ndarray, priors: Priors) -> dict[str, Any]:
        """The teacher's accuracy on the test pixels, and the share of them that both call alike."""
        own = predicted_labels(self._ask_teacher(rc), priors)["fused"]
        found = score(self.prepared, rc, {"fused": own})
        return {"directory": self.teacher, **{key: found[key] for key in METRICS}, "agreement": float((own == labels).mean())}

    def _without(self, network: Any, features: FeatureSource | None, rc: torch.Tensor, name: str,
                 priors: Priors) -> dict[str, float]:
        """Accuracy on the test pixels with one modality hidden."""
        view, own = hiding(self.prepared, features, name)
        found = score(view, rc, predicted_labels(predict_pixels(network, own, view, self.config, rc), priors))
        return {key: found[key] for key in METRICS}

    def _network(self, prepared: PreparedScene, maps: Sequence[Path] | None = None) -> tuple[Any, FeatureSource | None]:
        network, state, tensors = load_network(self._checkpoint("network"), self.config)
        features: FeatureSource | None = None
        if self.guide == "maps":
            features = ArrayFeatures.restore(prepared, self.config, maps or self.config.features.path, state, tensors)
        elif self.guide == "denoiser":
            features = DiffusionFeatures.restore(self.denoiser(), prepared, self.config, state, tensors)
        return network.to(self.device), features

    def denoiser(self) -> Denoiser:
        denoiser = load_denoiser(self._checkpoint("denoiser"))
        denoiser.unet.to(self.device)
        return denoiser

    def model_digests(self) -> dict[str, str]:
        """The sha256 of the checkpoints that a map is made with, to know what other weights predicted."""
        names = ("network", "denoiser") if self.guide == "denoiser" else ("network",)
        return {name: origin.digest_of(self._checkpoint(name)) for name in names}

    def _checkpoint(self, name: str) -> Path:
        return self.directory.checkpoints / f"{name}.safetensors"

    def _stage(self, name: str, title: str, facts: dict[str, Any] | None = None) -> AbstractContextManager[Callable]:
        return Stage(self.directory, name, bar(title, self.quiet), self.log, {} if facts is None else facts)
