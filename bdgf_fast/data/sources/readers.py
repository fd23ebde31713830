"""Files by what they are: which reader a name takes, arrays in files, names with patterns, archives and addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.sources.gdal_raster import ENVI_SUFFIXES, GdalRaster
from bdgf_fast.data.sources.raster import ArrayRaster, Raster, default_names
from bdgf_fast.errors import MissingFile, SceneError, SeveralArrays, closest

ARRAY_SUFFIXES = (".npy", ".npz", ".mat", ".txt")
VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".kml", ".gml")
_LOCAL_ARCHIVES = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)(?!/|vsi|\{)(?!.*://)(.+)")
_BESIDE = (".hdr", ".xml", ".txt", ".enp", ".sta", ".roi", ".ovr", ".png", ".jpg", ".toml")
"""What often lies beside an ENVI header under the same name and is not its data."""


def load_array(path: Path | str, variable: str | None) -> Any:
    """Array of a .npy (memory-mapped), .npz, .mat (v7.3 in windows, older ones whole) or .txt file (exported ENVI regions)."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".txt") and variable is not None:
        raise SceneError(f"{path}: 'variable' belongs to .mat and .npz files; a {path.suffix} file holds one array.")
    if suffix == ".txt":
        from bdgf_fast.data.sources.envi_regions import load_regions

        return load_regions(path)
    if suffix in (".npy", ".npz"):
        try:
            loaded = np.load(path, mmap_mode="r" if suffix == ".npy" else None, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else _of_archive(loaded, path, variable)
        except SceneError:
            raise
        except MemoryError:
            raise SceneError(f"{path} promises an array larger than the memory; is the file damaged?") from None
        except Exception as error:  # numpy lets errors of ast, struct, zipfile and zlib through
            reason = str(error).rstrip(".") or type(error).__name__
            raise SceneError(f"{path} is not a readable {suffix} array: {reason}.") from None
    from bdgf_fast.data.sources.matfile import load_variable

    return load_variable(path, variable)


def _of_archive(archive: Any, path: Path, variable: str | None) -> np.ndarray:
    with archive:
        if variable is None and len(archive.files) == 1:
            variable = archive.files[0]
        held = ", ".join(archive.files)
        if variable is None:
            raise SeveralArrays(path, held, dict.fromkeys(archive.files))
        if variable not in archive.files:
            raise SceneError(f"{path} has no variable {variable!r}{closest(variable, archive.files)}; it holds {held}.")
        return archive[variable]


def is_array_file(path: Path | str) -> bool:
    """Whether the file holds a bare array whose axis order must be told or guessed."""
    return isinstance(path, Path) and path.suffix.lower() in ARRAY_SUFFIXES


def is_vector_file(path: Path | str) -> bool:
    """Whether the file holds points, lines or polygons."""
    return str(path).lower().endswith(VECTOR_SUFFIXES)


def is_remote(text: str) -> bool:
    """Whether GDAL alone can open what is named: a path into an archive, or an address."""
    return text.startswith("/vsi") or "://" in text


def locate(base: Path, text: str, said_in: str) -> Path | str:
    """The file that ``text`` names in a scene file in the folder ``base``; what only GDAL can open stays a text.

    An archive without a leading slash, as in /vsizip/data.zip/x.tif, lies in ``base`` too.
    """
    if not text.strip() or "\0" in text:
        raise SceneError(f"{said_in}: {text!r} is not a file name.")
    if is_remote(text):
        archive = _LOCAL_ARCHIVES.fullmatch(text)
        return f"{archive[1]}{base.resolve()}/{archive[2]}" if archive else text
    return find_file(base / _expanded(text), said_in)


def matching(base: Path, text: str, said_in: str) -> list[str]:
    """Files that a name with ``*``, ``?`` or ``[]`` stands for, numbers in the order of their values; the name itself without."""
    if is_remote(text) or not re.search(r"[*?\[]", text) or "\0" in text or (base / _expanded(text)).exists():
        return [text]
    pattern = base / _expanded(text)
    anchor = Path(pattern.anchor) if pattern.anchor else Path()
    try:
        found = [p for p in anchor.glob(str(pattern.relative_to(pattern.anchor))) if p.is_file()]
    except ValueError as error:
        raise SceneError(f"{said_in}: {text!r} is not a pattern of file names: {error}.") from None
    found = [p for p in found if p.suffix.lower() != ".hdr" and not p.name.lower().endswith(".aux.xml")]
    if not found:
        raise MissingFile(f"{said_in}: no file is named like {text!r} in {base}.", f"{base}/{text}")
    return [str(p) for p in sorted(found, key=lambda p: [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", str(p))])]


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def find_file(path: Path, said_in: str) -> Path:
    """The file itself, or the data file beside an ENVI header."""
    try:
        there = path.exists()
    except OSError:  # a name longer than the system takes
        there = False
    if not there:
        raise MissingFile(f"{path} does not exist; it is named in {said_in}.", str(path))
    if path.is_dir():
        raise SceneError(f"{path} is a folder; {said_in} must name a raster file.")
    return _data_of_header(path) if path.suffix.lower() == ".hdr" else path


def _data_of_header(path: Path) -> Path:
    """Data file beside an ENVI header, under the customary suffixes or, where there is but one, any other."""
    beside = {file.name.lower(): file for file in path.parent.iterdir() if file.is_file()}
    for suffix in ENVI_SUFFIXES:
        data = beside.get(path.with_suffix(suffix).name.lower())
        if data is not None:
            return data
    stem = path.stem.lower()
    others = [file for name, file in sorted(beside.items()) if Path(name).stem == stem and not name.endswith(_BESIDE)]
    if len(others) == 1:
        return others[0]
    if others:
        raise SceneError(f"{path} is an ENVI header beside {', '.join(f.name for f in others)}; name the data file instead.")
    raise SceneError(f"{path} is an ENVI header, but its data file ({path.stem}, .dat, .img, ...) is not beside it.")


__all__ = [
    "ArrayRaster",
    "GdalRaster",
    "Raster",
    "default_names",
    "find_file",
    "is_array_file",
    "is_remote",
    "is_vector_file",
    "load_array",
    "locate",
    "matching",
    "require",
]
