"""One grid for all files of a scene: axis order of bare arrays, size, coordinate system and transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bdgf_fast.data.notes import Doubt
from bdgf_fast.data.sources.gdal_raster import GdalRaster
from bdgf_fast.data.sources.raster import Raster
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
    apart = _apart(raster, reference)
    if apart is not None:
        raise SceneError(f"{raster.source} and {reference.source} {apart}")


def fit_to_grid(raster: Raster, reference: Raster, resampling: str, notes: list[str]) -> None:
    """Let ``raster`` be read on the grid of ``reference``: as it is where it lies there, else resampled by GDAL's warper.

    What was done is added to ``notes``. Raises SceneError naming both files where the file has no georeference to resample by
    or covers other ground.
    """
    apart = _apart(raster, reference)
    if apart is None:
        return
    pair = f"{raster.source} and {reference.source}"
    if not isinstance(raster, GdalRaster) or raster.transform is None or reference.transform is None:
        raise SceneError(f"{pair} {apart}")
    box = _box_in(raster, reference)
    if box is None:
        raise SceneError(f"{pair} {apart}")
    left, top, right, bottom = box
    if min(right, reference.width) <= max(left, 0) or min(bottom, reference.height) <= max(top, 0):
        hint = "the tiles of a mosaic first become one file with gdalbuildvrt"
        if raster.crs != reference.crs:
            hint = f"check their coordinate systems: {differing(raster.crs, reference.crs)}"
        raise SceneError(
            f"{pair} do not cover the same ground (columns {left:.0f} to {right:.0f} and rows {top:.0f} to {bottom:.0f} of the "
            f"latter's {reference.width} columns and {reference.height} rows); {hint}."
        )
    before = f"{raster.height} x {raster.width} pixels of {_pixel(raster)}"
    if raster.crs is None:
        notes.append(
            Doubt(f"{raster.source} has no coordinate system; its coordinates are taken to be in that of {reference.source}")
        )
    raster.onto(reference, resampling, (reference.height, reference.width))
    notes.append(
        f"{raster.source}: {before}, resampled ({resampling}) to the {reference.height} x {reference.width} pixels of "
        f"{_pixel(reference)} of {reference.source}"
    )


def _apart(raster: Raster, reference: Raster) -> str | None:
    """How two files differ in grid, to be said after their names; None where they do not."""
    here, there = (raster.height, raster.width), (reference.height, reference.width)
    placed = raster.transform is not None and reference.transform is not None
    if placed and _box_in(raster, reference) is None:
        return f"differ in coordinate system: {differing(raster.crs, reference.crs)}; reproject one, for example with gdalwarp."
    if here != there:
        if here == there[::-1]:
            mend = "rows and columns look swapped: transpose one"
        elif placed:
            mend = "resample them to one grid, for example with gdalwarp (first make one file of a mosaic with gdalbuildvrt)"
        else:
            mend = "files without coordinates must have the same rows and columns"
        return f"differ in size: {here[0]} x {here[1]} and {there[0]} x {there[1]} pixels (rows x columns); {mend}."
    if placed and (shift := _shift(raster, reference)) > GRID_TOLERANCE:
        return (
            f"lie on different grids, up to {shift:.4g} pixels apart (transforms {tuple(raster.transform)[:6]} and "
            f"{tuple(reference.transform)[:6]}); resample one, for example with gdalwarp."
        )
    return None


def differing(one: Any, other: Any) -> str:
    """Two coordinate systems as a person tells them apart: short names, or the first line of WKT in which they differ."""
    names = [crs.to_string() if crs is not None else "none" for crs in (one, other)]
    if names[0] != names[1] and max(map(len, names)) <= 40:
        return f"{names[0]} and {names[1]}"
    parts = [crs.to_wkt(version="WKT2_2019").split(",") if crs is not None else ["none"] for crs in (one, other)]
    first = next(((a, b) for a, b in zip(*parts, strict=False) if a != b), (parts[0][0], parts[1][0]))
    return f"{first[0]} and {first[1]} (in {parts[0][0]} and {parts[1][0]})"


def _in_pixels(raster: Raster, reference: Raster, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Pixel corners (columns x, rows y) of ``raster`` as (2, n) columns and rows of ``reference``; None where PROJ knows no way.

    Coordinates are compared, not names: compound and three-dimensional systems count by their horizontal part.
    """
    here, there = (np.array(t, float).reshape(3, 3) for t in (raster.transform, reference.transform))
    places = here @ np.stack([x, y, np.ones_like(x)])
    if raster.crs is not None and reference.crs is not None and raster.crs != reference.crs:
        from rasterio.warp import transform

        try:
            xs, ys = transform(raster.crs, reference.crs, places[0], places[1])
        except Exception:  # GDAL's own errors share no public class
            return None
        places = np.stack([xs, ys, np.ones_like(x)])
    if not np.isfinite(places).all():
        return None
    try:
        return np.linalg.solve(there, places)[:2]
    except np.linalg.LinAlgError:
        flat = tuple(reference.transform)[:6]
        raise SceneError(f"{reference.source} has pixels without area: its transform is {flat}.") from None


def _shift(raster: Raster, reference: Raster) -> float:
    """How far the corners lie apart, in pixels of the reference: shift, scale and rotation in one number."""
    x, y = (a.ravel().astype(float) for a in np.meshgrid([0, raster.width], [0, raster.height]))
    found = _in_pixels(raster, reference, x, y)
    return math.inf if found is None else float(np.abs(found - (x, y)).max())


def _box_in(raster: Raster, reference: Raster) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the raster in pixels of the reference, by points along its edges."""
    steps = np.linspace(0, 1, 9)
    x, y = (a.ravel() for a in np.meshgrid(steps * raster.width, steps * raster.height))
    found = _in_pixels(raster, reference, x, y)
    return None if found is None else (*found.min(1), *found.max(1))


def _pixel(raster: Raster) -> str:
    """Size of a pixel with its unit, as in "20 m"."""
    a, b, _, d, e, _ = tuple(raster.transform)[:6]
    sides = [f"{math.hypot(*side):.4g}" for side in ((a, d), (b, e))]
    if raster.crs is None:
        unit = ""
    else:
        unit = " degrees" if raster.crs.is_geographic else " m" if raster.crs.linear_units == "metre" else ""
    return " x ".join(dict.fromkeys(sides)) + unit


def pixel_areas(scene: Any) -> np.ndarray | None:
    """Square metres of a pixel of each row (H,) of anything with a grid; None without georeference.

    In a projected coordinate system that of its plane, as a GIS measures it. In one of longitude and latitude that on the WGS 84
    ellipsoid at the latitude of the row's middle.
    """
    if scene.crs is None or scene.transform is None:
        return None
    a, b, _, d, e, f = (float(v) for v in tuple(scene.transform)[:6])
    square = abs(a * e - b * d)
    if not scene.crs.is_geographic:
        return np.full(scene.height, square * float(scene.crs.linear_units_factor[1]) ** 2)
    latitude = np.radians(f + d * scene.width / 2 + e * (np.arange(scene.height) + 0.5))
    major, eccentricity = 6_378_137.0, 0.00669437999014  # WGS 84: metres, first eccentricity squared
    degree = major**2 * (1 - eccentricity) / (1 - eccentricity * np.sin(latitude) ** 2) ** 2  # meridian times parallel radius
    return square * math.radians(1) ** 2 * degree * np.cos(latitude)


def pixel_metres(scene: Any) -> list[float] | None:
    """[width, height] of the pixels of anything with a grid, in metres at its centre; None without georeference."""
    if scene.crs is None or scene.transform is None:
        return None
    a, b, c, d, e, f = (float(v) for v in tuple(scene.transform)[:6])
    if scene.crs.is_geographic:
        middle = math.radians(f + d * scene.width / 2 + e * scene.height / 2)
        across, down = 111_320 * math.cos(middle), 110_574.0
    else:
        across = down = float(scene.crs.linear_units_factor[1])
    return [round(math.hypot(a * across, d * down), 6), round(math.hypot(b * across, e * down), 6)]
