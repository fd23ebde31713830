"""Mosaics as GDAL reads them: every map in its place, no value where no map has one, colours and names of the classes."""

import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

from bdgf_fast.data import ClassInfo, write_map  # noqa: E402
from bdgf_fast.files.vrt import MapTile, write_mosaic  # noqa: E402

CLASSES = [ClassInfo(2, "water & ice", (0, 0, 255)), ClassInfo(5, "wood", (0, 128, 0))]
UTM = CRS.from_epsg(32633)


def tile(path, codes, left, top, pixel=10.0):
    transform = from_origin(left, top, pixel, pixel)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_map(path, codes, UTM, transform, CLASSES)
    return MapTile(path, codes.shape, tuple(transform)[:6])


def codes(seed, height, width):
    return np.random.default_rng(seed).choice(np.array([0, 2, 5], np.uint8), (height, width))


def test_maps_lie_in_their_places_and_no_value_shows_what_lies_below(tmp_path):
    below, above = codes(0, 6, 8), codes(1, 5, 7)
    tiles = [tile(tmp_path / "a/map.tif", below, 1000, 2000), tile(tmp_path / "b c/map.tif", above, 1050, 1960)]
    write_mosaic(tmp_path / "mosaic.vrt", tiles, UTM.to_wkt(), CLASSES)
    expected = np.zeros((9, 12), np.uint8)
    expected[:6, :8] = below
    part = expected[4:9, 5:12]
    part[above > 0] = above[above > 0]
    with rasterio.open(tmp_path / "mosaic.vrt") as data:
        np.testing.assert_array_equal(data.read(1), expected)
        assert data.crs == UTM and data.transform == from_origin(1000, 2000, 10, 10) and data.nodata == 0
        assert data.colormap(1)[2] == (0, 0, 255, 255) and data.colormap(1)[5] == (0, 128, 0, 255) and data.colormap(1)[0][3] == 0
    names = [node.text or "" for node in ET.parse(tmp_path / "mosaic.vrt").iter("Category")]
    assert names == ["", "", "water & ice", "", "", "wood"]
    shutil.move(tmp_path, moved := tmp_path.with_name(tmp_path.name + "-moved"))  # the whole folder
    with rasterio.open(moved / "mosaic.vrt") as data:
        np.testing.assert_array_equal(data.read(1), expected)


def test_the_smallest_pixels_decide(tmp_path):
    coarse, fine = codes(2, 3, 3), codes(3, 4, 4)
    tiles = [tile(tmp_path / "a.tif", coarse, 0, 60, 20.0), tile(tmp_path / "b.tif", fine, 60, 60)]
    write_mosaic(tmp_path / "m.vrt", tiles, UTM.to_wkt(), CLASSES)
    expected = np.zeros((6, 10), np.uint8)
    expected[:, :6] = coarse.repeat(2, 0).repeat(2, 1)
    expected[:4, 6:] = fine
    with rasterio.open(tmp_path / "m.vrt") as data:
        np.testing.assert_array_equal(data.read(1), expected)


def test_turned_maps_are_not_upright():
    assert MapTile("x", (4, 4), (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)).upright
    for transform in ((10.0, 1.0, 0.0, 0.0, -10.0, 0.0), (10.0, 0.0, 0.0, 0.0, 10.0, 0.0), (-10.0, 0.0, 0.0, 0.0, -10.0, 0.0)):
        assert not MapTile("x", (4, 4), transform).upright
