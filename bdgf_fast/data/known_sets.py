"""Known data sets by name: which files people have, which variables these hold, the standard split, class names and colours.

The facts stand as tables in ``known/NAME.toml``, with their sources and what could not be verified; this module finds the
files of a set in a folder and writes the scene table that `scene_file.build_scene` reads, the same a person would write.

    bdgf-fast run augsburg:/data/augsburg --out runs/augsburg

or, to change anything about it, a scene file with these keys in place of [[modality]] and [labels]::

    dataset = "augsburg"
    folder = "/data/augsburg"               # relative to the scene file; the files may lie up to two folders deeper
    files = { sar = "my_sar.mat" }          # other names for hsi, sar, ..., labels, train, test (within the folder);
                                            # or sar = { path = "all.mat", variable = "sar" }
    nodata = { dsm = -9999.0 }              # per modality
    pca = { hsi = 30 }                      # per modality
    ignore = [7]                            # codes to leave out as well
    [split]                                 # instead of the standard split
    kind = "blocks"

A file is recognised by its name without suffix, whatever the case, as .mat (v5 to v7.3), .npy, GeoTIFF or ENVI; train and
test may be label maps or, beside a ground truth, lists of (row, column).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data.sources.gdal_raster import GdalRaster
from bdgf_fast.data.sources.matfile import choose_variable, list_variables, load_names
from bdgf_fast.data.sources.readers import find_file, load_array
from bdgf_fast.errors import MissingFile, SceneError, closest

LABEL_ROLES = ("labels", "train", "test")
SUFFIXES = (".mat", ".npy", ".tif", ".tiff", ".txt", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".pix", ".hdr")
DEPTH = 2  # folders below the one named that are searched
MOST_FOLDERS = 200  # at each depth


@dataclass(frozen=True)
class Role:
    """One thing a set is made of: a modality, the ground truth, the training or the test side."""

    name: str
    files: tuple[str, ...]
    variables: tuple[str, ...] = ()
    bands: int | None = None
    rgb: tuple[int, ...] | None = None
    optional: bool = False
    names: str | None = None  # variable that holds the class names

    def __str__(self) -> str:
        return f"{self.name} ({' or '.join(self.files)})"


@dataclass(frozen=True)
class KnownSet:
    """One table of ``known/``. ``sizes`` are the (rows, columns) published, ``counts`` pixels per class in ascending code
    under "train", "test" or "labelled"."""

    name: str
    title: str
    aliases: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    modalities: tuple[Role, ...]
    labels: Role
    train: Role
    test: Role
    classes: dict[int, str]
    other_classes: dict[int, str]
    colours: dict[str, str]
    counts: dict[str, list[int]]
    ignore: tuple[int, ...]
    sources: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def roles(self) -> tuple[Role, ...]:
        return (*self.modalities, self.labels, self.train, self.test)


@dataclass
class Found:
    """Files of a set in a folder: ``files`` maps the names of roles to files below ``root``."""

    known: KnownSet
    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # named by the person
    missing: list[str] = field(default_factory=list)

    def variable(self, role: Role) -> str | None:
        """Variable of the role in its .mat file, None for other files; SceneError listing the file when none fits."""
        path = self.files[role.name]
        if role.name in self.variables:
            return self.variables[role.name]
        return choose_variable(path, role.variables, role.name) if path.suffix.lower() == ".mat" else None


@cache
def known_sets() -> dict[str, KnownSet]:
    """All tables by name."""
    folder = Path(__file__).parent / "known"
    return {file.stem: _read(file) for file in sorted(folder.glob("*.toml"))}


def _read(file: Path) -> KnownSet:
    table = tomllib.loads(file.read_text(encoding="utf-8"))

    def role(name: str, entry: Mapping[str, Any]) -> Role:
        lists: dict[str, Any] = {key: tuple(entry[key]) for key in ("files", "variables", "rgb") if key in entry}
        plain: dict[str, Any] = {key: entry[key] for key in ("bands", "optional", "names") if key in entry}
        return Role(name, **lists, **plain)

    def by_code(key: str) -> dict[int, str]:
        return {int(code): name for code, name in table.get(key, {}).items()}

    return KnownSet(
        name=file.stem,
        title=table["title"],
        aliases=tuple(table["aliases"]),
        sizes=tuple((rows, columns) for rows, columns in table["sizes"]),
        modalities=tuple(role(entry["name"], entry) for entry in table["modality"]),
        labels=role("labels", table["labels"]),
        train=role("train", table["train"]),
        test=role("test", table["test"]),
        classes=by_code("classes"),
        other_classes=by_code("other_classes"),
        colours=table["colours"],
        counts=table.get("counts", {}),
        ignore=tuple(table.get("ignore", (0,))),
        sources=tuple(table["sources"]),
        unverified=tuple(table["unverified"]),
    )


def by_name(name: str) -> KnownSet | None:
    """The set of this name or alias, whatever the case, spaces, hyphens and underscores."""
    for known in known_sets().values():
        if _plain(name) in {_plain(n) for n in (known.name, *known.aliases)}:
            return known
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def split_reference(reference: str | os.PathLike[str]) -> tuple[KnownSet, Path] | None:
    """(set, folder) of "augsburg:FOLDER", None for anything that is a plain path; SceneError for an unknown name."""
    name, colon, folder = os.fspath(reference).partition(":")
    if not colon or len(name) < 2 or os.sep in name or Path(reference).exists():
        return None
    known = by_name(name)
    if known is None:
        raise _unknown(name, str(reference))
    return known, Path(folder).expanduser()


def absolute_reference(reference: str) -> str:
    """The same scene file or NAME:FOLDER with an absolute path, for use from another working directory."""
    parts = split_reference(reference)
    return f"{parts[0].name}:{parts[1].resolve()}" if parts else str(Path(reference).resolve())


def describe(name: str | None = None) -> str:
    """The known sets, one a line, or everything the table of one of them says. SceneError for an unknown name."""
    if name is None:
        width = max(map(len, known_sets()))
        return "\n".join(
            f"{known.name:<{width}}  {known.title}: {' or '.join(f'{r} x {c}' for r, c in known.sizes)}, "
            f"{', '.join(f'{role.name} {role.bands}' for role in known.modalities)}, {len(known.classes)} classes"
            for known in known_sets().values()
        )
    known = by_name(name)
    if known is None:
        raise _unknown(name, "data list")
    lines = [known.title, f"use: bdgf-fast run {known.name}:FOLDER", "files (as .mat, .npy, GeoTIFF or ENVI):"]
    lines += [f"  {role.name:<7} {' | '.join(role.files)}{' (may be missing)' if role.optional else ''}" for role in known.roles]
    lines += ["  train and test, or the ground truth in labels; lists of (row, column) need both", "classes:"]
    lines += [f"  {code:>3} {text:<26} {known.colours[text]}" for code, text in known.classes.items()]
    lines += [f"pixels per class, {side}: {counts} = {sum(counts)}" for side, counts in known.counts.items()]
    for title, texts in (("sources", known.sources), ("not verified", known.unverified)):
        lines += [f"{title}:", *(f"  - {text}" for text in texts)]
    return "\n".join(lines)


def _unknown(name: str, said: str) -> SceneError:
    hint = closest(name.lower(), known_sets())
    return SceneError(f"{said}: no data set is known as {name!r}{hint}; known data sets are {', '.join(known_sets())}.")


# --- files ---


def find(known: KnownSet, folder: Path, named: Mapping[str, Any] | None = None) -> Found:
    """Files of the set in ``folder`` or up to two levels below, where most of them lie; ``named`` overrides file names.

    Roles without a file are listed in ``missing``; SceneError when the folder or a file named is not there.
    """
    if not folder.is_dir():
        raise SceneError(f"{folder} is not a folder; name the one that holds the files of {known.title}.")
    best: Found | None = None
    best_score = (-1, False)
    for root in _folders(folder):
        found = _find_in(known, root, named or {})
        score = (len(found.files), False)
        if score[0] >= max(best_score[0], 1):  # files of several sets may share their names: the size tells
            score = (score[0], _fits_size(found))
        if best is None or score > best_score:
            best, best_score = found, score
    assert best is not None  # `folder` itself comes first
    for role, text in (named or {}).items():
        if role not in best.files:
            raise MissingFile(f"{folder}: files names {text!r} for {role}, but there is no such file.", text)
    return best


def _folders(folder: Path) -> Iterator[Path]:
    """The folder and those below it, nearest first."""
    level = [folder]
    for _ in range(DEPTH + 1):
        level = level[:MOST_FOLDERS]
        yield from level
        level = [sub for up in level for sub in _entries(up) if sub.is_dir() and not sub.name.startswith(".")]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, nothing where it may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _find_in(known: KnownSet, root: Path, named: Mapping[str, Any]) -> Found:
    beside = {path.name.lower(): path for path in _entries(root) if path.is_file()}
    found = Found(known, root)
    for role in known.roles:
        if role.name in named:
            text = named[role.name]
            if isinstance(text, dict):
                found.variables[role.name], text = text["variable"], text["path"]
            path = root / Path(text).expanduser()
            if path.is_file():
                found.files[role.name] = find_file(path, f"files of {known.name}")
            continue
        for stem in role.files:
            suffix = next((s for s in SUFFIXES if stem.lower() + s in beside), None)
            if suffix is not None:
                found.files[role.name] = find_file(beside[stem.lower() + suffix], known.title)
                break
    found.missing = [str(role) for role in known.modalities if role.name not in found.files and not role.optional]
    sides = {"train", "test"} & set(found.files)
    if "labels" not in found.files and len(sides) < 2:
        found.missing += [str(role) for role in (known.train, known.test, known.labels) if role.name not in found.files]
    elif len(sides) == 1:
        found.missing.append(str(known.test if "train" in sides else known.train))
    return found


def shape_of(path: Path, variable: str | None) -> tuple[int, ...] | None:
    """Shape of the array in a file without reading it, None where that is not possible (fields of a v5 struct, text)."""
    try:
        if path.suffix.lower() == ".mat":
            return {name: shape for name, shape, kind in list_variables(path) if kind != "struct"}.get(variable or "")
        if path.suffix.lower() == ".npy":
            return load_array(path, None).shape
        if path.suffix.lower() == ".txt":
            return None
        raster = GdalRaster(path)
        return (len(raster.names), raster.height, raster.width)
    except SceneError:
        return None


def shape_of_role(found: Found, role: Role) -> tuple[int, ...] | None:
    """Shape of the array that plays a role, None where it cannot be told."""
    try:
        return shape_of(found.files[role.name], found.variable(role)) if role.name in found.files else None
    except SceneError:
        return None


def _fits_size(found: Found) -> bool:
    for role in (*found.known.modalities, found.known.labels):
        shape = shape_of_role(found, role)
        if shape is not None:
            return any(size in (shape[:2], shape[1:]) for size in found.known.sizes)
    return False


def recognise(folder: Path) -> list[Found]:
    """The known sets whose files the folder holds, best first; several only where files and sizes fit equally."""
    scored = []
    for known in known_sets().values():
        found = find(known, folder)
        if len(found.files) < 2:
            continue
        bands = [(shape_of_role(found, role), role.bands) for role in known.modalities]
        fitting = sum(shape is not None and (count in shape or (count == 1 and len(shape) == 2)) for shape, count in bands)
        own = sum(_plain(known.name) in _plain(file.stem) for file in found.files.values())
        scored.append(((_fits_size(found), not found.missing, fitting, len(found.files), own), found))
    best = max((score for score, _ in scored), default=None)
    return [found for score, found in scored if score == best]


# --- the scene table ---


def find_from_table(table: dict[str, Any], path: Path) -> Found:
    """Files of the set that a scene file names with ``dataset`` and ``folder``."""
    name, folder = table["dataset"], table.get("folder", ".")
    if not isinstance(name, str) or not isinstance(folder, str):
        raise SceneError(f"{path}: dataset and folder are texts in quotes.")
    known = by_name(name)
    if known is None:
        raise _unknown(name, str(path))
    modalities = [role.name for role in known.modalities]
    for key, roles in (("files", [*modalities, *LABEL_ROLES]), ("nodata", modalities), ("pca", modalities)):
        entries = table.get(key, {})
        if not isinstance(entries, dict) or set(entries) - set(roles):
            raise SceneError(f"{path}: {key} is a table with some of {', '.join(roles)}, here {entries!r}.")
    for role, value in table.get("files", {}).items():
        texts = list(value.values()) if isinstance(value, dict) and set(value) == {"path", "variable"} else [value]
        if not all(isinstance(text, str) for text in texts):
            raise SceneError(f'{path}: files, {role}: give a file name or {{ path = "...", variable = "..." }}, not {value!r}.')
    return find(known, path.parent / Path(folder).expanduser(), table.get("files"))


def scene_table(found: Found, options: Mapping[str, Any], said: str) -> tuple[dict[str, Any], list[str]]:
    """The table `scene_file.build_scene` reads, with file names relative to ``found.root``, and sentences on what was
    settled. Raises SceneError when a file is missing or holds no variable that fits."""
    known = found.known
    if found.missing:
        raise SceneError(
            f"{said}: {known.title} needs {', '.join(found.missing)} as .mat, .npy, GeoTIFF or ENVI; "
            f"in {found.root} there is {', '.join(file.name for file in found.files.values()) or 'none of its files'}."
        )
    notes = [f"{known.title}, from {found.root}"]
    entries = []
    for role in known.modalities:
        if role.name in found.files:
            entry: dict[str, Any] = {"name": role.name, **_file(found, role)}
            for key in ("nodata", "pca"):
                if role.name in options.get(key, {}):
                    entry[key] = options[key][role.name]
            shape = shape_of_role(found, role)
            if role.rgb and (shape is None or role.bands in shape):
                entry["rgb"] = list(role.rgb)
            entries.append(entry)
    labels: dict[str, Any] = {}
    given = "train" in found.files
    if "labels" in found.files and (not given or _lists(found)):
        labels.update(_file(found, known.labels))
    if given:
        labels.update(train=_file(found, known.train), test=_file(found, known.test))
    else:
        notes.append("no training and test side is there: the split is drawn in blocks")
    ignore = options.get("ignore", [])
    if not isinstance(ignore, list) or not all(type(code) is int for code in ignore):
        raise SceneError(f"{said}: ignore is a list of codes such as [7].")
    classes, sentence = _classes(found)
    classes = {code: name for code, name in classes.items() if code not in ignore}
    notes += sentence
    shades = {name.lower(): colour for name, colour in known.colours.items()}
    labels["ignore"] = sorted({*known.ignore, *ignore})
    labels["classes"] = {str(code): name for code, name in classes.items()}
    if any(name.lower() in shades for name in classes.values()):
        labels["colours"] = {str(code): shades[name.lower()] for code, name in classes.items() if name.lower() in shades}
    table = {"name": options.get("name", known.name), "modality": entries, "labels": labels}
    if "split" in options:
        table["split"] = options["split"]
    return table, notes


def _file(found: Found, role: Role) -> dict[str, str]:
    path, variable = found.files[role.name], found.variable(role)
    entry = {"path": str(path.relative_to(found.root) if path.is_relative_to(found.root) else path.resolve())}
    return entry if variable is None else {**entry, "variable": variable}


def _lists(found: Found) -> bool:
    """Whether one of the sides is a list of pixels, which needs the ground truth."""
    shapes = (shape_of_role(found, role) for role in (found.known.train, found.known.test))
    return any(shape is not None and len(shape) == 2 and shape[1] == 2 for shape in shapes)


def _classes(found: Found) -> tuple[dict[int, str], list[str]]:
    """Codes and names: from the file itself where it tells, from the coding that fits the labels, else from the table."""
    known, role = found.known, found.known.labels
    path = found.files.get("labels")
    if role.names and path is not None and path.suffix.lower() == ".mat":
        names = load_names(path, role.names)
        if len(names) == len(known.classes):
            return dict(zip(sorted(known.classes), names, strict=True)), [f"{path}: class names are those of {role.names}"]
    if known.other_classes:
        present = _codes(found, [known.labels] if path is not None else [known.train, known.test])
        if not present <= set(known.classes) and present <= set(known.other_classes):
            return known.other_classes, [f"labels use the codes {', '.join(map(str, known.other_classes))}"]
    return known.classes, []


def _codes(found: Found, roles: Sequence[Role]) -> set[int]:
    codes: set[int] = set()
    for role in roles:
        path, variable = found.files[role.name], found.variable(role)
        if path.suffix.lower() in (".mat", ".npy", ".txt"):
            values = np.asarray(load_array(path, variable))
        else:
            raster = GdalRaster(path)
            values = raster.native([0], 0, raster.height, 0, raster.width)
        codes |= {int(code) for code in np.unique(values[np.isfinite(values)])}
    return codes - set(found.known.ignore) - {0}
