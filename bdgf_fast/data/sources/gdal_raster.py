"""Rasters through GDAL: GeoTIFF, ENVI and everything else rasterio opens, on their own grid or resampled to another."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.sources.raster import HUGE, Raster, check_dtype, default_names
from bdgf_fast.errors import SceneError, UserError

ENVI_SUFFIXES = ("", ".dat", ".img", ".bin", ".raw", ".bsq", ".bil", ".bip")
GCP_TOLERANCE = 0.05
"""Pixels by which ground control points may miss one common affine transform, which then is the file's own."""


@contextlib.contextmanager
def _refusing(sentence: Callable[[str], str]) -> Iterator[None]:
    """Whatever rasterio and GDAL raise, whose errors share no public class, as a SceneError with the ``sentence`` of its reason."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise SceneError(sentence(str(error.__cause__ or error).rstrip("."))) from None


class GdalRaster(Raster):
    """Any raster rasterio opens, read in windows.

    Alpha bands are masks, never bands, unless ``alpha`` is False; values are scaled by the file's scale and offset unless
    ``unscale`` is False. The handle is opened on first use, once per process (GDAL handles do not survive a fork) and
    guarded by a lock (nor are they thread-safe).
    """

    def __init__(self, path: Path | str, nodata: float | None = None, *, alpha: bool = True, unscale: bool = True) -> None:
        self.path, self.source = path, str(path)
        self._handles: list[Any] = []
        self._pid = -1
        self._lock = threading.RLock()
        self._warp: dict[str, Any] | None = None
        self._said_nodata = nodata
        self.notes = []
        data = self._open()
        with _refusing(self._unreadable):
            self._read_header(data, nodata, alpha, unscale)

    def _read_header(self, data: Any, nodata: float | None, alpha: bool, unscale: bool) -> None:
        for dtype in data.dtypes:
            if dtype.startswith("complex"):
                check_dtype(np.dtype(complex), self.source)
        self.height, self.width = data.height, data.width
        if data.driver == "ENVI":
            self._check_length(data)
        self._choose_bands(data, alpha)
        names = default_names(data.count)
        self.names = [data.descriptions[b - 1] or names[b - 1] for b in self._bands]
        self.nodata = [nodata if nodata is not None else data.nodatavals[b - 1] for b in self._bands]
        self.units = [data.units[b - 1] or "" for b in self._bands]
        if unscale:
            self._read_scales(data)
        self._place(data)
        listed = re.findall(r"\d+(?:\.\d+)?", data.tags(ns="ENVI").get("bbl", "")) if data.driver == "ENVI" else []
        if len(listed) == data.count:
            self.bad = frozenset(i for i, b in enumerate(self._bands) if float(listed[b - 1]) == 0)
        from rasterio.enums import MaskFlags

        own = (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in data.mask_flag_enums)
        self._mask = not self._alpha and any(own)

    def _choose_bands(self, data: Any, alpha: bool) -> None:
        """Files' bands (from 1) that hold values, and those that say where there are any."""
        from rasterio.enums import ColorInterp

        shown = data.colorinterp
        self._alpha = [b for b in data.indexes if alpha and shown[b - 1] == ColorInterp.alpha]
        self._bands = [b for b in data.indexes if b not in self._alpha]
        if not self._bands:
            raise SceneError(f"{self.source} has nothing but an alpha band; say alpha = false if it holds values.")
        if self._alpha:
            self.notes.append(
                f"{self.source}: band {', '.join(map(str, self._alpha))} is its alpha band and masks the others; "
                "alpha = false takes it for values"
            )

    def _read_scales(self, data: Any) -> None:
        pairs = [(float(data.scales[b - 1]), float(data.offsets[b - 1])) for b in self._bands]
        if all(pair == (1.0, 0.0) for pair in pairs):
            return
        for band, (scale, offset) in zip(self._bands, pairs, strict=True):
            if not np.isfinite([scale, offset]).all() or scale == 0:
                raise SceneError(
                    f"{self.source}: band {band} has scale {scale!r} and offset {offset!r}, which leave no values; correct the "
                    "tags or say unscale = false."
                )
        self.scales = pairs
        different = list(dict.fromkeys(pairs))
        said = ", ".join(f"scale {scale:g} offset {offset:g}" for scale, offset in different[:3])
        said += ", ..." if len(different) > 3 else ""
        self.notes.append(f"{self.source}: values are unscaled by the file's {said}; unscale = false takes them as stored")

    def _place(self, data: Any) -> None:
        """Coordinate system and transform, from ground control points where the file has no other."""
        self.crs = data.crs or None
        self.transform = None if self.crs is None and data.transform.is_identity else data.transform
        points, crs = data.gcps
        if self.transform is not None or not points:
            return
        from rasterio.transform import from_gcps

        try:
            fitted = from_gcps(points)
            away = [np.array(~fitted * (p.x, p.y)) - (p.col, p.row) for p in points]
            miss = float(np.abs(away).max())
        except Exception:  # affine refuses points on one line by an error of its own
            miss = float("inf")
        if not miss <= GCP_TOLERANCE:
            raise SceneError(
                f"{self.source} is placed by {len(points)} ground control points alone, which no affine transform fits (up to "
                f"{miss:.3g} pixels off); rectify it with gdalwarp, or drop the points with gdal_translate -nogcp."
            )
        self.crs, self.transform = crs or None, fitted
        self.notes.append(f"{self.source}: placed by its {len(points)} ground control points, which fit one affine transform")

    def _check_length(self, data: Any) -> None:
        """An ENVI file cut short reads as zeros without a word from GDAL; its header tells the length."""
        tags = data.tags(ns="ENVI")
        offset = int((re.match(r"\s*(\d{1,18})", tags.get("header_offset", "")) or ["", "0"])[1])
        needed = offset + data.count * data.height * data.width * np.dtype(data.dtypes[0]).itemsize
        if not isinstance(self.path, Path) or tags.get("file_compression", "0") != "0":
            return
        found = self.path.stat().st_size
        if found < needed:
            raise SceneError(
                f"{self.source} has {found} bytes, its header promises {needed} ({data.count} bands of {data.height} x "
                f"{data.width}); the file is cut short or the header belongs to another one."
            )

    def onto(self, grid: Raster, resampling: str, size: tuple[int, int]) -> None:
        """Read from now on through GDAL's warper on ``grid`` of ``size`` (rows, columns).

        Pixels outside the file and those it masks are missing; ``resampling`` is one of rasterio's names.
        """
        data = self._open()
        from rasterio.enums import ColorInterp, Resampling

        tags = {value for value in data.nodatavals if value is not None and not np.isnan(value)}
        if len(tags) > 1 and self._said_nodata is None:
            raise SceneError(f"{self.source} marks missing values differently in its bands; say nodata to resample it.")
        small = np.dtype(data.dtypes[0]).itemsize < 4 or data.dtypes[0] == "float32"
        warp = {
            "src_crs": self.crs or grid.crs, "src_transform": self.transform, "crs": grid.crs or self.crs,
            "transform": grid.transform, "height": size[0], "width": size[1],
            "resampling": Resampling[resampling], "dtype": "float32" if small else "float64",
        }  # fmt: skip
        if self._said_nodata is not None:
            warp["src_nodata"] = self._said_nodata
        self.nodata = [value if value is not None and abs(value) > HUGE else None for value in self.nodata]
        if not self._alpha:  # the warper carries an alpha band along as the mask
            if ColorInterp.alpha in data.colorinterp:
                raise SceneError(
                    f"{self.source}: alpha = false does not go with resampling; correct the band's colour interpretation."
                )
            warp["nodata"] = float("nan")
        self._warp, self._handles, self._mask = warp, [], False
        self.height, self.width, self.crs, self.transform = *size, warp["crs"], grid.transform

    def legend(self) -> tuple[dict[int, str], dict[int, tuple[int, int, int]]]:
        """Names and colours of the codes of a palette raster, as far as the file has any, whatever its format.

        rasterio shows no category names; GDAL's own virtual format writes them down.
        """
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import rasterio.shutil
            from rasterio.io import MemoryFile

            try:
                with MemoryFile(ext=".vrt") as memory:
                    self._open()
                    rasterio.shutil.copy(self._handles[0], memory.name, driver="VRT")
                    memory.seek(0)
                    root = ElementTree.fromstring(memory.read())
            except Exception:  # names and colours are a convenience; what is wrong with the file shows where its values are read
                return {}, {}
        band = root.find("VRTRasterBand")
        if band is None:
            return {}, {}
        names = {code: (item.text or "").strip() for code, item in enumerate(band.iterfind("CategoryNames/Category"))}
        colours = {
            code: (int(item.get("c1", 0)), int(item.get("c2", 0)), int(item.get("c3", 0)))
            for code, item in enumerate(band.iterfind("ColorTable/Entry"))
        }
        return {code: name for code, name in names.items() if name}, colours

    def _open(self) -> Any:
        if not self._handles or self._pid != os.getpid():
            rasterio = require("rasterio", self.source)
            with _refusing(self._unreadable), warnings.catch_warnings():
                # A raster without georeference is a normal input here, not a thing to warn about.
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                handles = [rasterio.open(self.path)]
                if self._warp is not None:
                    from rasterio.vrt import WarpedVRT

                    handles.append(WarpedVRT(handles[0], **self._warp))
                self._handles, self._pid = handles, os.getpid()
        return self._handles[-1]

    def _unreadable(self, reason: str) -> str:
        hint = ""
        if isinstance(self.path, Path) and self.path.suffix.lower() in ENVI_SUFFIXES and not _headers(self.path):
            hint = f" An ENVI file needs its header, {self.path.with_suffix('.hdr').name}, beside it."
        return f"{self.source} cannot be opened as a raster: {reason}.{hint}"

    def _window(self, read: str, bands: list[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        def unreadable(reason: str) -> str:
            return f"{self.source}: rows {y0}-{y1}, columns {x0}-{x1} cannot be read ({reason}); is the file complete?"

        with self._lock:
            data = self._open()
            with _refusing(unreadable):
                return getattr(data, read)(bands, window=((y0, y1), (x0, x1)))

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return self._window("read", [self._bands[b] for b in bands], y0, y1, x0, x1)

    def masked(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        if self._alpha:
            return (self._window("read", self._alpha, y0, y1, x0, x1) == 0).any(0, keepdims=True)
        return self._window("read_masks", [self._bands[b] for b in bands], y0, y1, x0, x1) == 0 if self._mask else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handles", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handles=[], _lock=threading.RLock())


def _headers(path: Path) -> list[Path]:
    """ENVI headers that may belong to the data file."""
    names = {path.with_suffix(".hdr").name.lower(), f"{path.name}.hdr".lower()}
    return [file for file in path.parent.iterdir() if file.name.lower() in names] if path.parent.is_dir() else []
