"""The one small interface behind which all rasters stand, and the one over arrays.

Every reader gives windows as float32 with NaN where a value is missing (nodata, NaN, infinity, masked by the file), so
that the code above needs no second convention for validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bdgf_fast.errors import SceneError

HUGE = 1e38
"""A nodata value beyond this is the end of float32's range, of which writers keep few or many digits: it hides all beyond."""


class Raster:
    """One source of bands on one grid.

    Attributes: ``source`` (for messages), ``height``, ``width``, ``names`` (one per band), ``crs``, ``transform`` (None
    without georeference), ``nodata`` (one value or None per band, as stored), ``scales`` (None, or (scale, offset) per
    band: value = stored * scale + offset), ``units`` (one text per band, empty where the file says none), ``bad`` (0-based
    bands the file itself calls bad), ``notes`` (sentences on how the file is read).
    """

    source: str
    height: int
    width: int
    names: list[str]
    crs: Any = None
    transform: Any = None
    nodata: list[float | None]
    scales: list[tuple[float, float]] | None = None
    units: list[str]
    bad: frozenset[int] = frozenset()
    notes: list[str]

    @property
    def sources(self) -> list[str]:
        """What the values are read from: several where a raster is put together from others."""
        return [self.source]

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Window of 0-based ``bands`` as stored, (C, y1 - y0, x1 - x0)."""
        raise NotImplementedError

    def masked(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        """True where the file's own mask hides a value, (C, h, w) or (1, h, w), None without a mask."""
        return None

    def missing(self, raw: np.ndarray, bands: Sequence[int], window: tuple[int, int, int, int]) -> np.ndarray:
        """True where ``raw`` (C, h, w) holds no value."""
        bad = ~np.isfinite(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
        for plane, value, band in zip(bad, raw, bands, strict=True):
            plane |= _equals_nodata(value, self.nodata[band])
        mask = self.masked(bands, *window)
        return bad if mask is None else bad | mask

    def read(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Window of 0-based ``bands``: float32 (C, y1 - y0, x1 - x0), scaled, NaN where missing."""
        raw = self.native(bands, y0, y1, x0, x1)
        bad = self.missing(raw, bands, (y0, y1, x0, x1))
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scales is not None:
                scale, offset = np.array([self.scales[band] for band in bands]).T[:, :, None, None]
                raw = raw * scale + offset
            out = raw.astype(np.float32)
        bad |= ~np.isfinite(out)  # a finite double beyond float32
        out[bad] = np.nan
        return out


def _equals_nodata(values: np.ndarray, nodata: float | None) -> Any:
    """True where ``values`` stand for ``nodata``: exactly for whole numbers, as near as GDAL takes it for floats."""
    if nodata is None or np.isnan(nodata):
        return False
    if values.dtype.kind == "f":
        values = values.astype(np.float32) if values.dtype.itemsize == 2 else values
        if abs(nodata) > HUGE:
            return np.abs(values) > HUGE if np.isinf(nodata) else values * np.sign(nodata) > HUGE
        with np.errstate(over="ignore", invalid="ignore"):
            return np.abs(values - values.dtype.type(nodata)) <= 4 * float(np.finfo(values.dtype).eps) * abs(nodata)
    if values.dtype.kind not in "iu" or not np.isfinite(nodata) or nodata != int(nodata):
        return False
    if values.dtype.itemsize == 8 and abs(nodata) > 2**53:  # tags of 64 bits reach us as rounded floats
        return values.astype(np.float64) == nodata
    info = np.iinfo(values.dtype)
    return values == values.dtype.type(int(nodata)) if info.min <= int(nodata) <= info.max else False


def check_dtype(dtype: np.dtype, source: str) -> None:
    """Raise SceneError for values that are no real numbers."""
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
        check_dtype(array.dtype, source)
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
        self.units, self.notes = [""] * count, []
        self.crs, self.transform = crs, transform

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        low, high = min(bands), max(bands) + 1
        ranges = {"h": slice(y0, y1), "w": slice(x0, x1), "c": slice(low, high)}
        window = self._array[tuple(ranges[axis] for axis in self._layout)]
        if self._layout != "chw":
            window = window[None] if self._layout == "hw" else window.transpose(2, 0, 1)
        out = np.stack([window[b - low] for b in bands])
        return out.astype(np.uint8) if out.dtype.kind == "b" else out


def default_names(count: int) -> list[str]:
    """Band names for rasters that carry none."""
    return [f"band {i}" for i in range(1, count + 1)]


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in "1 band" and "3 classes"."""
    return f"{number} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"
