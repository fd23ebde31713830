"""Every file a scene file names, opened once and brought to one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdgf_fast.data.scene_tables import RESAMPLING, entry_name
from bdgf_fast.data.sources import index_lists
from bdgf_fast.data.sources.gdal_raster import GdalRaster
from bdgf_fast.data.sources.grid import fit_to_grid, guess_layout
from bdgf_fast.data.sources.raster import ArrayRaster, Raster
from bdgf_fast.data.sources.readers import is_array_file, is_vector_file, load_array, locate, matching
from bdgf_fast.data.sources.vectors import Features, burn, name_codes, read_features
from bdgf_fast.errors import MissingFile, SceneError, SceneErrors, SeveralArrays

FILE_KEYS = ("path", "variable", "field", "layer")
SIDES = ("train", "test", "val")
LABELS = ("path", *SIDES)


@dataclass
class Source:
    """One file named in the scene file: a raster, an array whose layout is still open, or shapes that are still to be drawn."""

    key: tuple[str, int, int]  # ("modality", entry, file) or ("path" | "train" | ..., 0, 0)
    file: Path | str
    variable: str | None
    nodata: float | None
    resampling: str = "nearest"
    raster: Raster | None = None
    array: Any = None
    features: Features | None = None
    listed: bool = False  # pixels listed as (row, column), no map

    @property
    def label(self) -> str:
        return f"{self.file}[{self.variable}]" if self.variable else str(self.file)

    @property
    def settled(self) -> Raster:
        """The raster, once `settle` has been through."""
        assert self.raster is not None, f"the layout of {self.label} is still open"
        return self.raster


def open_sources(
    said: str, base: Path, entries: list[dict[str, Any]], labels: dict[str, Any] | None
) -> dict[tuple[str, int, int], Source]:
    """All files of the [[modality]] tables and of [labels], by ("modality", entry, file) or (side, 0, 0). All that are missing are
    said at once."""
    sources: dict[tuple[str, int, int], Source] = {}
    missing: dict[str, SceneError] = {}  # by file: one that several tables name is said once

    def add(key: tuple[str, int, int], text: str, table: dict[str, Any], where: str) -> None:
        try:
            sources[key] = _open(key, base, text, table, where)
        except MissingFile as error:
            missing.setdefault(error.file, error)

    for i, entry in enumerate(entries, 1):
        where = entry_name(said, i, entry)
        try:
            names = _files(entry, base, where)
        except MissingFile as error:
            missing.setdefault(error.file, error)
            continue
        for j, name in enumerate(names):
            add(("modality", i, j), name, entry, where)
    for key in LABELS:
        if labels and key in labels:
            where = f"{said}, [labels]"
            table = {k: v for k, v in labels.items() if k in ("nodata", "variable", "field", "layer")}
            text: Any = labels[key]
            if key != "path" and isinstance(text, dict):  # train = { path = "x.mat", variable = "tr" }
                for name, value in text.items():
                    if name not in FILE_KEYS or not isinstance(value, str):
                        raise SceneError(f"{where}, {key}: a table takes {', '.join(FILE_KEYS)} as texts, here {name} = {value!r}.")
                table, text = {**table, **text}, text.get("path")
            elif key != "path":
                table.pop("variable", None)
            if not isinstance(text, str):
                raise SceneError(f"{where}: {key} is {text!r}; it must be a file name.")
            add((key, 0, 0), text, table, where)
    if missing:
        errors = list(missing.values())
        raise errors[0] if len(errors) == 1 else SceneErrors(errors)
    return sources


def _files(entry: dict[str, Any], base: Path, where: str) -> list[str]:
    if ("path" in entry) == ("files" in entry):
        raise SceneError(f"{where}: give either path or files.")
    value = entry.get("path", entry.get("files"))
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list) or not files or not all(isinstance(f, str) for f in files):
        raise SceneError(f"{where}: {'path' if 'path' in entry else 'files'} is a file name or a list of them.")
    return [name for text in files for name in matching(base, text, where)]


def _open(key: tuple[str, int, int], base: Path, text: str, table: dict[str, Any], where: str) -> Source:
    file = locate(base, text, where)
    given = {name: table.get(name) for name in ("variable", "layout", "unscale", "alpha", "resampling")}
    nodata = None if table.get("nodata") is None else float(table["nodata"])
    if given["layout"] not in (None, "hwc", "chw"):
        raise SceneError(f'{where}: layout is {given["layout"]!r}; it is "hwc" (rows, columns, bands) or "chw".')
    if given["resampling"] not in (None, *RESAMPLING):
        raise SceneError(f"{where}: resampling is {given['resampling']!r}; it can be {', '.join(RESAMPLING)}.")
    default = "bilinear" if key[0] == "modality" else "nearest"
    source = Source(key, file, given["variable"], nodata, given["resampling"] or default)
    if key[0] != "modality" and is_vector_file(file):
        field, layer = (table.get(name) for name in ("field", "layer"))
        source.features = read_features(file, field, layer, where)
    elif is_array_file(file):
        _refuse(given, ("unscale", "alpha", "resampling"), f"{where}: {{}} belongs to GeoTIFF and other georeferenced files.")
        try:
            _open_array(source, given["layout"])
        except SeveralArrays as error:
            likely = error.likeliest(table.get("name", key[0]), flat=key[0] != "modality")
            line = f'variable = "{likely}"'
            if key[0] in SIDES:
                line = f'{key[0]} = {{ path = "{text}", {line} }}'
            raise SceneError(f"{where}: {error.file} holds {error.held}; name the one to take there, such as {line}.") from None
    else:
        name = Path(file).name
        _refuse(given, ("variable", "layout"), f"{where}: {{}} belongs to .mat, .npz and .npy files; {name} needs none.")
        source.raster = GdalRaster(
            file, source.nodata, alpha=given["alpha"] is not False, unscale=key[0] == "modality" and given["unscale"] is not False
        )
    return source


def _refuse(given: dict[str, Any], keys: tuple[str, ...], sentence: str) -> None:
    for key in keys:
        if given[key] is not None:
            raise SceneError(sentence.format(repr(key)))


def _open_array(source: Source, layout: str | None) -> None:
    source.array = array = load_array(source.file, source.variable)
    if array.ndim not in (2, 3):
        raise SceneError(f"{source.label} has shape {array.shape}; bands need two or three dimensions.")
    source.listed = source.key[0] in SIDES and index_lists.is_list(array)
    if not source.listed and (array.ndim == 2 or layout is not None):
        source.raster = ArrayRaster(
            array, source.label, layout=layout if array.ndim == 3 and layout else "hw", nodata=source.nodata
        )


def settle(
    sources: dict[tuple[str, int, int], Source], grid: tuple[str, int] | None, classes: dict[int, Any] | None, notes: list[str]
) -> tuple[Raster, dict[int, str] | None]:
    """Bring everything to the grid of the first georeferenced modality, or of the entry ``grid`` (key, number) names.

    Open layouts are settled by it, other grids resampled, shapes drawn. Returns the raster the grid comes from, and the
    names of the classes where a vector file gives them.
    """
    maps = [s for s in sources.values() if not s.listed and s.features is None]
    known_grids = [s for s in maps if s.raster is not None]
    if not known_grids:
        first = maps[0]
        raise SceneError(
            f"{first.label} has shape {first.array.shape} and nothing else tells which axis holds the bands; "
            'say layout = "hwc" or "chw".'
        )
    placed = [s for s in known_grids if s.settled.transform is not None]
    named = [s for s in placed if s.key[:2] == grid]
    if grid is not None and not named:
        raise SceneError(f"{sources[grid[0], grid[1], 0].label} has no georeference, so it gives no grid; name another modality.")
    reference = [*named, *placed, *known_grids][0]
    for source in maps:
        if source.raster is None:
            size = (reference.settled.height, reference.settled.width)
            layout = guess_layout(source.array.shape, size, source.label, reference.settled.source)
            notes.append(f"{source.label}: shape {source.array.shape} read as layout {layout!r}, to match {reference.label}")
            source.raster = ArrayRaster(source.array, source.label, layout=layout, nodata=source.nodata)
        notes.extend(note for note in source.settled.notes if note not in notes)
        fit_to_grid(source.settled, reference.settled, source.resampling, notes)
    shapes = {key[0]: s.features for key, s in sources.items() if s.features is not None}
    names = name_codes(shapes, classes, notes) if shapes else None
    for key, features in shapes.items():
        sources[key, 0, 0].raster = burn(features, reference.settled, notes)
    return reference.settled, names
