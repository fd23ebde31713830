"""The commands as functions: a whole run, its single stages, and runs with several seeds.

Arguments have the names of the command line's options. A mistake of the user is a ``UserError`` with one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ..baselines import CNN, DUAL, EXCHANGE
from ..common.ranks import leads
from ..config import Config
from ..data import Scene
from ..errors import UserError
from ..files.json_files import read_json, write_json
from ..network.distil import student_config
from ..network.whole_scene import parse_bytes
from ..report.comparison_page import compare as write_comparison
from ..report.metrics import METRICS
from .beside import forests, networks
from .many_maps import predict_list
from .many_scenes import pretrain_scenes
from .pretrained import Pretrained
from .results import MapResult, MapsResult, RunResult, SeedsResult, StageResult
from .run import Run
from .run_directory import RunDirectory
from .scene_list import named, read_list
from .scenes import same_scene
from .session import session
from .settings import ConfigLike, configured, with_seed
from .summary import summary

PathLike = str | os.PathLike[str]
Device = torch.device | str
Baselines = Literal["none", "forest", "cnn", "all"]
BASELINES = ("none", "forest", "cnn", "all")
ALONE = (
    "There are no rows for single modalities: the maps of another model, which guide, may have been made from all of them, and "
    "would show each what the others saw."
)


def run(
    scene: PathLike | Scene, out: PathLike, *, config: ConfigLike = None, seed: int | None = None, baselines: Baselines = "forest",
    features: Sequence[PathLike] = (), denoiser: PathLike | StageResult | MapResult | None = None, resume: bool = False,
    overwrite: bool = False, device: Device = "auto", tensorboard: bool = False, quiet: bool = False,
) -> RunResult:  # fmt: skip
    """Run all stages on a scene (pre-train, train, predict, evaluate), as `bdgf-fast run` does.

    Args:
        scene: a scene file (TOML), "NAME:FOLDER" of a known data set, or "synthetic" for the built-in scene.
        out: the run's directory.
        config: what differs from the defaults, as ``{"train.epochs": 4}``, ``{"train": {"epochs": 4}}`` or a TOML file with one
            table per section; or a whole ``bdgf_fast.config.Config``.
        seed: of the split, the weights and all noise (default: the configuration's, which is 0).
        baselines: to compare with: "none", "forest", "cnn" (forests and a residual CNN) or "all".
        features: files with feature maps of another model, which guide the network in place of the diffusion features.
        denoiser: directory in which ``pretrain`` or an earlier run has left a denoiser, of one scene or several. It replaces the
            pre-training, and the bands are scaled as it was trained.
        resume: continue an interrupted run in ``out``. overwrite: replace an earlier run there.
        device: "auto" (a GPU where torch sees one), "cpu", "cuda" or "cuda:N".
        tensorboard: also write logs for TensorBoard, to ``out``/tensorboard.
        quiet: no progress on stderr.

    Raises UserError (scene, configuration, directory) before anything is computed. Example::

        import bdgf_fast as bf
        result = bf.run("scene.toml", "runs/first", config={"train.epochs": 4}, seed=1)
        print(result.overall_accuracy, result.map_path)
    """
    if baselines not in BASELINES:
        raise UserError(f"baselines is {baselines!r}; it takes one of: {', '.join(BASELINES)}")
    with session(device) as chosen:
        made = _begin(scene, out, config, seed, features, resume, overwrite, chosen, tensorboard, quiet, denoiser)
        made.complete("pretrain", "train", "predict")
        if not made.directory.done("evaluate"):
            made.evaluate(*_beside(made, baselines))
        return RunResult(made.directory.path)


def run_seeds(
    scene: PathLike | Scene, out: PathLike, seeds: Sequence[int], *, config: ConfigLike = None, device: Device = "auto",
    each: Callable[[RunResult], None] | None = None, **options: Any,
) -> SeedsResult:  # fmt: skip
    """Run ``run`` for every seed, in ``out``/seed-N, and write means and standard deviations to ``out``/summary.json.

    Args:
        each: called with the result of each run as soon as it is finished.
        options: the other arguments of ``run``.

    Example::

        result = bdgf_fast.run_seeds("scene.toml", "runs/three", [0, 1, 2], baselines="none")
        print(result)
    """
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds names a seed twice: {list(seeds)}")
    if not seeds:
        raise UserError("--seeds names no seed; give one or more")
    for seed in seeds:
        with_seed(Config(), seed)  # a bad one is said before the first run
    out, runs = Path(out), {}
    with session(device) as chosen:
        for seed in seeds:
            runs[seed] = run(scene, out / f"seed-{seed}", config=config, seed=seed, device=chosen, **options)
            if each is not None:
                each(runs[seed])
        write_json(out / "summary.json", summary({seed: result.report for seed, result in runs.items()}))
    return SeedsResult(out, runs)


def pretrain(
    scene: PathLike | Scene | Sequence[PathLike | Scene], out: PathLike, *, config: ConfigLike = None, seed: int | None = None,
    features: Sequence[PathLike] = (), resume: bool = False, overwrite: bool = False, device: Device = "auto",
    tensorboard: bool = False, quiet: bool = False,
) -> StageResult:  # fmt: skip
    """First stage: pre-train the diffusion model on all modalities. Arguments as for ``run``; ``train`` continues in ``out``.

    Given several scenes with the same modalities, it makes one denoiser for runs on any of them and on others:
    ``run(scene, out, denoiser=...)``. Their sizes may differ, and a scene may lack some modalities. No labels are needed.

    Example::

        stage = bdgf_fast.pretrain("scene.toml", "runs/first")
        print(stage.checkpoint, stage.seconds)
        bdgf_fast.train("runs/first")

        stage = bdgf_fast.pretrain(["a.toml", "b.toml", "c.toml"], "denoisers/alps")
        bdgf_fast.run("a.toml", "runs/a", denoiser=stage)
    """
    scenes = [scene] if isinstance(scene, (str, os.PathLike, Scene)) else list(scene)
    if not scenes:
        raise UserError("pretrain takes at least one scene")
    with session(device) as chosen:
        if len(scenes) > 1:
            settings = with_seed(configured(Config(), config, features=features), seed)
            directory = RunDirectory(out, resume=resume, overwrite=overwrite)
            pretrain_scenes(directory, [reference_of(one) for one in scenes], settings, quiet=quiet, device=chosen,
                            tensorboard=tensorboard)  # fmt: skip
            return _stage(directory, "pretrain", "denoiser")
        scene = scenes[0]
        made = _begin(scene, out, config, seed, features, resume, overwrite, chosen, tensorboard, quiet)
        made.pretrain()
        return _stage(made.directory, "pretrain", "denoiser")


def train(
    directory: PathLike | MapResult, *, resume: bool = False, device: Device = "auto", tensorboard: bool = False,
    quiet: bool = False,
) -> StageResult:  # fmt: skip
    """Second stage: train the classifier of a run that has finished its pre-training. ``resume`` continues from the last
    checkpoint; without it the training begins anew.

    Example::

        stage = bdgf_fast.train("runs/first")
        print(stage.history["parameters"])
    """
    with session(device) as chosen:
        made = Run.reopen(_folder(directory), quiet=quiet, device=chosen, tensorboard=tensorboard)
        if not resume:
            made.restart_training()
        made.train()
        return _stage(made.directory, "train", "network")


def distil(
    directory: PathLike | MapResult, out: PathLike, *, modalities: Sequence[str] = (), config: ConfigLike = None,
    resume: bool = False, overwrite: bool = False, device: Device = "auto", tensorboard: bool = False, quiet: bool = False,
) -> RunResult:  # fmt: skip
    """Train a small network on the predictions of a trained run outside its test pixels; ``predict`` takes it like any run.

    Args:
        directory: the teacher, a trained run.
        out: directory of the student, a run of its own on the same scene and split.
        modalities: those that the student uses (default: all of the teacher's).
        config: what differs from the student's default configuration.

    Example::

        small = bdgf_fast.distil("runs/first", "runs/small", modalities=["optical"])
        print(small.report["teacher"]["agreement"])
    """
    folder = _folder(directory).absolute()
    if folder == Path(out).absolute():
        raise UserError("--out is the teacher's own directory; name another one for the student")
    with session(device) as chosen:
        teacher = Run.reopen(folder, quiet=quiet, device=chosen, elsewhere=True)
        teacher.directory.require("train", "train")
        known = teacher.prepared.modality_names
        for name in modalities:
            if name not in known:
                raise UserError(f"--modalities: the teacher in {folder} has no modality {name!r}, only {', '.join(known)}")
        names = [name for name in known if name in modalities] if modalities else teacher.modalities
        settings = configured(student_config(teacher.config), config)
        made = Run(RunDirectory(out, resume=resume, overwrite=overwrite), teacher.reference, settings, settings.seed,
                   modalities=names, quiet=quiet, device=chosen, tensorboard=tensorboard, teacher=str(folder))  # fmt: skip
        made.complete("pretrain", "train", "predict", "evaluate")
        return RunResult(made.directory.path)


def evaluate(directory: PathLike | MapResult, *, device: Device = "auto", quiet: bool = False) -> RunResult:
    """Measure the accuracy of a trained run and of random forests on its test pixels, and write the report.

    Example::

        print(bdgf_fast.evaluate("runs/first").confusion_matrix)
    """
    with session(device) as chosen:
        made = Run.reopen(_folder(directory), quiet=quiet, device=chosen)
        made.evaluate(forests(made) if leads() else None)
        return RunResult(made.directory.path)


def predict(
    directory: PathLike | MapResult, scene: PathLike | Scene | None = None, out: PathLike | None = None, *,
    memory: int | str | None = None, stride: int = 1, features: Sequence[PathLike] = (), precision: str | None = None,
    priors: str | Mapping[str, float] | None = None, refine: int | None = None, device: Device = "auto", quiet: bool = False,
) -> MapResult:  # fmt: skip
    """Write the map and the class probabilities of a whole scene, with a trained run. An interrupted prediction is continued.

    Args:
        directory: the run's directory, or its result.
        scene: another scene with the same modalities (default: the run's own); it needs ``out``.
        out: directory of the map (default: the run's own).
        memory: limit of the memory that each process may use, in bytes or as text such as "2GiB".
        stride: for a network that classifies patches (model.mode = "patch"): take every stride-th row and column, and interpolate.
        features: feature maps of the other scene, if maps of another model guide the network.
        precision: "float32" or "bfloat16" in place of the run's ``predict.precision``.
        priors: "train", "scene" or shares by class name in place of the run's ``predict.priors``.
        refine: rounds of averaging over similar pixels in place of the run's ``predict.refine``.

    Example::

        found = bdgf_fast.predict("runs/first", "other.toml", "maps/other", memory="2GiB")
        print(found.map().shape)
    """
    if scene is not None and out is None:
        raise UserError("predict --scene needs --out: the maps of another scene do not belong in the run's own directory")
    limit = _limit(memory, stride)
    folder, target = _folder(directory), None if out is None else Path(out)
    elsewhere = target is not None and target.resolve() != folder.resolve()
    with session(device) as chosen:
        made = Run.reopen(folder, quiet=quiet, device=chosen, elsewhere=elsewhere, own_scene=scene is None)
        other = None if scene is None else reference_of(scene)
        if made.guide == "maps" and not features and other is not None and not same_scene(other, made.reference):
            raise UserError(f"{folder}: the network is guided by maps of another model, and the run's belong to {made.reference}; "
                            f"give those of {other} by --features")  # fmt: skip
        made.predict(other, target, memory=limit, stride=stride,
                     maps=[Path(path) for path in features] or None, precision=precision, priors=priors, refine=refine)  # fmt: skip
    return MapResult(target or folder)


def predict_scenes(
    directory: PathLike | MapResult, scenes: PathLike | Sequence[PathLike | Scene], out: PathLike, *,
    memory: int | str | None = None, stride: int = 1, precision: str | None = None,
    priors: str | Mapping[str, float] | None = None, refine: int | None = None, device: Device = "auto", quiet: bool = False,
) -> MapsResult:  # fmt: skip
    """Map many scenes with a trained run, each into a folder of ``out``, with an index and mosaics, as ``predict --scenes`` does.

    Args:
        directory: the run's directory, or its result.
        scenes: a text file that names one scene per line, or the scenes themselves.
        out: directory of the maps. If it holds some of them, the others are added: a finished scene is not mapped again, unless
            the model, its settings or the scene has changed.
        memory, stride, precision, priors, refine: as for ``predict``.

    A scene that cannot be mapped does not stop the others; ``failed`` of the result says what is wrong with it. Example::

        found = bdgf_fast.predict_scenes("runs/first", ["a.toml", "b.toml"], "maps")
        print(found, found.failed)
    """
    limit = _limit(memory, stride)
    folder, target = _folder(directory), Path(out)
    one_file = isinstance(scenes, (str, os.PathLike))
    listed = named(read_list(scenes) if one_file else [reference_of(scene) for scene in scenes])  # type: ignore[arg-type, union-attr]
    if target.resolve() == folder.resolve():
        raise UserError("predict --scenes needs another --out than the run's directory: many maps do not belong in it")
    with session(device) as chosen:
        made = Run.reopen(folder, quiet=quiet, device=chosen, elsewhere=True, own_scene=False)
        if made.guide == "maps":
            raise UserError(f"{folder}: the network is guided by maps of another model, which belong to one scene; map each scene "
                            "by --scene with its --features")  # fmt: skip
        made.directory.require("train", "train")
        predict_list(made, listed, target, memory=limit, stride=stride, precision=precision, priors=priors, refine=refine)
    return MapsResult(target)


def compare(directories: Sequence[PathLike | MapResult], out: PathLike = "comparison.html") -> Path:
    """Write one HTML page that shows evaluated runs side by side: accuracy, classes, maps, and settings that differ.

    Returns the page's path. Example::

        bdgf_fast.compare(["runs/a", "runs/b"], "comparison.html")
    """
    folders, page = [_folder(directory) for directory in directories], Path(out)
    if len(folders) < 2:
        raise UserError("a comparison takes two runs or more; the page of a single run is report.html in its directory")
    with session("cpu"):
        for folder in folders:
            if not RunDirectory.open(folder, read_only=True).done("evaluate"):
                raise UserError(f"{folder} has no report yet; run `bdgf-fast evaluate {folder}` first")
        page.parent.mkdir(parents=True, exist_ok=True)
        write_comparison(folders, page)
    return page


# --- parts ---


def reference_of(scene: PathLike | Scene) -> str:
    """What a scene is opened by, again and again: its file."""
    if not isinstance(scene, Scene):
        return os.fspath(scene)
    if scene.path is None:
        raise UserError(
            f"the scene {scene.name!r} is in memory alone, and a run opens its scene again: "
            "bdgf_fast.data.write_scene(scene, FOLDER) gives the file to name"
        )
    return str(scene.path)


def _limit(memory: int | str | None, stride: int) -> int | None:
    """The resident bytes that ``memory`` names; a bad ``stride`` is said as well, before a run is opened."""
    if stride < 1:
        raise UserError(f"--stride is {stride}; it takes 1 or more")
    return parse_bytes(memory) if isinstance(memory, str) else memory


def _folder(directory: PathLike | MapResult | StageResult) -> Path:
    return directory.path if isinstance(directory, (MapResult, StageResult)) else Path(directory)


def _begin(
    scene: PathLike | Scene, out: PathLike, config: ConfigLike, seed: int | None, features: Sequence[PathLike], resume: bool,
    overwrite: bool, device: torch.device, tensorboard: bool, quiet: bool,
    denoiser: PathLike | StageResult | MapResult | None = None,
) -> Run:  # fmt: skip
    reference, settings = reference_of(scene), with_seed(configured(Config(), config, features=features), seed)
    pretrained = None
    if denoiser is not None:
        if _folder(denoiser).resolve() == Path(out).resolve():
            raise UserError(f"--denoiser {_folder(denoiser)} is --out itself; name another --out")
        pretrained = Pretrained.open(_folder(denoiser))
        settings = pretrained.configure(settings)
    directory = RunDirectory(out, resume=resume, overwrite=overwrite)
    return Run(directory, reference, settings, settings.seed, quiet=quiet, device=device, tensorboard=tensorboard,
               pretrained=pretrained)  # fmt: skip


def _stage(directory: RunDirectory, name: str, checkpoint: str) -> StageResult:
    path = directory / "history.json"
    history = read_json(path).get(name, {}) if path.exists() else {}
    file = directory.checkpoints / f"{checkpoint}.safetensors"
    return StageResult(directory.path, file, directory.facts(name)["seconds"], history)


def _beside(made: Run, baselines: str) -> tuple[dict[str, Any], list[str]]:
    """Accuracy of the baselines, and notes on those that there cannot be."""
    rows: dict[str, Any] = {}
    notes = []
    if baselines != "none" and leads():
        rows.update(forests(made))
    if baselines in ("cnn", "all"):
        rows.update(networks(made, [CNN]))
    if baselines == "all":
        if made.guide == "maps" and len(made.prepared.groups) > 1:
            notes.append(ALONE)
        else:
            rows.update(_single_modalities(made))
        rows.update(networks(made, [EXCHANGE, DUAL] if made.guide == "denoiser" else [EXCHANGE]))
    return rows, notes


def _single_modalities(made: Run) -> dict[str, Any]:
    """The same method and configuration on each modality alone, in runs of their own below the run's directory."""
    names = made.prepared.modality_names
    rows = {}
    for name in names if len(names) > 1 else ():
        directory = RunDirectory(made.directory / "single" / name, resume=True)
        single = Run(directory, made.reference, made.config, made.seed, modalities=[name], quiet=made.quiet, device=made.device)
        single.complete("pretrain", "train")
        report = read_json(directory / "report.json") if directory.done("evaluate") else single.evaluate()
        rows[f"BDGF, {name} alone"] = {key: report[key] for key in METRICS}
    return rows
