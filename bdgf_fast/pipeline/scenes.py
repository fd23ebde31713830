"""The scene of a run: opened by its reference, and large enough for its network."""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..data import Scene, load_scene, synthetic_scene
from ..data.known_sets import absolute_reference
from ..data.scene_file import in_folder
from ..errors import UserError
from ..network.reach import guided

SYNTHETIC = "synthetic"
SMALLEST = 7
"""Pixels along the shorter side of a scene that a denoiser or a patch needs."""
NO_TEST = "{}: the split leaves no test pixel; choose smaller blocks or a smaller train_fraction"


def open_scene(reference: str) -> Scene:
    """The scene a person named: a TOML file, NAME:FOLDER of a known data set, or the built-in one."""
    folder = Path(reference)
    if (folder / "state.json").is_file() and not (folder / "scene.toml").exists():
        raise UserError(f"{folder} is the directory of a run, not a scene; to continue the run name its scene and --out {folder} "
                        f"--resume, to map another scene run `bdgf-fast predict {folder} --scene SCENE --out MAPS`")  # fmt: skip
    return synthetic_scene() if reference == SYNTHETIC else load_scene(reference)


def same_scene(one: str, other: str) -> bool:
    """Whether two references name the same scene; its folder stands for the scene.toml in it."""
    return one == other or in_folder(Path(absolute_reference(one))) == in_folder(Path(absolute_reference(other)))


def check_size(scene: Scene, config: Config) -> None:
    """Raise UserError for a scene too small for the configured network, before anything is computed."""
    size, shorter = f"{scene.height} x {scene.width}", min(scene.height, scene.width)
    own_denoiser = guided(config.model) and not config.features.path
    if shorter < SMALLEST and (own_denoiser or config.model.mode == "patch"):
        raise UserError(f"the scene is {size} pixels; the {'diffusion model' if own_denoiser else 'network on patches'} needs at "
                        f"least {SMALLEST} x {SMALLEST}")
    if config.model.mode == "patch" and config.data.patch > shorter:
        raise UserError(f"data.patch is {config.data.patch} pixels, larger than the scene ({size}); "
                        f"--set data.patch={shorter} or less")
