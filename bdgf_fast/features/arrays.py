"""Features of any other model as maps of the scene: arrays in memory, .npy, GeoTIFF and whatever else is read as bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..data.prepared import PreparedScene
from ..data.sources.gdal_raster import GdalRaster
from ..data.sources.grid import guess_layout, same_grid
from ..data.sources.raster import ArrayRaster, Raster
from ..data.sources.readers import find_file, is_array_file, load_array
from ..errors import UserError
from .projection import ProjectedFeatures, training_side


class ArrayFeatures(ProjectedFeatures):
    """Guide maps on the scene's pixel grid, computed elsewhere, in place of the denoiser's features.

    They are treated alike: centred and projected to at most ``features.channels`` principal components fitted on the
    training side without labels, divided by one common factor, cut into patches with the scene's mirror. ``features.pca``
    decides whether several maps guide one stage each (``level``, in the order given) or all stages together (``joint``).
    Missing values (NaN, nodata) take the map's mean over the training side. Files are read in windows.

    Example::

        features = ArrayFeatures.fit(prepared, config, seed, ["embedding.npy"])  # (C, H, W) or (H, W, C)
        network, history = train(prepared, features, config, seed=seed)
    """

    def __init__(self, prepared: PreparedScene, config: Config, rasters: Sequence[Raster], seed: int) -> None:
        super().__init__(prepared, config.features, seed)
        self.rasters = list(rasters)
        self.fill: list[Tensor] = [torch.zeros(len(r.names)) for r in self.rasters]

    @classmethod
    def fit(
        cls,
        prepared: PreparedScene,
        config: Config,
        seed: int,
        maps: Sequence[str | Path | np.ndarray | Tensor],
        region: np.ndarray | None = None,
    ) -> ArrayFeatures:
        """Fit the projection of ``maps`` on the training side.

        Args:
            maps: one or more, each a file or an array (C, H, W) or (H, W, C) of the scene's H and W.
            region: bool (H, W) of pixels to fit on; default: the split's ``train_region``.

        Raises UserError naming the map when it cannot be read or lies on another grid than the scene. O(pixels * C^2).
        """
        self = cls(prepared, config, [_raster(m, i, prepared) for i, m in enumerate(maps, 1)], seed)
        if not self.rasters:
            raise UserError("features: give at least one map")
        region = training_side(prepared, region)
        for i, raster in enumerate(self.rasters):
            self.fill[i] = _mean(raster, region, self.config.tile)
        self._fit(region, config.data.patch)
        return self

    @classmethod
    def restore(
        cls, prepared: PreparedScene, config: Config, maps: Sequence[Any], state: dict[str, Any], tensors: dict[str, Tensor]
    ) -> ArrayFeatures:
        """Inverse of ``state`` and ``tensors``, over the same maps or those of another scene with as many channels."""
        self = cls(prepared, config, [_raster(m, i, prepared) for i, m in enumerate(maps, 1)], state["seed"])
        self.projection = [tensors[f"projection.{i}"] for i in range(state["levels"])]
        self.bias = [tensors[f"bias.{i}"] for i in range(state["maps"])]
        self.fill = [tensors[f"fill.{i}"] for i in range(state["levels"])]
        self.channels = tuple(len(b) for b in self.bias)
        have, want = [len(r.names) for r in self.rasters], [p.shape[1] for p in self.projection]
        if have != want:
            raise UserError(f"the feature maps have {have} channels, the trained network was given {want}; name the same maps")
        return self

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), **{f"fill.{i}": f for i, f in enumerate(self.fill)}}

    def _raw(self, y0: int, x0: int, h: int, w: int) -> list[tuple[Tensor, int, int, int, int, int]]:
        """One map a file at full resolution: no halo is needed, nothing looks at a neighbour."""
        out = []
        for raster, fill in zip(self.rasters, self.fill, strict=True):
            values = torch.from_numpy(raster.read(range(len(raster.names)), y0, y0 + h, x0, x0 + w))
            values = torch.where(values.isnan(), fill[:, None, None], values)
            out.append((values[None], 1, y0, x0, h, w))
        return out


def check_maps(prepared: PreparedScene, maps: Sequence[Any]) -> None:
    """Raise UserError naming the map that cannot be read or lies on another grid than the scene; values are not looked at."""
    for number, source in enumerate(maps, 1):
        _raster(source, number, prepared)


def _raster(source: Any, number: int, prepared: PreparedScene) -> Raster:
    """A map as bands on the scene's grid."""
    size = (prepared.height, prepared.width)
    scene = getattr(prepared, "scene", None)
    grid: Any = SimpleNamespace(
        source=f"the scene {getattr(scene, 'name', '')}".rstrip(), height=size[0], width=size[1],
        crs=getattr(scene, "crs", None), transform=getattr(scene, "transform", None),
    )  # fmt: skip
    if isinstance(source, (str, Path)):
        label, path = str(source), find_file(Path(source), "features.path")
        if not is_array_file(path):
            raster: Raster = GdalRaster(path)
            same_grid(raster, grid)
            return raster
        array = load_array(path, None)
    else:
        label, array = f"feature map {number}", source.detach().cpu().numpy() if isinstance(source, Tensor) else np.asarray(source)
    if array.ndim not in (2, 3):
        raise UserError(f"{label} has shape {tuple(array.shape)}; a feature map is (C, H, W), (H, W, C) or (H, W)")
    layout = "hw" if array.ndim == 2 else guess_layout(array.shape, size, label, grid.source)
    raster = ArrayRaster(array, label, layout=layout)
    same_grid(raster, grid)
    return raster


def _mean(raster: Raster, region: np.ndarray, rows: int) -> Tensor:
    """Mean (C,) of the values there are in the region; 0 for a channel without any."""
    total, count = np.zeros(len(raster.names)), np.zeros(len(raster.names))
    for y in range(0, region.shape[0], rows):
        strip = region[y : y + rows]
        values = raster.read(range(len(raster.names)), y, y + len(strip), 0, region.shape[1])[:, strip].astype(float)
        total += np.nansum(values, 1)
        count += np.isfinite(values).sum(1)
    return torch.from_numpy(total / np.maximum(count, 1)).float()
