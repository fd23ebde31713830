"""Across scenes: a network trained on some labelled scenes maps others, and is scored on all of their labels beside forests.

    train.toml           the training scenes as one
    model/               the run that trained on them; model-aligned/ where scenes were aligned for it as well as not
    maps/NAME/           the map of a test scene; maps/NAME-aligned/ of the same with its bands aligned
    transfer.json, .md   accuracy for every test scene
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..baselines import FORESTS
from ..baselines.forest import Grown, grow
from ..common.ranks import barrier, leads
from ..config import Config
from ..data import PreparedScene, Scene, load_scene
from ..data.joined import GAP, alike, join_scenes, legend, table_of
from ..data.scene_file import in_folder
from ..errors import UserError
from ..files.atomic import atomic
from ..files.json_files import read_json, write_json
from ..network.reach import reach
from ..report.metrics import scores
from ..report.transfer_table import METHOD, markdown
from .commands import Device, PathLike, reference_of
from .pretrained import Pretrained
from .results import MapResult, StageResult
from .run import Run
from .run_directory import RunDirectory
from .scene_list import Listed, absolute, named
from .scenes import open_scene
from .session import session
from .settings import ConfigLike, configured, with_seed
from .versions import versions

Align = Literal["none", "scene", "both"]
ALIGN = ("none", "scene", "both")
LABELS = 100


@dataclass(frozen=True)
class TransferResult:
    """Accuracy on every test scene: transfer.json and transfer.md in ``path``, maps below ``path``/maps."""

    path: Path

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of transfer.json."""
        return read_json(self.path / "transfer.json")

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        """By the names of the test scenes: ``pixels`` scored, and ``rows`` by alignment ("none", "scene") and method, each with the
        figures of ``bdgf_fast.report.metrics.scores``; no rows for a scene without labels."""
        return self.state["targets"]

    def map(self, name: str, aligned: bool | None = None) -> MapResult:
        """The map of a test scene; of the aligned one where both were asked for and ``aligned`` is True."""
        both = len(self.state["align"]) > 1
        return MapResult(self.path / "maps" / (f"{name}-aligned" if both and aligned else name))

    def __str__(self) -> str:
        return (self.path / "transfer.md").read_text(encoding="utf-8")


def transfer(
    train: Sequence[PathLike | Scene], test: Sequence[PathLike | Scene], out: PathLike, *, labels: int | None = LABELS,
    align: Align | None = None, baselines: Literal["none", "forest"] = "forest", config: ConfigLike = None, seed: int | None = None,
    denoiser: PathLike | StageResult | None = None, resume: bool = False, overwrite: bool = False, device: Device = "auto",
    quiet: bool = False,
) -> TransferResult:  # fmt: skip
    """Train one network on labelled scenes, map others, and score it on all labelled pixels of these, as ``bdgf-fast transfer``
    does.

    Args:
        train: scenes with labels and the same modalities, bands and legend; a class may be missing in some of them.
        test: other scenes with the same modalities, bands and legend; one without labels is mapped but not scored.
        out: directory of the model, the maps and the table.
        labels: largest number of training pixels of each class in each training scene; None takes all.
        align: "scene" shifts and scales the bands of every scene to common means and deviations, without labels; "none" leaves
            them; "both" shows both (default: the configuration's ``data.align``).
        baselines: forests on the same labels, or none.
        config, seed, resume, overwrite, device, quiet: as for ``run``.
        denoiser: as for ``run``; it may be pre-trained on any scenes.

    Example::

        result = bdgf_fast.transfer(["a.toml", "b.toml"], ["c.toml"], "runs/transfer", align="both")
        print(result)
        print(result.targets["c"]["rows"]["scene"]["BDGF"]["overall_accuracy"])
    """
    if align is not None and align not in ALIGN:
        raise UserError(f"align is {align!r}; it takes one of: {', '.join(ALIGN)}")
    if labels is not None and labels < 1:
        raise UserError(f"--labels is {labels}; it takes 1 or more")
    trained, tested = _references(train, "--train"), _references(test, "--test")
    files = {_file(reference) for reference in trained}
    shared = [reference for reference in tested if _file(reference) in files]
    if shared:
        raise UserError(
            f"{shared[0]} is named by --train and by --test; the accuracy on a training scene says nothing about others"
        )
    settings = with_seed(configured(Config(), config), seed)
    given = _pretrained(denoiser)
    if given is not None and align not in (None, given.align):
        seen = "aligned scenes" if given.align == "scene" else "scenes as they are"
        raise UserError(f"the denoiser in {given.path} was trained on {seen}; leave --align out")
    if given is not None:
        settings = given.configure(settings)
    ways = {"none": ["none"], "scene": ["scene"], "both": ["none", "scene"]}[align or settings.data.align]
    with session(device) as chosen:
        made = _Transfer(Path(out), trained, tested, settings, ways, labels, quiet=quiet, device=chosen)
        made.check()
        made.run(given, resume, overwrite, forests=baselines == "forest")
    return TransferResult(Path(out))


def _references(scenes: Sequence[PathLike | Scene], said: str) -> list[str]:
    several = [scenes] if isinstance(scenes, (str, os.PathLike, Scene)) else list(scenes)  # one scene is no list of letters
    found = [absolute(reference_of(scene)) for scene in several]
    if not found:
        raise UserError(f"{said} names no scene; give one or more")
    files = [_file(reference) for reference in found]
    twice = [reference for reference, file in zip(found, files, strict=True) if files.count(file) > 1]
    if twice:
        raise UserError(f"{said} names {twice[0]} twice")
    return found


def _file(reference: str) -> str:
    """One text for one scene, however it was named: a folder, its scene.toml, a link."""
    path = in_folder(Path(reference))
    return str(path.resolve()) if path.exists() else reference


def _pretrained(denoiser: PathLike | StageResult | None) -> Pretrained | None:
    if denoiser is None:
        return None
    return Pretrained.open(denoiser.path if isinstance(denoiser, StageResult) else Path(denoiser))


class _Transfer:
    """The scenes of one call and what is made of them. ``ways`` lists the alignments."""

    def __init__(self, out: Path, train: list[str], test: list[str], config: Config, ways: list[str], labels: int | None, *,
                 quiet: bool, device: torch.device) -> None:  # fmt: skip
        self.out, self.train, self.ways, self.labels, self.config = out, train, ways, labels, config
        listed = named([*train, *test])
        self.names, self.test = [one.name for one in listed[: len(train)]], listed[len(train) :]
        self.quiet, self.device = quiet, device

    def check(self) -> None:
        """Raise where the scenes do not go together, before anything is computed or written."""
        scenes = [load_scene(reference, alone=True) for reference in self.train]
        joined = join_scenes(scenes, "training scenes")
        codes = {info.code for info in joined.classes}
        for target in self.test:
            scene = open_scene(target.reference)
            legend([*scenes, scene])
            for info in scene.classes:
                if info.code not in codes:
                    raise UserError(
                        f"{scene.labels_source}: no training scene has a pixel of class {info.name!r} (code {info.code}); put the "
                        "code into ignore there"
                    )
            if self.config.model.hide_rate == 0:  # else one modality may be lacking, which opening it for the model checks
                alike([scenes[0], scene])

    def run(self, pretrained: Pretrained | None, resume: bool, overwrite: bool, *, forests: bool) -> None:
        """Train, map and score."""
        targets: dict[str, Any] = {target.name: {"pixels": 0, "rows": {}} for target in self.test}
        facts: dict[str, Any] = {}
        # A single training scene is its own reference: it trains alike, whether scenes are aligned to it or not.
        once = len(self.ways) > 1 and len(self.train) == 1
        model: Run | None = None
        grown: dict[str, Grown] = {}
        for way in self.ways:
            if model is None or not once:
                model = self._model("scene" if once else way, pretrained, resume, overwrite)
                grown = self._forests(model) if forests and leads() else {}
            facts = {"train_pixels": model.split.counts["train"], "classes": [info.name for info in model.prepared.classes]}
            for target in self.test:
                pixels, rows = self._map(model, target, way, grown)
                targets[target.name]["pixels"] = pixels
                if rows:
                    targets[target.name]["rows"][way] = rows
        if leads():
            state = {
                "train": self.names, "test": [target.name for target in self.test],
                "scenes": {**dict(zip(self.names, self.train, strict=True)), **{t.name: t.reference for t in self.test}},
                "align": self.ways, "labels": self.labels, "seed": self.config.seed, **facts, "targets": targets,
                "denoiser": None if pretrained is None else pretrained.facts, "config": self.config.to_dict(),
                "versions": versions(),
            }  # fmt: skip
            write_json(self.out / "transfer.json", state)
            with atomic(self.out / "transfer.md") as beside:
                beside.write_text(markdown(state), encoding="utf-8")
        barrier()

    def _model(self, way: str, pretrained: Pretrained | None, resume: bool, overwrite: bool) -> Run:
        """The run that trained on the joined scenes."""
        config = self.config.updated({"data": {"align": way}})
        several = len(self.ways) > 1 and len(self.train) > 1
        directory = RunDirectory(self.out / ("model-aligned" if several and way == "scene" else "model"), resume=resume,
                                 overwrite=overwrite)  # fmt: skip
        path = self.out / "train.toml"
        gap = max(GAP, reach(config) + 1, config.pretrain.crop)
        text = table_of(self.train, " + ".join(self.names), self.labels, gap)
        if directory.state["stages"] and path.exists() and path.read_text(encoding="utf-8") != text:
            raise UserError(f"{self.out} was begun with other training scenes or labels; resume with the same ones, or --overwrite")
        if leads():
            with atomic(path) as beside:
                beside.write_text(text, encoding="utf-8")
        barrier()
        made = Run(directory, str(path), config, config.seed, quiet=self.quiet, device=self.device, pretrained=pretrained)
        made.complete("pretrain", "train")
        return made

    @staticmethod
    def _forests(model: Run) -> dict[str, Grown]:
        """Forests on the same labels and normalisation."""
        return {
            name: grow(model.prepared, config=model.config, kind=kind, seed=model.seed, grower=grower)
            for name, (grower, kind) in FORESTS.items()
        }

    def _map(self, model: Run, target: Listed, way: str, forests: dict[str, Grown]) -> tuple[int, dict[str, Any]]:
        """Map a test scene; how many pixels were scored, and the accuracy of each method."""
        scene = open_scene(target.reference)
        aligned = way == "scene"
        rc = torch.from_numpy(np.argwhere((scene.labels >= 0) & scene.valid()))
        folder = f"{target.name}-aligned" if aligned and len(self.ways) > 1 else target.name
        found = model.predict(target.reference, self.out / "maps" / folder, scene=scene, align=aligned, pixels=rc)
        rows: dict[str, Any] = {}
        if found is not None and len(rc):
            prepared: PreparedScene = model.prepare_other(scene, align=aligned)
            truth = prepared.labels[rc[:, 0], rc[:, 1]].numpy()
            labels = {METHOD: found["fused"], **{name: forest.predict(prepared, rc) for name, forest in forests.items()}}
            rows = {name: scores(truth, values, len(prepared.classes)) for name, values in labels.items()}
        return len(rc), rows
