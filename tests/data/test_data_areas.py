"""What a pixel covers: in the plane of a projection, and on the ellipsoid in longitude and latitude."""

from types import SimpleNamespace

import numpy as np
import pytest

from bdgf_fast.data.sources.grid import pixel_areas

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402


def grid(crs, transform, height=4, width=6):
    return SimpleNamespace(crs=None if crs is None else CRS.from_user_input(crs), transform=transform, height=height, width=width)


def test_metres_and_feet():
    np.testing.assert_array_equal(pixel_areas(grid(32718, from_origin(5e5, 5e6, 10, 20))), [200.0] * 4)
    np.testing.assert_allclose(pixel_areas(grid(2263, from_origin(9e5, 2e5, 10, 10))), 100 * (1200 / 3937) ** 2, rtol=1e-6)
    turned = Affine.rotation(30) * Affine.scale(10, -10)
    np.testing.assert_allclose(pixel_areas(grid(32718, turned)), 100)


def test_the_whole_earth():
    found = pixel_areas(grid(4326, from_origin(-180, 90, 0.5, 0.5), 360, 720))
    assert 720 * found.sum() == pytest.approx(510_065_621.7e6, rel=1e-5)  # square metres of the WGS 84 ellipsoid
    assert found[179] > 100 * found[0]  # at the equator, and at the pole


def test_without_a_place_on_the_ground():
    assert pixel_areas(grid(None, None)) is None
    assert pixel_areas(grid(None, from_origin(0, 0, 1, 1))) is None
