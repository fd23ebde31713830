"""Scenes: files, known data sets, splits, normalisation, windows and patches, a synthetic scene, result files."""

from bdgf_fast.data.prepared import PreparedScene, prepare
from bdgf_fast.data.scene import ClassInfo, Modality, Scene, SplitSpec, scene_from_arrays
from bdgf_fast.data.scene_file import load_scene
from bdgf_fast.data.scene_writer import write_scene
from bdgf_fast.data.split import Split, make_split
from bdgf_fast.data.synthetic import synthetic_scene
from bdgf_fast.data.tuples import scene_from_tuple
from bdgf_fast.files.geotiff import MapWriter, ProbabilityWriter, map_codes, write_map, write_probabilities

__all__ = [
    "ClassInfo",
    "MapWriter",
    "Modality",
    "PreparedScene",
    "ProbabilityWriter",
    "Scene",
    "Split",
    "SplitSpec",
    "load_scene",
    "make_split",
    "map_codes",
    "prepare",
    "scene_from_arrays",
    "scene_from_tuple",
    "synthetic_scene",
    "write_map",
    "write_probabilities",
    "write_scene",
]
