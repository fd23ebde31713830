"""Pre-training on many scenes: a directory with a denoiser, and the normalisation that all of them share, for runs on any scene.

    config.json   the scenes and the configuration      scene.json   the normalisation
    origin.json   what each scene was read from         history.json, state.json, checkpoints/denoiser.safetensors as of a run
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..common.progress import bar
from ..common.ranks import barrier, leads
from ..config import Config
from ..data import PreparedScene
from ..data.together import prepare_together, state_of
from ..diffusion.pretrain import pretrain
from ..errors import UserError
from ..files.json_files import read_json, write_json
from ..report.tensorboard import Log
from . import origin
from .pretrained import CHECKPOINT
from .run_directory import RunDirectory
from .scene_list import absolute
from .scenes import open_scene
from .stage import Stage, remember, require_same_settings


def pretrain_scenes(
    directory: RunDirectory, references: Sequence[str], config: Config, *, quiet: bool = False, device: torch.device | str = "cpu",
    tensorboard: bool = False,
) -> None:  # fmt: skip
    """Pre-train a denoiser on several scenes into ``directory``; one that was stopped goes on."""
    scenes = [absolute(reference) for reference in references]
    if len(set(scenes)) < len(scenes):
        raise UserError(f"pretrain names a scene twice: {', '.join(sorted({s for s in scenes if scenes.count(s) > 1}))}")
    if config.features.path:
        raise UserError("maps of another model replace the denoiser: there is nothing to pre-train on several scenes")
    settings = {"scenes": scenes, "seed": config.seed, "config": config.to_dict()}
    require_same_settings(directory, settings)
    prepared = _prepare(directory, scenes, config.data.align == "scene")
    write_json(directory / "config.json", settings)
    log = Log(directory / "tensorboard") if tensorboard and leads() else None
    with Stage(directory, "pretrain", bar("diffusion model", quiet or not leads()), log, {}) as progress:
        _, history = pretrain(prepared, config, seed=config.seed, checkpoint=directory.checkpoints / CHECKPOINT, resume=True,
                              progress=progress, device=device)  # fmt: skip
        remember(directory, "pretrain", history, log)


def _prepare(directory: RunDirectory, references: Sequence[str], align: bool) -> list[PreparedScene]:
    """The scenes, by the normalisation that was stored when the directory was begun, or by one that is stored now."""
    stored, path = directory / "scene.json", directory / origin.ORIGIN
    begun = stored.exists()
    before = read_json(path)["scenes"] if begun and path.exists() else [None] * len(references)
    barrier()  # every rank has looked before the first writes
    scenes, facts = [], []
    for reference, old in zip(references, before, strict=True):
        scene = open_scene(reference)
        if begun:
            origin.require_same(directory.path, "pre-training", old, origin.describe(scene, (), old))
        elif leads():
            facts.append(origin.describe(scene))
        scenes.append(scene)
    prepared = prepare_together(scenes, align=align, state=read_json(stored) if begun else None)
    if not begun:
        write_json(path, {"scenes": facts})
        write_json(stored, state_of(prepared))  # written last: what it stands for is complete
    return prepared
