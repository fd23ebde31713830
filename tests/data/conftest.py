"""Small scenes on disk and in memory for the tests of the data layer."""

import os
from pathlib import Path

import numpy as np
import pytest

H, W = 23, 31
CODES = (2, 5, 7)


@pytest.fixture
def arrays():
    """Two modalities and a label map with codes 2, 5, 7 and 0 = unlabelled, in stripes: splits find all classes."""
    rng = np.random.default_rng(3)
    cube = rng.normal(100, 20, (5, H, W)).astype(np.float32)
    height = rng.normal(0, 1, (1, H, W)).astype(np.float32)
    labels = np.array(CODES, np.uint8)[np.arange(W) // 2 % 3][None].repeat(H, 0)
    labels[::7] = 0
    return {"hsi": cube, "dsm": height}, labels


@pytest.fixture
def tile():
    """Scene file text for the real Sentinel tile, with absolute paths."""
    roots = [os.environ.get("BDGF_DATA"), Path(__file__).resolve().parents[2] / ".." / "shared" / "data"]
    for root in filter(None, roots):
        folder = Path(root) / "terramesh_433D_629L_3_1"
        if (folder / "LULC.tif").is_file():
            return TILE.replace("FOLDER", str(folder.resolve()))
    return pytest.skip("the Sentinel tile is not here: put it in ../shared/data or name its folder in BDGF_DATA")


TILE = """
name = "patagonia"
[[modality]]
name = "s2"
path = "FOLDER/S2L2A.tif"
[[modality]]
name = "s1"
path = "FOLDER/S1RTC.tif"
[[modality]]
name = "dem"
path = "FOLDER/DEM.tif"
[labels]
path = "FOLDER/LULC.tif"
ignore = [0, 3]
classes = { 1 = "water", 2 = "trees", 4 = "crops", 5 = "built", 9 = "rangeland" }
[split]
kind = "blocks"
block = 16
train_fraction = 0.3
per_class = 100
gap = "patch"
"""


@pytest.fixture
def write_toml(tmp_path):
    def write(text, name="scene.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def write_tif(tmp_path):
    """Write an array (C, H, W) or (H, W) as GeoTIFF in the test's folder."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    def write(name, array, *, crs="EPSG:32718", origin=(700_000.0, 5_700_000.0), pixel=10.0, nodata=None, names=(), **profile):
        array = array if array.ndim == 3 else array[None]
        count, height, width = array.shape
        path = tmp_path / name
        profile = {"transform": from_origin(*origin, pixel, pixel), "crs": crs, "nodata": nodata, **profile}
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, **profile,
        ) as data:  # fmt: skip
            data.write(array)
            for i, text in enumerate(names, 1):
                data.set_band_description(i, text)
        return path

    return write
