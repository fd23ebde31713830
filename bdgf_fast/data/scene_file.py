"""Scene files: one TOML file that says where the rasters are and how to read, name and split them."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data import index_lists, known_sets
from bdgf_fast.data.colours import parse_colour
from bdgf_fast.data.grid import guess_layout, same_grid
from bdgf_fast.data.readers import ArrayRaster, GdalRaster, Raster, find_file, is_array_file, load_array
from bdgf_fast.data.scene import ClassInfo, Modality, Scene, SplitSpec, as_codes, index_labels
from bdgf_fast.data.split import DEFAULT_VAL_BLOCKS, KINDS
from bdgf_fast.errors import SceneError

log = logging.getLogger(__name__)

TOP_KEYS = ("name", "modality", "labels", "split")
MODALITY_KEYS = ("name", "path", "files", "bands", "band_names", "variable", "layout", "nodata", "pca", "rgb")
LABEL_KEYS = ("path", "variable", "train", "test", "val", "ignore", "classes", "colours", "nodata")
SPLIT_KEYS = ("kind", "block", "train_fraction", "per_class", "gap", "val_blocks")
SIDES = ("train", "test", "val")


def load_scene(path: str | Path) -> Scene:
    """Scene described by a TOML file; paths in it are relative to that file.

    A known data set is named in place of tables, in the file (``dataset = "augsburg"`` and ``folder = "..."``, see
    `bdgf_fast.data.known_sets`) or without one: ``load_scene("augsburg:FOLDER")``.

    Labels are read at once, rasters only in windows later. Raises SceneError naming the file, the key and the mend.
    """
    reference = known_sets.split_reference(path)
    if reference is not None:
        known, folder = reference
        return known_scene(known_sets.find(known, folder), {}, f"{known.name} in {folder}", folder)
    path = Path(path)
    if not path.is_file():
        hint = f" For a folder with a known data set say NAME:{path}." if path.is_dir() else ""
        raise SceneError(f"{path} does not exist or is no file; name a scene file (.toml).{hint}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SceneError(f"{path} is not valid TOML: {error}.") from None
    if "dataset" in table:
        _keys(table, known_sets.OPTIONS, str(path))
        return known_scene(known_sets.find_from_table(table, path), table, str(path), path)
    return build_scene(table, str(path), path.parent, path)


def known_scene(found: known_sets.Found, options: dict[str, Any], said: str, path: Path) -> Scene:
    """Scene of a known data set whose files were found; ``options`` are the other keys of its scene file."""
    table, notes = known_sets.scene_table(found, options, said)
    scene = build_scene(table, said, found.root, path)
    scene.notes = notes + scene.notes
    return scene


def build_scene(table: dict[str, Any], said: str, base: Path, path: Path) -> Scene:
    """Scene of a parsed scene file: ``said`` names it in messages, paths are relative to ``base``."""
    _keys(table, TOP_KEYS, said)
    entries = table.get("modality")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise SceneError(f"{said}: give at least one [[modality]] table (double brackets).")
    labels = _table(table, "labels", said)
    if labels is not None:
        _keys(labels, LABEL_KEYS, f"{said}, [labels]")
    sources = _sources(said, base, entries, labels)
    notes: list[str] = []
    grid = _settle(sources, notes)
    modalities = [_modality(said, i, entry, sources) for i, entry in enumerate(entries, 1)]
    names = [m.name for m in modalities]
    for name in names:
        if names.count(name) > 1:
            raise SceneError(f"{said}: two modalities are called {name!r}; names must differ.")
    index, classes, given = _labels(said, labels, sources, grid, notes)
    for note in notes:
        log.info(note)
    return Scene(
        name=_get(table, "name", str, said, path.stem),
        modalities=modalities,
        height=grid.height,
        width=grid.width,
        labels=index,
        classes=classes,
        crs=grid.crs,
        transform=grid.transform,
        split_spec=_split(said, _table(table, "split", said), given),
        given=given,
        path=path,
        notes=notes,
    )


# --- sources: every file named, opened once, checked against one grid ---


@dataclass
class _Source:
    """One file named in the scene file: a raster, or an array whose layout is still open."""

    key: tuple[str, int, int]  # ("modality", entry, file) or ("path" | "train" | ..., 0, 0)
    file: Path
    variable: str | None
    nodata: float | None
    raster: Raster | None = None
    array: Any = None
    listed: bool = False  # pixels listed as (row, column), no map

    @property
    def label(self) -> str:
        return f"{self.file}[{self.variable}]" if self.variable else str(self.file)

    @property
    def settled(self) -> Raster:
        """The raster, once `_settle` has been through."""
        assert self.raster is not None, f"the layout of {self.label} is still open"
        return self.raster


def _sources(
    said: str, base: Path, entries: list[dict[str, Any]], labels: dict[str, Any] | None
) -> dict[Any, _Source]:
    sources: dict[Any, _Source] = {}

    def add(key: tuple[str, int, int], text: str, table: dict[str, Any], where: str, layout: str | None) -> None:
        file = find_file(base / Path(text).expanduser(), where)
        nodata = _get(table, "nodata", float, where, None)
        source = _Source(key, file, _get(table, "variable", str, where, None), nodata)
        if not is_array_file(file):
            for name, given in (("variable", source.variable), ("layout", layout)):
                if given is not None:
                    raise SceneError(f"{where}: {name!r} belongs to .mat and .npy files; {file.name} needs none.")
            source.raster = GdalRaster(file, nodata)
        else:
            source.array = array = load_array(file, source.variable)
            if array.ndim not in (2, 3):
                raise SceneError(f"{source.label} has shape {array.shape}; bands need two or three dimensions.")
            source.listed = key[0] in SIDES and index_lists.is_list(array)
            if not source.listed and (array.ndim == 2 or layout is not None):
                source.raster = ArrayRaster(
                    array, source.label, layout=layout if array.ndim == 3 and layout else "hw", nodata=nodata
                )
        sources[key] = source

    for i, entry in enumerate(entries, 1):
        where = _where(said, i, entry)
        _keys(entry, MODALITY_KEYS, where)
        layout = _get(entry, "layout", str, where, None)
        if layout not in (None, "hwc", "chw"):
            raise SceneError(f'{where}: layout is {layout!r}; it is "hwc" (rows, columns, bands) or "chw".')
        for j, name in enumerate(_files(entry, where)):
            add(("modality", i, j), name, entry, where, layout)
    for key in ("path", *SIDES):
        if labels and key in labels:
            where = f"{said}, [labels]"
            table = {k: v for k, v in labels.items() if k in ("nodata", "variable")}
            text: Any = labels[key]
            if key != "path" and isinstance(text, dict):  # train = { path = "x.mat", variable = "tr" }
                _keys(text, ("path", "variable"), f"{where}, {key}")
                table, text = {**table, **text}, text.get("path")
            elif key != "path":
                table.pop("variable", None)
            if not isinstance(text, str):
                raise SceneError(f"{where}: {key} is {text!r}; it must be a file name.")
            add((key, 0, 0), text, table, where, None)
    return sources


def _settle(sources: dict[Any, _Source], notes: list[str]) -> Raster:
    """Fix open layouts by the grid of the others, check all grids; the raster the scene's grid comes from."""
    maps = [s for s in sources.values() if not s.listed]
    known_grids = [s for s in maps if s.raster is not None]
    if not known_grids:
        first = maps[0]
        raise SceneError(
            f"{first.label} has shape {first.array.shape} and nothing else tells which axis holds the bands; "
            'say layout = "hwc" or "chw".'
        )
    reference = next((s for s in known_grids if s.settled.transform is not None), known_grids[0])
    for source in maps:
        if source.raster is None:
            size = (reference.settled.height, reference.settled.width)
            layout = guess_layout(source.array.shape, size, source.label, reference.settled.source)
            notes.append(f"{source.label}: shape {source.array.shape} read as layout {layout!r}, to match {reference.label}")
            source.raster = ArrayRaster(source.array, source.label, layout=layout, nodata=source.nodata)
        same_grid(source.settled, reference.settled)
    return reference.settled


# --- tables ---


def _files(entry: dict[str, Any], where: str) -> list[str]:
    if ("path" in entry) == ("files" in entry):
        raise SceneError(f"{where}: give either path or files.")
    value = entry.get("path", entry.get("files"))
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list) or not files or not all(isinstance(f, str) for f in files):
        raise SceneError(f"{where}: {'path' if 'path' in entry else 'files'} is a file name or a list of them.")
    return files


def _modality(said: str, i: int, entry: dict[str, Any], sources: dict[Any, _Source]) -> Modality:
    where = _where(said, i, entry)
    rasters = [s.settled for key, s in sources.items() if key[:2] == ("modality", i)]
    flat = [(raster, band) for raster in rasters for band in range(len(raster.names))]
    names = [raster.names[band] for raster, band in flat]
    if len(rasters) > 1 and len(set(names)) < len(names):  # several files without band names of their own
        names = [f"{Path(r.source).stem} {r.names[b]}" if len(r.names) > 1 else Path(r.source).stem for r, b in flat]
    picked = _selection(entry.get("bands"), names, where)
    parts: list[tuple[Raster, list[int]]] = []
    for raster, band in (flat[p] for p in picked):
        if parts and parts[-1][0] is raster:
            parts[-1][1].append(band)
        else:
            parts.append((raster, [band]))
    bands = [names[p] for p in picked]
    if "band_names" in entry:
        bands = entry["band_names"]
        if not isinstance(bands, list) or len(bands) != len(picked) or not all(isinstance(b, str) for b in bands):
            raise SceneError(f"{where}: band_names must be {len(picked)} names, one for each band used.")
    pca = _get(entry, "pca", int, where, None)
    if pca is not None and not 1 <= pca <= len(bands):
        raise SceneError(f"{where}: pca is {pca}; with {len(bands)} bands it is 1 to {len(bands)}.")
    rgb = entry.get("rgb")
    if rgb is not None:
        if not isinstance(rgb, list) or len(rgb) != 3 or not all(type(b) is int and 1 <= b <= len(bands) for b in rgb):
            raise SceneError(f"{where}: rgb is three band numbers, 1 to {len(bands)}, for red, green and blue.")
        rgb = tuple(b - 1 for b in rgb)
    name = _get(entry, "name", str, where, None)
    if not name:
        raise SceneError(f'{where}: give the modality a name, such as name = "sar".')
    return Modality(name, parts, list(bands), pca, rgb)


def _selection(value: Any, names: Sequence[str], where: str) -> list[int]:
    """0-based bands of [1, 3], "1-12, 14" or ["red", "nir"]."""
    count = len(names)
    if value is None:
        return list(range(count))
    items: list[Any] = value if isinstance(value, list) else [v.strip() for v in str(value).split(",")]
    picked: list[int] = []
    for item in items:
        first, dash, last = str(item).partition("-")
        if item in names:
            picked.append(list(names).index(item))
        elif type(item) is int or (first.strip().isdigit() and (last.strip().isdigit() or not dash)):
            low = int(item) if type(item) is int else int(first)
            high = int(last) if type(item) is not int and dash else low
            if not 1 <= low <= high <= count:
                raise SceneError(f"{where}: bands asks for {item}, but there are bands 1 to {count}.")
            picked += range(low - 1, high)
        else:
            known = ", ".join(names[:12]) + (", ..." if count > 12 else "")
            raise SceneError(f"{where}: bands asks for {item!r}; there are {known} (or numbers 1 to {count}).")
    if not picked or len(set(picked)) < len(picked):
        raise SceneError(f"{where}: bands must name at least one band, each once.")
    return picked


def _labels(
    said: str, table: dict[str, Any] | None, sources: dict[Any, _Source], grid: Raster, notes: list[str]
) -> tuple[np.ndarray, list[ClassInfo], dict[str, np.ndarray]]:
    shape = (grid.height, grid.width)
    if table is None:
        return np.full(shape, -1, np.int16), [], {}
    where = f"{said}, [labels]"
    if "path" not in table and not {"train", "test"} <= set(table):
        raise SceneError(f"{where}: give path, or train and test, or all three.")
    ignore = table.get("ignore", [0])
    if not isinstance(ignore, list) or not all(type(c) is int for c in ignore):
        raise SceneError(f"{where}: ignore is a list of codes such as [0, 255].")
    classes = _by_code(table, "classes", where)
    for code, name in (classes or {}).items():
        if not isinstance(name, str):
            raise SceneError(f"{where}: class {code} is named {name!r}; a name is text in quotes.")
    colours = {}
    for code, value in (_by_code(table, "colours", where) or {}).items():
        try:
            colours[code] = parse_colour(value)
        except ValueError as error:
            raise SceneError(f"{where}: colour of code {code}: {error}.") from None

    def codes(key: str) -> np.ndarray:
        raster = sources[key, 0, 0].settled
        if len(raster.names) != 1:
            raise SceneError(f"{raster.source} has {len(raster.names)} bands; a label map has one.")
        window = (0, grid.height, 0, grid.width)
        raw = raster.native([0], *window)
        return as_codes(raw[0], raster.source, raster.missing(raw, [0], window)[0])

    skip = [*ignore, np.iinfo(np.int64).min] + ([] if classes and 0 in classes and "path" not in table else [0])
    maps = {side: codes(side) for side in SIDES if side in table and not sources[side, 0, 0].listed}
    given = {side: ~np.isin(values, skip) for side, values in maps.items()}
    lists = {side: sources[side, 0, 0] for side in SIDES if side in table and sources[side, 0, 0].listed}
    if lists and "path" not in table:
        raise SceneError(f"{where}: {next(iter(lists.values())).label} lists pixels; name the ground truth with path too.")
    if "path" in table:
        merged, source = codes("path"), sources["path", 0, 0].settled.source
        if lists:
            labelled = ~np.isin(merged, skip)
            labels_of = {side: listed.label for side, listed in lists.items()}
            masks, sentence = index_lists.settle({k: v.array for k, v in lists.items()}, labelled, labels_of)
            notes.append(sentence)
            given = {side: {**given, **masks}[side] for side in SIDES if side in table}
    else:
        merged, source = np.zeros(shape, np.int64), ", ".join(sources[s, 0, 0].settled.source for s in maps)
        for side in ("test", "val", "train"):
            if side in maps:
                merged = np.where(given[side], maps[side], merged)
    for side, values in maps.items():
        own = np.unique(values[given[side]])
        # A map with a single value beside a label map only marks pixels; any other carries codes, which must agree.
        clash = given[side] & (values != merged)
        if clash.any() and not ("path" in table and own.size == 1):
            y, x = np.argwhere(clash)[0]
            raise SceneError(
                f"{sources[side, 0, 0].settled.source} contradicts the other label maps at {int(clash.sum())} pixels "
                f"(first at row {y}, column {x}: {values[y, x]} and {merged[y, x]}); correct one of them."
            )
    index, infos = index_labels(merged, source, classes=classes, ignore=ignore, colours=colours)
    return index, infos, given


def _by_code(table: dict[str, Any], key: str, where: str) -> dict[int, Any] | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise SceneError(f'{where}: {key} is a table such as {{ 1 = "...", 2 = "..." }}.')
    result = {}
    for code, entry in value.items():
        try:
            result[int(code)] = entry
        except ValueError:
            raise SceneError(
                f"{where}: {key} has the key {code!r}; keys are the whole numbers in the label map."
            ) from None
    return result


def _split(said: str, table: dict[str, Any] | None, given: dict[str, np.ndarray]) -> SplitSpec:
    where = f"{said}, [split]"
    table = table or {}
    _keys(table, SPLIT_KEYS, where)
    kind = _get(table, "kind", str, where, "given" if given else "blocks")
    if kind not in KINDS:
        raise SceneError(f"{where}: kind is {kind!r}; it can be {', '.join(KINDS)}.")
    if kind != "blocks":
        for key in ("block", "train_fraction", "val_blocks"):
            if key in table:
                raise SceneError(f'{where}: {key} goes with kind = "blocks", not with {kind!r}.')
    gap = table.get("gap")
    if gap is not None and gap != "patch" and not (type(gap) is int and gap >= 0):
        raise SceneError(f'{where}: gap is {gap!r}; it is "patch" (the patch radius) or a number of pixels.')
    val = table.get("val_blocks", 0.0)
    if isinstance(val, bool):
        val = DEFAULT_VAL_BLOCKS if val else 0.0
    default = SplitSpec()
    return SplitSpec(
        kind=kind,
        block=_get(table, "block", int, where, default.block),
        train_fraction=_get(table, "train_fraction", float, where, default.train_fraction),
        per_class=_get(table, "per_class", int, where, None if kind == "given" else default.per_class),
        gap=gap,
        val_blocks=_get({"val_blocks": val}, "val_blocks", float, where, 0.0),
    )


# --- small helpers ---

_KINDS = {str: "text in quotes", int: "a whole number", float: "a number"}


def _get(table: dict[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
    if key not in table:
        return default
    value = table[key]
    fits = type(value) in (int, float) if kind is float else type(value) is kind
    if not fits:
        raise SceneError(f"{where}: {key} is {value!r}; it must be {_KINDS[kind]}.")
    return kind(value)


def _keys(table: dict[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SceneError(f"{where}: unknown key {key!r}; known are {', '.join(known)}.")


def _table(table: dict[str, Any], key: str, said: str) -> dict[str, Any] | None:
    value = table.get(key)
    if value is not None and not isinstance(value, dict):
        raise SceneError(f"{said}: {key} must be a table, [{key}].")
    return value


def _where(said: str, i: int, entry: dict[str, Any]) -> str:
    return f"{said}, [[modality]] {entry.get('name', i)!r}"
