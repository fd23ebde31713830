"""Raster readers behind one small interface: GeoTIFF and everything else GDAL opens, .npy, .mat and plain arrays.

Every reader gives windows as float32 with NaN where a value is missing (nodata, NaN, infinity, masked by the file), so
that the code above needs no second convention for validity.
"""

from __future__ import annotations

import os
import re
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
    """Bands of an array in memory or memory-mapped.

    ``layout`` is "hw" for (H, W), "hwc" for (H, W, C) or "chw" for (C, H, W).
    """

    def __init__(
        self,
        array: np.ndarray,
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
        self._chw = {"hw": lambda a: a[None], "hwc": lambda a: a.transpose(2, 0, 1), "chw": lambda a: a}[layout](array)
        self.source = source
        count, self.height, self.width = self._chw.shape
        self.names = list(names) if names is not None else default_names(count)
        self.nodata = [nodata] * count
        self.crs, self.transform = crs, transform

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        window = self._chw[:, y0:y1, x0:x1]
        out = np.stack([window[b] for b in bands])
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
        described = [text or "" for text in data.descriptions]
        self.names = [text or fallback for text, fallback in zip(described, default_names(data.count), strict=True)]
        self.nodata = [nodata] * data.count if nodata is not None else list(data.nodatavals)
        self.crs = data.crs or None
        self.transform = None if self.crs is None and data.transform.is_identity else data.transform
        from rasterio.enums import MaskFlags

        self._mask = any(MaskFlags.per_dataset in flags for flags in data.mask_flag_enums)

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
                raise SceneError(f"{self.source} cannot be opened as a raster: {error}.") from None
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


def load_array(path: Path, variable: str | None) -> np.ndarray:
    """Array of a .npy (memory-mapped) or .mat file (read whole: the format allows no windows)."""
    if path.suffix.lower() == ".npy":
        if variable is not None:
            raise SceneError(f"{path}: 'variable' belongs to .mat files; a .npy file holds one array.")
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SceneError(f"{path} is not a readable .npy array: {error}.") from None
    return _load_mat(path, variable)


def _load_mat(path: Path, variable: str | None) -> np.ndarray:
    io = require("scipy.io", str(path))
    v73 = (
        f"{path} is a MATLAB v7.3 (HDF5) file, which is not read; in MATLAB save it with "
        "save(..., '-v7'), or convert the array to .npy."
    )
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 7.3") or head.startswith(b"\x89HDF"):
        raise SceneError(v73)
    try:
        listed = io.whosmat(path)
        if variable is None:
            arrays = [n for n, shape, kind in listed if kind not in ("struct", "cell", "char") and np.prod(shape) > 1]
            if len(arrays) != 1:
                raise SceneError(f'{path} holds {_listing(listed)}; name one with variable = "...".')
            variable = arrays[0]
        name, steps = _steps(variable, path)
        if name not in [entry[0] for entry in listed]:
            raise SceneError(f"{path} has no variable {name!r}; it holds {_listing(listed)}.")
        # Structs are far easier to walk squeezed; plain arrays keep their singleton dimensions (scenes of one row).
        value = io.loadmat(path, variable_names=[name], squeeze_me=bool(steps), struct_as_record=False)[name]
    except NotImplementedError:
        raise SceneError(v73) from None
    except (ValueError, OSError, TypeError, EOFError) as error:
        raise SceneError(f"{path} is not a readable .mat file: {error}.") from None
    for step in steps:
        try:
            value = np.atleast_1d(value)[step] if isinstance(step, int) else getattr(value, step)
        except (AttributeError, IndexError):
            fields = ", ".join(getattr(value, "_fieldnames", [])) or "no fields"
            raise SceneError(f"{path}: {variable!r} stops at {step!r}; there it has {fields}.") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        raise SceneError(f"{path}: {variable!r} is no numeric array; it is {type(value).__name__}.")
    return value


def _listing(listed: list[tuple[str, tuple[int, ...], str]]) -> str:
    return ", ".join(f"{n} ({' x '.join(map(str, shape))} {kind})" for n, shape, kind in listed) or "no variables"


def _steps(variable: str, path: Path) -> tuple[str, list[str | int]]:
    """'hsi.Lidar[0].z' -> ('hsi', ['Lidar', 0, 'z'])."""
    if not re.fullmatch(r"\w+(\.\w+|\[\d+\])*", variable):
        raise SceneError(f"{path}: variable {variable!r} is not of the form name.field[0].field.")
    name, *rest = re.findall(r"\w+|\[\d+\]", variable)
    return name, [int(step[1:-1]) if step.startswith("[") else step for step in rest]


def is_array_file(path: Path) -> bool:
    """Whether the file holds a bare array whose axis order must be told or guessed."""
    return path.suffix.lower() in (".npy", ".mat")


def find_file(path: Path, said_in: str) -> Path:
    """The file itself, or the data file beside an ENVI header."""
    if not path.exists():
        raise SceneError(f"{path} does not exist; it is named in {said_in}.")
    if path.is_dir():
        raise SceneError(f"{path} is a folder; {said_in} must name a raster file.")
    if path.suffix.lower() == ".hdr":
        for suffix in _ENVI_SUFFIXES:
            data = path.with_suffix(suffix)
            if data.is_file():
                return data
        raise SceneError(
            f"{path} is an ENVI header, but its data file ({path.stem}, .dat, .img, ...) is not beside it."
        )
    return path
