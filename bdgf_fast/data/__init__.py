"""Scenes: files, splits, normalisation, windows and patches, a synthetic scene, result files."""

from bdgf_fast.data.prepared import PreparedScene, prepare
from bdgf_fast.data.scene import ClassInfo, Modality, Scene, SplitSpec, scene_from_arrays
from bdgf_fast.data.scene_file import load_scene
from bdgf_fast.data.split import Split, make_split

__all__ = [
    "ClassInfo",
    "Modality",
    "PreparedScene",
    "Scene",
    "Split",
    "SplitSpec",
    "load_scene",
    "make_split",
    "prepare",
    "scene_from_arrays",
]
