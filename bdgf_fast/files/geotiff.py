"""GeoTIFF files of results: the classification map and the class probabilities, written whole or not at all."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.errors import OutputError
from bdgf_fast.files.atomic import atomic

TILE = 256
NO_CLASS = 0


class MapClass(Protocol):
    """What a map says of a class: its code in the label file, its name, its colour."""

    @property
    def code(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def colour(self) -> tuple[int, int, int]: ...


def map_codes(classes: Sequence[MapClass]) -> tuple[np.ndarray, str | None]:
    """Codes (K,) uint8 to write for class indices 0..K-1, and a sentence when they are not the label file's own.

    The map is one byte a pixel with 0 = no value. Label codes of 1 to 255 are kept; otherwise the classes are numbered
    1..K in their order. Raises OutputError beyond 255 classes.
    """
    codes = [c.code for c in classes]
    if all(1 <= c <= 255 for c in codes):
        return np.array(codes, np.uint8), None
    if len(codes) > 255:
        raise OutputError(f"a map holds up to 255 classes in one byte; this scene has {len(codes)}. Merge classes.")
    listed = ", ".join(f"{i} = {c.name} (label code {c.code})" for i, c in enumerate(classes, 1))
    return np.arange(1, len(codes) + 1, dtype=np.uint8), (
        f"label codes outside 1 to 255 do not fit a one-byte map with 0 = no value; the map uses {listed}."
    )


def _profile(height: int, width: int, crs: Any, transform: Any, dtype: str, count: int, nodata: Any) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": dtype,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "predictor": 3 if dtype.startswith("float") else 2,
        # Uncompressed size decides: compressed size is not known before, and classic TIFF ends at 4 GB.
        "bigtiff": "YES" if height * width * count * np.dtype(dtype).itemsize > 3 * 2**30 else "NO",
    }
    if crs is not None:
        profile["crs"] = crs
    if transform is not None:
        profile["transform"] = transform
    if nodata is not None:
        profile["nodata"] = nodata
    return profile


@contextlib.contextmanager
def _create(path: str | Path, *args: Any) -> Iterator[Any]:
    rasterio = require("rasterio", str(path))
    with warnings.catch_warnings():
        # Maps of scenes without georeference are written without one.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with atomic(path) as part:
                # Statistics and names go into the file or its sidecar by us, not by GDAL.
                with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(part, "w", **_profile(*args)) as data:
                    yield data
                _verify(part)
        except rasterio.errors.RasterioError as error:
            raise OutputError(f"{path} could not be written: {error}. Check that there is room on the disk.") from error


def _verify(part: Path) -> None:
    """Read the last block of every band: GDAL reports a full disk on closing only as a log message."""
    import rasterio

    with rasterio.open(part) as data:
        windows = [window for _, window in data.block_windows(1)]
        data.read(window=windows[-1])
        data.read(window=windows[0])


def write_raster(
    path: str | Path,
    values: np.ndarray,
    crs: Any = None,
    transform: Any = None,
    *,
    names: Sequence[str] = (),
    nodata: float | None = None,
) -> None:
    """Tiled, compressed GeoTIFF of ``values`` (C, H, W) in their own type, with band descriptions."""
    count, height, width = values.shape
    with _create(path, height, width, crs, transform, str(values.dtype), count, nodata) as data:
        data.write(values)
        for i, name in enumerate(names, 1):
            data.set_band_description(i, name)


def read_raster(path: str | Path) -> np.ndarray:
    """All bands (C, H, W) of a raster that was written here, in their own type."""
    rasterio = require("rasterio", str(path))
    if not Path(path).is_file():
        raise OutputError(f"{path} is missing; predict the scene first.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as data:
            return data.read()


def write_map(
    path: str | Path, codes: np.ndarray, crs: Any, transform: Any, classes: Sequence[MapClass]
) -> str | None:
    """Classification map: tiled, deflate-compressed one-byte GeoTIFF with colour table and class names.

    Args:
        codes: uint8 (H, W), values as `map_codes` gives them; 0 where there is no value (written as nodata).
        classes: name and colour of each code.

    Class names stand in three places, because programs look in different ones: as GDAL category names and as a raster
    attribute table in the sidecar ``path``.aux.xml (GDAL, QGIS), and as tags CLASS_<code> in the file itself.
    Returns the sentence of `map_codes` when the codes are not the label file's own, else None.
    """
    written, note = map_codes(classes)
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise ValueError(f"codes is {codes.dtype} {codes.shape}; uint8 (H, W) is needed")
    with _map_writer(path, codes.shape, crs, transform, classes) as data:
        _check_codes(codes, written)
        data.write(codes, 1)
    return note


class MapWriter:
    """Classification map written block by block; nothing appears at ``path`` before the block ends without error.

    ``with MapWriter(path, (H, W), crs, transform, classes) as out: out.write_block(y0, x0, codes)``
    """

    def __init__(
        self, path: str | Path, shape: tuple[int, int], crs: Any, transform: Any, classes: Sequence[MapClass]
    ) -> None:
        self.codes, self.note = map_codes(classes)
        self._shape = shape
        self._context = _map_writer(path, shape, crs, transform, classes)
        self._data: Any = None

    def __enter__(self) -> MapWriter:
        self._data = self._context.__enter__()
        return self

    def write_block(self, y0: int, x0: int, codes: np.ndarray) -> None:
        """Write ``codes`` uint8 (h, w) with its upper left pixel at row y0, column x0."""
        codes = np.asarray(codes)
        if codes.dtype != np.uint8 or codes.ndim != 2:
            raise ValueError(f"codes is {codes.dtype} {codes.shape}; uint8 (h, w) is needed")
        _check_block(self._shape, y0, x0, codes.shape)
        _check_codes(codes, self.codes)
        self._data.write(codes, 1, window=((y0, y0 + codes.shape[0]), (x0, x0 + codes.shape[1])))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return self._context.__exit__(kind, error, trace)


class ProbabilityWriter:
    """Class probabilities written block by block: float32 (K, H, W), band descriptions are the class names.

    Pixels never written stay nodata (NaN). ``with ProbabilityWriter(path, (H, W), crs, transform, names) as out:
    out.write_block(y0, x0, probabilities)``; nothing appears at ``path`` before the block ends without error.
    Blocks aligned to multiples of 256 px are written once; others are rewritten by GDAL and waste room in the file.
    """

    def __init__(
        self, path: str | Path, shape: tuple[int, int], crs: Any, transform: Any, names: Sequence[str]
    ) -> None:
        self._names, self._shape = list(names), shape
        self._context = _create(path, *shape, crs, transform, "float32", len(self._names), float("nan"))
        self._data: Any = None

    def __enter__(self) -> ProbabilityWriter:
        self._data = self._context.__enter__()
        for i, name in enumerate(self._names, 1):
            self._data.set_band_description(i, name)
        return self

    def write_block(self, y0: int, x0: int, probabilities: np.ndarray) -> None:
        """Write ``probabilities`` (K, h, w) with its upper left pixel at row y0, column x0."""
        block = np.asarray(probabilities, np.float32)
        if block.ndim != 3 or len(block) != len(self._names):
            raise ValueError(f"probabilities has shape {block.shape}; ({len(self._names)}, h, w) is needed")
        _check_block(self._shape, y0, x0, block.shape[1:])
        self._data.write(block, window=((y0, y0 + block.shape[1]), (x0, x0 + block.shape[2])))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return self._context.__exit__(kind, error, trace)


def write_probabilities(
    path: str | Path, probabilities: np.ndarray, crs: Any, transform: Any, names: Sequence[str]
) -> None:
    """Class probabilities (K, H, W) as float32 GeoTIFF, one band per class named after it; NaN = no value."""
    with ProbabilityWriter(path, np.shape(probabilities)[1:], crs, transform, names) as out:
        out.write_block(0, 0, probabilities)


@contextlib.contextmanager
def _map_writer(
    path: str | Path, shape: tuple[int, int], crs: Any, transform: Any, classes: Sequence[MapClass]
) -> Iterator[Any]:
    codes, _ = map_codes(classes)
    by_code = {int(code): info for code, info in zip(codes, classes, strict=True)}
    with _create(path, *shape, crs, transform, "uint8", 1, NO_CLASS) as data:
        data.write_colormap(1, colour_table(by_code))
        data.set_band_description(1, "class")
        data.update_tags(1, **{f"CLASS_{code}": info.name for code, info in by_code.items()})
        yield data
    sidecar = Path(f"{path}.aux.xml")
    with atomic(sidecar) as part:
        part.write_text(_pam(by_code), encoding="utf-8")


def colour_table(by_code: Mapping[int, MapClass]) -> dict[int, tuple[int, int, int, int]]:
    """Red, green, blue and opacity of each code; that of no value is transparent."""
    return {NO_CLASS: (0, 0, 0, 0), **{code: (*info.colour, 255) for code, info in by_code.items()}}


def category_names(by_code: Mapping[int, MapClass]) -> str:
    """GDAL's XML for the names of the codes 0..max, as it stands within a band."""
    names = [by_code[c].name if c in by_code else "" for c in range(max(by_code) + 1)]
    listed = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    return f"    <CategoryNames>\n{listed}    </CategoryNames>\n"


def _pam(by_code: dict[int, MapClass]) -> str:
    """GDAL's sidecar: category names for codes 0..max, and a raster attribute table with colours."""
    # usage: 5 = min and max of the value, 2 = name, 6-8 = red, green, blue; type: 0 = integer, 2 = text.
    fields = [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    defined = "".join(
        f'      <FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>\n'
        for i, (name, kind, usage) in enumerate(fields)
    )
    rows = "".join(
        f'      <Row index="{i}">{"".join(f"<F>{escape(str(v))}</F>" for v in (code, info.name, *info.colour))}</Row>\n'
        for i, (code, info) in enumerate(sorted(by_code.items()))
    )
    return (
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n{category_names(by_code)}'
        f'    <GDALRasterAttributeTable tableType="thematic">\n{defined}{rows}    </GDALRasterAttributeTable>\n'
        "  </PAMRasterBand>\n</PAMDataset>\n"
    )


def _check_codes(codes: np.ndarray, written: np.ndarray) -> None:
    stray = np.setdiff1d(np.unique(codes), [NO_CLASS, *written])
    if stray.size:
        raise ValueError(f"codes holds {stray.tolist()}, which are no class; map class indices by map_codes(classes)")


def _check_block(shape: tuple[int, int], y0: int, x0: int, size: tuple[int, ...]) -> None:
    if y0 < 0 or x0 < 0 or y0 + size[0] > shape[0] or x0 + size[1] > shape[1]:
        raise ValueError(f"block of {size[0]} x {size[1]} at ({y0}, {x0}) leaves the {shape[0]} x {shape[1]} map")


__all__ = [
    "MapWriter",
    "ProbabilityWriter",
    "map_codes",
    "read_raster",
    "write_map",
    "write_probabilities",
    "write_raster",
]
