"""Raster readers behind one small interface: GeoTIFF, ENVI and everything else GDAL opens, .npy, .mat and plain arrays.

Every reader gives windows as float32 with NaN where a value is missing (nodata, NaN, infinity, masked by the file), so
that the code above needs no second convention for validity.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.errors import SceneError

# Data files of an ENVI pair; GDAL opens the data file, users name the header as often.
_ENVI_SUFFIXES = ("", ".dat", ".img", ".bin", ".raw", ".bsq", ".bil", ".bip")


class Raster:
    """One source of bands on one grid.

    Attributes: ``source`` (for messages), ``height``, ``width``, ``names`` (one per band), ``crs``, ``transform`` (None
    without georeference), ``nodata`` (one value or None per band).
    """

    source: str
    height: int
    width: int
    names: list[str]
    crs: Any = None
    transform: Any = None
    nodata: list[float | None]

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Window of 0-based ``bands`` as stored, (C, y1 - y0, x1 - x0)."""
        raise NotImplementedError

    def masked(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        """True where the file's own mask hides a value, (C, h, w) or None without a mask."""
        return None

    def missing(self, raw: np.ndarray, bands: Sequence[int], window: tuple[int, int, int, int]) -> np.ndarray:
        """True where ``raw`` (C, h, w) holds no value."""
        bad = ~np.isfinite(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
        for plane, value, band in zip(bad, raw, bands, strict=True):
            nodata = _as_stored(self.nodata[band], raw.dtype)
            if nodata is not None:
                plane |= value == nodata
        mask = self.masked(bands, *window)
        return bad if mask is None else bad | mask

    def read(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Window of 0-based ``bands``: float32 (C, y1 - y0, x1 - x0), NaN where missing."""
        raw = self.native(bands, y0, y1, x0, x1)
        bad = self.missing(raw, bands, (y0, y1, x0, x1))
        with np.errstate(over="ignore"):
            out = raw.astype(np.float32)
        bad |= ~np.isfinite(out)  # a finite double beyond float32
        out[bad] = np.nan
        return out


def _as_stored(nodata: float | None, dtype: np.dtype) -> Any:
    """The nodata value in the raster's own type, or None when it cannot occur there."""
    if nodata is None or np.isnan(nodata):
        return None
    if dtype.kind == "f":
        return dtype.type(nodata)
    info = np.iinfo(dtype) if dtype.kind in "iu" else None
    if info is None or nodata != int(nodata) or not info.min <= nodata <= info.max:
        return None
    return dtype.type(nodata)


def _check_dtype(dtype: np.dtype, source: str) -> None:
    if dtype.kind not in "biuf":
        raise SceneError(
            f"{source} holds {dtype} values; real numbers are needed (take magnitude or dB of complex data)."
        )


class ArrayRaster(Raster):
    """Bands of an array in memory, memory-mapped, or in a file that is read in windows (`matfile.Hdf5Array`).

    ``layout`` is "hw" for (H, W), "hwc" for (H, W, C) or "chw" for (C, H, W).
    """

    def __init__(
        self,
        array: Any,
        source: str,
        *,
        layout: str,
        nodata: float | None = None,
        names: Sequence[str] | None = None,
        crs: Any = None,
        transform: Any = None,
    ) -> None:
        _check_dtype(array.dtype, source)
        if array.ndim != len(layout):
            raise SceneError(f"{source} has shape {array.shape}; layout {layout!r} needs {len(layout)} dimensions.")
        if 0 in array.shape:
            raise SceneError(f"{source} has shape {array.shape}: it is empty.")
        self._array, self._layout = array, layout
        self.source = source
        sizes = dict(zip(layout, array.shape, strict=True))
        count, self.height, self.width = sizes.get("c", 1), sizes["h"], sizes["w"]
        self.names = list(names) if names is not None else default_names(count)
        self.nodata = [nodata] * count
        self.crs, self.transform = crs, transform

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        low, high = min(bands), max(bands) + 1
        ranges = {"h": slice(y0, y1), "w": slice(x0, x1), "c": slice(low, high)}
        window = self._array[tuple(ranges[axis] for axis in self._layout)]
        if self._layout != "chw":
            window = window[None] if self._layout == "hw" else window.transpose(2, 0, 1)
        out = np.stack([window[b - low] for b in bands])
        return out.astype(np.uint8) if out.dtype.kind == "b" else out


class GdalRaster(Raster):
    """Any raster rasterio opens, read in windows.

    The handle is opened on first use, once per process (GDAL handles do not survive a fork) and guarded by a lock
    (nor are they thread-safe).
    """

    def __init__(self, path: Path, nodata: float | None = None) -> None:
        self.path, self.source = path, str(path)
        self._handle: Any = None
        self._pid = -1
        self._lock = threading.RLock()
        data = self._open()
        for dtype in data.dtypes:
            if dtype.startswith("complex"):
                _check_dtype(np.dtype(complex), self.source)
        self.height, self.width = data.height, data.width
        if data.driver == "ENVI":
            self._check_length(data)
        described = [text or "" for text in data.descriptions]
        self.names = [text or fallback for text, fallback in zip(described, default_names(data.count), strict=True)]
        self.nodata = [nodata] * data.count if nodata is not None else list(data.nodatavals)
        self.crs = data.crs or None
        self.transform = None if self.crs is None and data.transform.is_identity else data.transform
        from rasterio.enums import MaskFlags

        self._mask = any(MaskFlags.per_dataset in flags for flags in data.mask_flag_enums)

    def _check_length(self, data: Any) -> None:
        """An ENVI file cut short reads as zeros without a word from GDAL; its header tells the length."""
        offset = int(data.tags(ns="ENVI").get("header_offset", 0))
        needed = offset + data.count * data.height * data.width * np.dtype(data.dtypes[0]).itemsize
        found = self.path.stat().st_size
        compressed = data.tags(ns="ENVI").get("file_compression", "0") != "0"
        if found < needed and not compressed:
            raise SceneError(
                f"{self.source} has {found} bytes, its header promises {needed} ({data.count} bands of {data.height} x "
                f"{data.width}); the file is cut short or the header belongs to another one."
            )

    def _open(self) -> Any:
        if self._handle is None or self._pid != os.getpid():
            rasterio = require("rasterio", self.source)
            import warnings

            try:
                with warnings.catch_warnings():
                    # A raster without georeference is a normal input here, not a thing to warn about.
                    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                    self._handle = rasterio.open(self.path)
            except rasterio.errors.RasterioError as error:
                hint = ""
                if self.path.suffix.lower() in _ENVI_SUFFIXES and not _headers(self.path):
                    hint = f" An ENVI file needs its header, {self.path.with_suffix('.hdr').name}, beside it."
                raise SceneError(f"{self.source} cannot be opened as a raster: {str(error).rstrip('.')}.{hint}") from None
            self._pid = os.getpid()
        return self._handle

    def _window(self, read: str, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        with self._lock:
            data = self._open()
            import rasterio

            try:
                return getattr(data, read)([b + 1 for b in bands], window=((y0, y1), (x0, x1)))
            except rasterio.errors.RasterioError as error:
                raise SceneError(
                    f"{self.source}: rows {y0}-{y1}, columns {x0}-{x1} cannot be read ({error}); is the file complete?"
                ) from None

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return self._window("read", bands, y0, y1, x0, x1)

    def masked(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        return self._window("read_masks", bands, y0, y1, x0, x1) == 0 if self._mask else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handle", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handle=None, _lock=threading.RLock())


def default_names(count: int) -> list[str]:
    """Band names for rasters that carry none."""
    return [f"band {i}" for i in range(1, count + 1)]


def require(module: str, source: str) -> Any:
    """Import an optional package, or say which file needs it and how to get it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise SceneError(f"{source} needs the package {module}: pip install 'bdgf-fast[app]'.") from None


def load_array(path: Path, variable: str | None) -> Any:
    """Array of a .npy (memory-mapped), .mat (v7.3 in windows, older ones whole) or .txt file (exported ENVI regions)."""
    if path.suffix.lower() in (".npy", ".txt") and variable is not None:
        raise SceneError(f"{path}: 'variable' belongs to .mat files; a {path.suffix} file holds one array.")
    if path.suffix.lower() == ".txt":
        from bdgf_fast.data.envi_regions import load_regions

        return load_regions(path)
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SceneError(f"{path} is not a readable .npy array: {error}.") from None
    from bdgf_fast.data.matfile import load_variable

    return load_variable(path, variable)


def is_array_file(path: Path) -> bool:
    """Whether the file holds a bare array whose axis order must be told or guessed."""
    return path.suffix.lower() in (".npy", ".mat", ".txt")


def find_file(path: Path, said_in: str) -> Path:
    """The file itself, or the data file beside an ENVI header."""
    if not path.exists():
        raise SceneError(f"{path} does not exist; it is named in {said_in}.")
    if path.is_dir():
        raise SceneError(f"{path} is a folder; {said_in} must name a raster file.")
    if path.suffix.lower() == ".hdr":
        beside = {file.name.lower(): file for file in path.parent.iterdir() if file.is_file()}
        for suffix in _ENVI_SUFFIXES:
            data = beside.get(path.with_suffix(suffix).name.lower())
            if data is not None:
                return data
        raise SceneError(
            f"{path} is an ENVI header, but its data file ({path.stem}, .dat, .img, ...) is not beside it."
        )
    return path


def _headers(path: Path) -> list[Path]:
    """ENVI headers that may belong to the data file."""
    names = {path.with_suffix(".hdr").name.lower(), f"{path.name}.hdr".lower()}
    return [file for file in path.parent.iterdir() if file.name.lower() in names] if path.parent.is_dir() else []
