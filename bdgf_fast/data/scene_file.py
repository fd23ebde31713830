"""Scene files: one TOML file that says where the rasters are and how to read, name and split them."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data import known_sets
from bdgf_fast.data.joined import GAP, join_scenes
from bdgf_fast.data.labels import Labels, named_classes, read_labels
from bdgf_fast.data.scene import Modality, Scene, SplitSpec, stack
from bdgf_fast.data.scene_tables import DatasetTable, JoinTable, check_tables, describes_settings, entry_name
from bdgf_fast.data.sources.named_files import Source, open_sources, settle
from bdgf_fast.data.sources.raster import counted
from bdgf_fast.data.split import DEFAULT_VAL_BLOCKS, GAPS, KINDS, NAMED_GAPS
from bdgf_fast.errors import NoSceneFile, SceneError, closest, toml_fault

log = logging.getLogger(__name__)

DEFAULT_NAME = "scene.toml"
MOST_GAP = 65536


def load_scene(path: str | Path, *, alone: bool = False) -> Scene:
    """Scene described by a TOML file; paths in it are relative to that file.

    ``join = ["a.toml", "b.toml"]`` makes one scene of several, see `bdgf_fast.data.joined`; ``alone`` refuses such a file.

    A known data set is named in place of tables, in the file (``dataset = "augsburg"`` and ``folder = "..."``, see
    `bdgf_fast.data.known_sets`) or without one: ``load_scene("augsburg:FOLDER")``.

    Labels are read at once, rasters only in windows later. Raises SceneError naming the file, the key and the correction.
    """
    reference = known_sets.split_reference(path)
    if reference is not None:
        known, folder = reference
        return known_scene(known_sets.find(known, folder), {}, f"{known.name} in {folder}", folder)
    path = in_folder(Path(path))
    if not path.is_file():
        raise no_scene(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark in front
    except UnicodeDecodeError:
        raise NoSceneFile(f"{path} is not a text file; name a scene file (TOML), which says where the rasters are.") from None
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path} is not valid TOML: {toml_fault(error)}.") from None
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}.") from None
    if describes_settings(table):
        raise NoSceneFile(
            f"{path} holds settings and describes no scene; name a scene file (TOML) here, and this one with --config."
        )
    if "join" in table and alone:
        raise SceneError(f"{path} joins scenes itself; name its scenes instead.")
    if "join" in table:
        return _joined(table, path)
    if "dataset" in table:
        check_tables(table, str(path), DatasetTable)
        return known_scene(known_sets.find_from_table(table, path), table, str(path), path)
    return build_scene(table, str(path), path.parent, path)


def no_scene(path: Path) -> SceneError:
    """What to say of a path that is not a file."""
    if path.is_dir():
        others = sorted(path.glob("*.toml"))
        what = f"such as {others[0]}" if others else f"or NAME:{path} where the files of a known data set lie in it"
        return SceneError(f"{path} is a folder without {DEFAULT_NAME}; name a scene file, {what}.")
    known = known_sets.by_name(path.name)  # a run has made the path absolute
    if known is not None:
        return SceneError(f"{path.name} is a known data set; name {known.name}:FOLDER, with the folder of its files.")
    beside = [file.name for file in path.parent.glob("*.toml")]
    near = closest(path.name if path.suffix else f"{path.name}.toml", beside, lambda name: str(path.parent / name))
    return SceneError(f"{path} does not exist{near}; name a scene file (.toml), or NAME:FOLDER for a known data set.")


def in_folder(path: Path) -> Path:
    """The scene.toml in a folder, where there is one; anything else as it is."""
    inside = path / DEFAULT_NAME
    return inside if path.is_dir() and inside.is_file() else path


def known_scene(found: known_sets.Found, options: dict[str, Any], said: str, path: Path) -> Scene:
    """Scene of a known data set whose files were found; ``options`` are the other keys of its scene file."""
    table, notes = known_sets.scene_table(found, options, said)
    scene = build_scene(table, said, found.root, path)
    scene.notes = notes + scene.notes
    return scene


def _joined(table: dict[str, Any], path: Path) -> Scene:
    check_tables(table, str(path), JoinTable)
    entries = table["join"]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        raise SceneError(f'{path}: join is a list of scenes, such as ["a.toml", "b.toml"].')
    gap = table.get("gap", GAP)
    if not 0 <= gap <= MOST_GAP:
        raise SceneError(f"{path}: gap is {gap}; it is a number of rows, 0 to {MOST_GAP}.")
    places = []
    for entry in entries:
        known = known_sets.split_reference(entry)
        places.append(str(path.parent / entry) if known is None else f"{known[0].name}:{path.parent / known[1]}")
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise SceneError(f"{path}: join names {twice[0]} twice.")
    scenes = [load_scene(place, alone=True) for place in places]
    return join_scenes(scenes, table.get("name", path.stem), gap=gap, split=_split(str(path), table.get("split"), {}), path=path)


def build_scene(table: dict[str, Any], said: str, base: Path, path: Path) -> Scene:
    """Scene of a parsed scene file: ``said`` names it in messages, paths are relative to ``base``."""
    check_tables(table, said)
    entries, labels = table.get("modality"), table.get("labels")
    if not entries:
        raise SceneError(f"{said}: give at least one [[modality]] table (double brackets).")
    sources = open_sources(said, base, entries, labels)
    notes: list[str] = []
    classes = named_classes(labels, f"{said}, [labels]")
    grid, names = settle(sources, _grid(said, table, entries), classes, notes)
    modalities = [_modality(said, i, entry, sources, notes) for i, entry in enumerate(entries, 1)]
    called = [m.name for m in modalities]
    for name in called:
        if called.count(name) > 1:
            raise SceneError(f"{said}: two modalities are called {name!r}; names must differ.")
    read = Labels(np.full((grid.height, grid.width), -1, np.int16))
    if labels is not None:
        read = read_labels(labels, f"{said}, [labels]", sources, grid, classes, names, notes)
    for note in notes:
        log.info(note)
    return Scene(
        name=table.get("name", path.stem),
        modalities=modalities,
        height=grid.height,
        width=grid.width,
        labels=read.index,
        classes=read.classes,
        crs=grid.crs,
        transform=grid.transform,
        split_spec=_split(said, table.get("split"), read.given),
        given=read.given,
        path=path,
        notes=notes,
        ignored=read.ignored,
    )


# --- tables ---


def _grid(said: str, table: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, int] | None:
    """("modality", number) of the entry whose grid all others are brought to, where one is named."""
    name = table.get("grid")
    if name is None:
        return None
    names = [entry.get("name") for entry in entries]
    if name not in names:
        raise SceneError(f"{said}: grid is {name!r}; it is the name of a modality ({', '.join(map(str, names))}).")
    return "modality", names.index(name) + 1


def _modality(said: str, i: int, entry: dict[str, Any], sources: dict[Any, Source], notes: list[str]) -> Modality:
    where = entry_name(said, i, entry)
    rasters = [s.settled for key, s in sources.items() if key[:2] == ("modality", i)]
    flat = [(raster, band) for raster in rasters for band in range(len(raster.names))]
    names = [raster.names[band] for raster, band in flat]
    if len(rasters) > 1 and len(set(names)) < len(names):  # several files without band names of their own
        names = [f"{Path(r.source).stem} {r.names[b]}" if len(r.names) > 1 else Path(r.source).stem for r, b in flat]
    picked = _selection(entry.get("bands"), names, where)
    bad = [p for p in picked if flat[p][1] in flat[p][0].bad]
    if bad and "bands" not in entry and len(bad) < len(picked):
        dropped = ", ".join(names[p] for p in bad)
        notes.append(f"{where}: {dropped} left out as bad bands by the header's bbl, unless bands names them")
        picked = [p for p in picked if p not in bad]
    parts = stack([flat[p] for p in picked])
    bands = [names[p] for p in picked]
    if "band_names" in entry:
        bands = entry["band_names"]
        if not isinstance(bands, list) or len(bands) != len(picked) or not all(isinstance(b, str) for b in bands):
            raise SceneError(f"{where}: band_names must be {len(picked)} names, one for each band used.")
    pca = entry.get("pca")
    if pca is not None and not 1 <= pca <= len(bands):
        raise SceneError(f"{where}: pca is {pca}; with {counted(len(bands), 'band')} it is 1 to {len(bands)}.")
    rgb = entry.get("rgb")
    if rgb is not None:
        if not isinstance(rgb, list) or len(rgb) != 3 or not all(type(b) is int and 1 <= b <= len(bands) for b in rgb):
            raise SceneError(f"{where}: rgb is three band numbers, 1 to {len(bands)}, for red, green and blue.")
        rgb = tuple(b - 1 for b in rgb)
    name = entry.get("name")
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


def _split(said: str, table: dict[str, Any] | None, given: dict[str, np.ndarray]) -> SplitSpec:
    where = f"{said}, [split]"
    table = table or {}
    kind = table.get("kind", "given" if given else "blocks")
    if kind not in KINDS:
        raise SceneError(f"{where}: kind is {kind!r}; it can be {', '.join(KINDS)}.")
    if kind != "blocks":
        for key in ("block", "train_fraction", "val_blocks"):
            if key in table:
                raise SceneError(f'{where}: {key} goes with kind = "blocks", not with {kind!r}.')
    gap = table.get("gap")
    if gap is not None and gap not in NAMED_GAPS and not (type(gap) is int and gap >= 0):
        raise SceneError(f"{where}: gap is {gap!r}; it takes {GAPS}.")
    val = table.get("val_blocks", 0.0)
    if isinstance(val, bool):
        val = DEFAULT_VAL_BLOCKS if val else 0.0
    if not isinstance(val, (int, float)) or abs(val) > 1e300:
        raise SceneError(f"{where}: val_blocks is {val!r}; it must be a number, or true for {DEFAULT_VAL_BLOCKS}.")
    default = SplitSpec()
    return SplitSpec(
        kind=kind,
        block=table.get("block", default.block),
        train_fraction=float(table.get("train_fraction", default.train_fraction)),
        per_class=table.get("per_class", None if kind in ("given", "all") else default.per_class),
        gap=gap,
        val_blocks=float(val),
    )
