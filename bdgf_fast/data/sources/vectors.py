"""Labels drawn as points or polygons: a GeoPackage, GeoJSON or shapefile burnt onto the grid of the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.classes import as_codes
from bdgf_fast.data.sources.raster import ArrayRaster, Raster
from bdgf_fast.errors import SceneError, closest


@dataclass
class Features:
    """Shapes of a vector file with the value of their class field, whole numbers or texts."""

    source: str
    shapes: np.ndarray  # of shapely geometries
    values: np.ndarray
    crs: Any
    skipped: int  # features without shape or value

    @property
    def named(self) -> bool:
        """Whether the field holds names rather than codes."""
        return self.values.dtype.kind == "O"


def read_features(path: Any, field: str | None, layer: str | None, where: str) -> Features:
    """Shapes and values of one layer; SceneError naming the fields or layers there are when one must be said."""
    source = str(path)
    pyogrio = require("pyogrio", source)
    shapely = require("shapely", source)
    rasterio = require("rasterio", source)
    try:
        layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        if layer is None and len(layers) == 1:
            layer = layers[0]
        if layer not in layers:
            raise SceneError(_unnamed(source, "layer", layer, layers, where))
        fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
        if field is None and len(fields) == 1:
            field = fields[0]
        if field not in fields:
            raise SceneError(_unnamed(source, "field", field, fields, where))
        meta, _, shapes, columns = pyogrio.raw.read(path, layer=layer, columns=[field], force_2d=True)
        geometry = shapely.from_wkb(shapes, on_invalid="raise") if shapes is not None else np.empty(0, object)
        crs = rasterio.crs.CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    except SceneError:
        raise
    except Exception as error:  # pyogrio, shapely and PROJ have a family of errors each
        reason = str(error).rstrip(".")
        raise SceneError(f"{source} cannot be read as a vector file: {reason or type(error).__name__}.") from None
    values = columns[0] if columns else np.empty(0, object)
    if values.dtype.kind == "O":
        there = np.array([value is not None and str(value).strip() != "" for value in values], bool)
        values = np.array([str(value).strip() if ok else "" for value, ok in zip(values, there, strict=True)], object)
    else:
        there = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    there &= ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    values, geometry = values[there], geometry[there]
    if not len(values):
        raise SceneError(f"{source} holds no shape with a value in the field {field!r}.")
    if values.dtype.kind != "O":
        values = as_codes(values, f"{source}, field {field!r},")
    elif all(value.lstrip("-").isdecimal() and len(value) < 19 for value in values):
        values = np.array([int(value) for value in values], np.int64)
    return Features(source, geometry, values, crs, int((~there).sum()))


def _unnamed(source: str, key: str, given: str | None, names: list[str], where: str) -> str:
    """What to say when a layer or field is needed, or another one was named than there are."""
    held = ", ".join(names) or "none"
    if given is not None:
        return f"{source} has no {key} {given!r}{closest(given, names)}; it has: {held}. Correct {key} in {where}."
    which = "the one with the class" if key == "field" else "one"
    return f'{source} holds the {key}s {held}; name {which} in {where} with {key} = "...".'


def name_codes(maps: Mapping[str, Features], classes: Mapping[int, str] | None, notes: list[str]) -> dict[int, str] | None:
    """Turn the names in all maps into codes: those of ``classes``, or 1, 2, ... in alphabetical order.

    Returns names by code where the files give them. Raises SceneError for a name that ``classes`` lacks.
    """
    texts = sorted({value for features in maps.values() if features.named for value in features.values})
    if not texts:
        return None
    if classes:
        codes = {str(name).strip().casefold(): code for code, name in classes.items()}
        for text in texts:
            if text.casefold() not in codes:
                source = next(f.source for f in maps.values() if f.named and text in f.values)
                raise SceneError(f"{source}: the class {text!r} is not among classes in [labels]; add it there.")
    else:
        codes = {text: code for code, text in enumerate(dict.fromkeys(text.casefold() for text in texts), 1)}
        first = {codes[text.casefold()]: text for text in reversed(texts)}
        listed = ", ".join(f"{code} {name}" for code, name in sorted(first.items()))
        notes.append(f"{next(iter(maps.values())).source}: classes numbered {listed}")
    for features in maps.values():
        if features.named:
            features.values = np.array([codes[text.casefold()] for text in features.values], np.int64)
    return None if classes else first


def burn(features: Features, grid: Raster, notes: list[str]) -> ArrayRaster:
    """Label map of the shapes on ``grid``: a pixel takes the class of the polygon over its centre, a point labels its pixel.

    Pixels that shapes of different classes claim stay without label.
    """
    if grid.transform is None:
        raise SceneError(f"{features.source} holds shapes in map coordinates, but {grid.source} has no georeference.")
    from rasterio.features import rasterize

    shapes = _to_grid(features, grid)
    codes = np.unique(features.values)
    position = np.searchsorted(codes, features.values) + 1  # 0 stays for pixels outside
    small = np.uint8 if len(codes) < 255 else np.int16 if len(codes) < 32767 else np.int32
    # Where shapes of different classes overlap, the order of burning shows.
    pairs = list(zip(shapes, position.tolist(), strict=True))
    try:
        first, last = (
            rasterize(order, (grid.height, grid.width), fill=0, transform=grid.transform, dtype=small)
            for order in (pairs, pairs[::-1])
        )
    except Exception as error:
        raise SceneError(f"{features.source} cannot be drawn on the grid of {grid.source}: {str(error).rstrip('.')}.") from None
    clash = first != last
    if not first.any():
        raise SceneError(f"{features.source}: no shape covers a pixel of {grid.source}; do the two lie on the same ground?")
    if clash.any():
        notes.append(f"{features.source}: pixels in shapes of different classes stay without label: {int(clash.sum())}")
        first[clash] = 0
    if features.skipped:
        notes.append(f"{features.source}: shapes without geometry or class are left out: {features.skipped}")
    unused = int(codes.max()) + 1  # marks pixels without label, so that any code may be a class
    kind = np.result_type(np.min_scalar_type(int(codes.min())), np.min_scalar_type(unused))
    return ArrayRaster(np.array([unused, *codes], kind)[first], features.source, layout="hw", nodata=float(unused))


def _to_grid(features: Features, grid: Raster) -> np.ndarray:
    import shapely
    from rasterio.warp import transform

    if features.crs is None or grid.crs is None or features.crs == grid.crs:
        return features.shapes

    def move(points: np.ndarray) -> np.ndarray:
        return np.stack(transform(features.crs, grid.crs, points[:, 0], points[:, 1]), 1)

    try:
        return shapely.transform(features.shapes, move)
    except Exception as error:
        raise SceneError(f"{features.source} cannot be brought to the coordinates of {grid.source}: {error}.") from None
