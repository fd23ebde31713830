"""What the functions of the pipeline return: paths and figures, and arrays that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..files.geotiff import read_raster
from ..files.json_files import read_json
from ..report.terminal import run_text, summary_text


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Attributes: ``path`` (the run's directory), ``checkpoint`` (the file that it wrote; there is none if the run needs no
    pre-training), ``seconds`` that it took, and its ``history``: curves of the losses and what else the stage measured.
    """

    path: Path
    checkpoint: Path
    seconds: float
    history: Mapping[str, Any]


@dataclass(frozen=True)
class MapResult:
    """A predicted scene: map.tif, probabilities.tif, map.png and areas.csv in ``path``."""

    path: Path

    @property
    def map_path(self) -> Path:
        """The classification map, a GeoTIFF with class names and colours."""
        return self.path / "map.tif"

    @property
    def probabilities_path(self) -> Path:
        """The class probabilities, a GeoTIFF with one band per class."""
        return self.path / "probabilities.tif"

    def map(self) -> np.ndarray:
        """The map's codes, uint8 (H, W); 0 where there is no value."""
        return read_raster(self.map_path)[0]

    def probabilities(self) -> np.ndarray:
        """The class probabilities, float32 (K, H, W); NaN where there is no value. The whole array is read into memory."""
        return read_raster(self.probabilities_path)


@dataclass(frozen=True)
class RunResult(MapResult):
    """A run that was scored on its test pixels; ``print`` shows it as the command line does.

    Example::

        result = bdgf_fast.run("scene.toml", "runs/first")
        print(result.overall_accuracy, result.per_class["water"], result.map().shape)
    """

    @cached_property
    def report(self) -> dict[str, Any]:
        """Everything that report.json holds: accuracy, baselines, split, times, configuration, versions."""
        return read_json(self.path / "report.json")

    @cached_property
    def history(self) -> dict[str, Any]:
        """Curves of the losses, by stage."""
        return read_json(self.path / "history.json")

    @property
    def page(self) -> Path:
        """The report as one HTML page."""
        return self.path / "report.html"

    @property
    def overall_accuracy(self) -> float:
        """Share of the test pixels that were classified correctly."""
        return self.report["overall_accuracy"]

    @property
    def average_accuracy(self) -> float:
        """Mean of the classes' accuracies."""
        return self.report["average_accuracy"]

    @property
    def kappa(self) -> float:
        """Cohen's kappa."""
        return self.report["kappa"]

    @property
    def per_class(self) -> dict[str, float | None]:
        """Accuracy of each class by its name; None for a class without test pixels."""
        return self.report["per_class"]

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Accuracy of each baseline, by its name."""
        return self.report["baselines"]

    @property
    def confusion_matrix(self) -> np.ndarray:
        """int64 (K, K), rows = truth, over the test pixels."""
        return np.array(self.report["confusion_matrix"], np.int64)

    def __str__(self) -> str:
        return run_text(self.report, self.path)


@dataclass(frozen=True)
class SeedsResult:
    """Runs with several seeds, each in a directory ``seed-N`` of ``path``, and their means and deviations in summary.json."""

    path: Path
    runs: dict[int, RunResult]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: ``rows`` with mean, standard deviation and values of each figure."""
        return read_json(self.path / "summary.json")

    def __str__(self) -> str:
        return summary_text(self.summary, self.path)


@dataclass(frozen=True)
class MapsResult:
    """The maps of many scenes, each in a folder of ``path``, with index.json and the mosaics beside them.

    Example::

        found = bdgf_fast.predict_scenes("runs/first", "scenes.txt", "maps")
        print(found.maps["valley"].map().shape, found.failed, found.mosaics)
    """

    path: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of index.json: a GeoJSON collection with one feature per scene."""
        return read_json(self.path / "index.json")

    @property
    def maps(self) -> dict[str, MapResult]:
        """The maps that were made, by the names of their scenes."""
        done = [f["id"] for f in self.index["features"] if f["properties"]["state"] == "done"]
        return {name: MapResult(self.path / name) for name in done}

    @property
    def failed(self) -> dict[str, str]:
        """What is wrong with each scene that could not be mapped, by its name."""
        return {f["id"]: f["properties"]["error"] for f in self.index["features"] if f["properties"]["state"] == "failed"}

    @property
    def mosaics(self) -> list[Path]:
        """The mosaics: one virtual raster per coordinate system."""
        return [self.path / entry["file"] for entry in self.index["mosaics"]]

    def __str__(self) -> str:
        mosaics = "".join(f", {path}" for path in self.mosaics)
        failed = f"; {len(self.failed)} could not be mapped" if self.failed else ""
        return f"{len(self.maps)} of {len(self.index['features'])} scenes are mapped{failed}: {self.path / 'index.json'}{mosaics}"
