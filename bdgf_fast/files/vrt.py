"""A mosaic of maps without a copy of them: GDAL's virtual raster, a small XML file that names them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bdgf_fast.files.atomic import atomic
from bdgf_fast.files.geotiff import NO_CLASS, MapClass, category_names, colour_table, map_codes


@dataclass(frozen=True)
class MapTile:
    """A map that takes part in a mosaic: its file, ``shape`` (H, W) and the six numbers of its affine transform."""

    path: Path
    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]

    @property
    def upright(self) -> bool:
        """Whether rows run from north to south and columns from west to east: others cannot be placed in a virtual raster."""
        a, b, _, d, e, _ = self.transform
        return b == d == 0 and a > 0 > e


def write_mosaic(path: str | Path, tiles: Sequence[MapTile], crs_wkt: str, classes: Sequence[MapClass]) -> None:
    """Virtual raster of maps with the same classes in one coordinate system, each of them ``upright``.

    Its pixels are as small as the smallest of the maps. Where maps overlap, the later one shows, except where it has no value.
    The maps are named relative to ``path``, so that the folder can be moved; class names and colours are those of the maps.
    """
    across, down = min(t.transform[0] for t in tiles), min(-t.transform[4] for t in tiles)
    left, top = min(t.transform[2] for t in tiles), max(t.transform[5] for t in tiles)
    right = max(t.transform[2] + t.shape[1] * t.transform[0] for t in tiles)
    bottom = min(t.transform[5] + t.shape[0] * t.transform[4] for t in tiles)
    # A sum of floats may pass the last pixel's edge by a hair, which is no further pixel.
    width, height = (math.ceil(extent - 1e-6) for extent in ((right - left) / across, (top - bottom) / down))
    folder = Path(path).absolute().parent
    sources = "".join(_source(tile, folder, left, top, across, down) for tile in tiles)
    by_code = {int(code): info for code, info in zip(map_codes(classes)[0], classes, strict=True)}
    colours = [colour_table(by_code).get(code, (0, 0, 0, 0)) for code in range(max(by_code) + 1)]
    entries = "".join('      <Entry c1="{}" c2="{}" c3="{}" c4="{}"/>\n'.format(*colour) for colour in colours)
    with atomic(path) as part:
        part.write_text(
            f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">\n'
            f"  <SRS>{escape(crs_wkt)}</SRS>\n"
            f"  <GeoTransform>{left!r}, {across!r}, 0.0, {top!r}, 0.0, {-down!r}</GeoTransform>\n"
            '  <VRTRasterBand dataType="Byte" band="1">\n'
            "    <Description>class</Description>\n"
            f"    <NoDataValue>{NO_CLASS}</NoDataValue>\n"
            "    <ColorInterp>Palette</ColorInterp>\n"
            f"    <ColorTable>\n{entries}    </ColorTable>\n"
            f"{category_names(by_code)}{sources}"
            "  </VRTRasterBand>\n</VRTDataset>\n",
            encoding="utf-8",
        )


def _source(tile: MapTile, folder: Path, left: float, top: float, across: float, down: float) -> str:
    """Where a map lies in the mosaic; its pixels without a value are left out, as a simple source would not do."""
    height, width = tile.shape
    x, y = (tile.transform[2] - left) / across, (top - tile.transform[5]) / down
    w, h = width * tile.transform[0] / across, -height * tile.transform[4] / down
    name = escape(Path(os.path.relpath(tile.path.absolute(), folder)).as_posix())
    place = [repr(round(value, 6)) for value in (x, y, w, h)]
    return (
        f'    <ComplexSource>\n      <SourceFilename relativeToVRT="1">{name}</SourceFilename>\n'
        "      <SourceBand>1</SourceBand>\n"
        f'      <SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="Byte"/>\n'
        f'      <SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>\n'
        f'      <DstRect xOff="{place[0]}" yOff="{place[1]}" xSize="{place[2]}" ySize="{place[3]}"/>\n'
        f"      <NODATA>{NO_CLASS}</NODATA>\n    </ComplexSource>\n"
    )
