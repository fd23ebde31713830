"""One grid for all files of a scene: axis order of bare arrays, size, coordinate system and transform."""

from __future__ import annotations

from typing import Any

import numpy as np

from bdgf_fast.data.readers import Raster
from bdgf_fast.errors import SceneError

GRID_TOLERANCE = 1e-3  # pixels; writers round the same origin differently


def guess_layout(shape: tuple[int, ...], size: tuple[int, int], label: str, reference: str) -> str:
    """ "hwc" or "chw", whichever makes a three-dimensional array fit the (H, W) of ``reference``; SceneError otherwise."""
    fits = [layout for layout, got in (("hwc", shape[:2]), ("chw", shape[1:])) if tuple(got) == size]
    if len(fits) == 2:
        raise SceneError(f"{label}: shape {shape} fits as rows, columns, bands and as bands first; say layout.")
    if not fits:
        turned = size[::-1] in (tuple(shape[:2]), tuple(shape[1:]))
        raise SceneError(
            f"{label} has shape {shape}, in which no two neighbouring axes match the {size[0]} x {size[1]} "
            f"pixels of {reference}; "
            + ("rows and columns look swapped: transpose one of the two." if turned else "all files must cover one grid.")
        )
    return fits[0]


def same_grid(raster: Raster, reference: Raster) -> None:
    """Raise SceneError naming both files when they do not lie on one grid; a file without georeference takes the other's."""
    pair = f"{raster.source} and {reference.source}"
    here, there = (raster.height, raster.width), (reference.height, reference.width)
    if raster.crs is not None and reference.crs is not None and raster.crs != reference.crs:
        raise SceneError(
            f"{pair} differ in coordinate system: {raster.crs.to_string()} and {reference.crs.to_string()}; "
            "reproject one, for example with gdalwarp."
        )
    if here != there:
        mend = "rows and columns look swapped: transpose one" if here == there[::-1] else (
            "resample them to one grid, for example with gdalwarp (the tiles of a mosaic first become one file with gdalbuildvrt)"
        )
        raise SceneError(
            f"{pair} differ in size: {here[0]} x {here[1]} and {there[0]} x {there[1]} pixels (rows x columns); {mend}."
        )
    if raster.transform is not None and reference.transform is not None:
        shift = _shift(raster, reference)
        if shift > GRID_TOLERANCE:
            raise SceneError(
                f"{pair} lie on different grids, up to {shift:.4g} pixels apart (transforms "
                f"{tuple(raster.transform)[:6]} and {tuple(reference.transform)[:6]}); resample one, for example "
                "with gdalwarp."
            )


def _shift(raster: Raster, reference: Raster) -> Any:
    """How far the corners lie apart, in pixels of the reference: shift, scale and rotation in one number."""
    here, there = (np.array(t, float).reshape(3, 3) for t in (raster.transform, reference.transform))
    corners = np.array([(x, y, 1) for x in (0, raster.width) for y in (0, raster.height)]).T
    return np.abs(np.linalg.solve(there, here @ corners) - corners).max()
