"""A denoiser that was pre-trained before: what a run takes from its directory, and what the run must share with it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.ranks import leads
from ..config import Config
from ..data import PreparedScene, Scene
from ..data.split import Split
from ..diffusion.pretrain import load_denoiser
from ..errors import UserError
from ..files.atomic import atomic
from ..files.json_files import read_json
from . import origin
from .run_directory import RunDirectory

CHECKPOINT = "denoiser.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """The denoiser in a directory, of many scenes or of a run's own.

    Attributes: ``checkpoint``; ``state``, the normalisation that it was trained with, as ``PreparedScene.state`` gives it;
    ``settings``, its ``pretrain`` section; ``facts``, what a run keeps and reports of it.
    """

    path: Path
    checkpoint: Path
    state: dict[str, Any]
    settings: dict[str, Any]
    facts: dict[str, Any]
    history: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Pretrained:
        """Raises UserError for a directory without a finished denoiser."""
        directory = RunDirectory.open(path, read_only=True)
        directory.require("pretrain", "pretrain")
        checkpoint = directory.checkpoints / CHECKPOINT
        if not checkpoint.exists():
            raise UserError(f"--denoiser {path}: the run there has no denoiser (its network uses none); name another directory")
        load_denoiser(checkpoint)  # whole, and of this release
        settings, state, history = (read_json(directory / f"{name}.json") for name in ("config", "scene", "history"))
        scenes = settings.get("scenes") or settings.get("denoiser", {}).get("scenes") or [settings["scene"]]
        facts = {"path": str(path.resolve()), "sha256": origin.digest_of(checkpoint), "scenes": scenes}
        return cls(path, checkpoint, state, settings["config"]["pretrain"], facts, history["pretrain"])

    def configure(self, config: Config) -> Config:
        """``config`` with the denoiser's own ``pretrain`` section and alignment. Raises UserError where a value was asked for that
        it has not."""
        if config.features.path:
            raise UserError("--denoiser and --features are two sources of guides; give one of them")
        if config.data.align == "scene" and self.align == "none":
            raise UserError(f"the denoiser in {self.path} was trained on scenes as they are; leave data.align at none")
        defaults, own = Config().to_dict()["pretrain"], config.to_dict()["pretrain"]
        for key, value in self.settings.items():
            if own[key] not in (defaults[key], value):
                raise UserError(
                    f"pretrain.{key} is {own[key]}, but the denoiser in {self.path} was trained with {value}; leave it out"
                )
        try:
            return config.updated({"pretrain": self.settings, "data": {"align": self.align}})
        except ValueError as error:
            raise UserError(f"--denoiser {self.path}: {error}") from None

    @property
    def align(self) -> str:
        """What ``data.align`` was when it was trained."""
        return "scene" if "levels" in self.state else "none"

    def prepare(self, scene: Scene, split: Split) -> PreparedScene:
        """The scene by the denoiser's normalisation. Raises UserError where its modalities or bands are others."""
        have, known = [m.name for m in scene.modalities], [m["name"] for m in self.state["modalities"]]
        if set(have) != set(known):
            raise UserError(
                f"the denoiser in {self.path} was trained on the modalities {', '.join(known)}, {scene.labels_source} has "
                f"{', '.join(have)}; both must have the same, under the same names"
            )
        scene.valid()  # finds the bands without any value, which the denoiser may know
        return PreparedScene.from_state(scene, split, {**self.state, "classes": []})

    def copy_to(self, directory: RunDirectory) -> None:
        """Put the checkpoint into a run, which needs this directory no longer."""
        if leads():
            with atomic(directory.checkpoints / CHECKPOINT) as beside:
                shutil.copyfile(self.checkpoint, beside)


def note_of(facts: dict[str, Any]) -> str:
    """What a report says of a denoiser that was pre-trained before."""
    scenes = [Path(scene).stem if Path(scene).name != "scene.toml" else Path(scene).parent.name for scene in facts["scenes"]]
    return (
        f"No pre-training in this run: its denoiser is that of {facts['path']} (sha256 {facts['sha256'][:12]}), trained on "
        f"{', '.join(scenes)}; the bands are scaled by the denoiser's statistics, fitted on those scenes without their labels."
    )
