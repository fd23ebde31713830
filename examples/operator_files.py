"""Write the files of the operator's guide: GeoTIFFs of two neighbouring synthetic scenes, and samples drawn as polygons.

    python examples/operator_files.py

The surface models are coarser than the other files, and counts.tif holds the optical bands of the second scene as integers without
a scale tag.
"""

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from rasterio.transform import from_origin

from bdgf_fast.data import synthetic_scene
from bdgf_fast.data.synthetic import CLASSES

CRS, SIDE, NORTH, EAST = "EPSG:32633", 160, 5_500_000, 500_000
POLYGONS = 24  # for each class


def write(path, values, transform, names):
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": CRS, "transform": transform, "compress": "deflate"}
    with rasterio.open(path, "w", **profile, **shape) as data:
        data.write(values)
        data.descriptions = names


def rasters(seed, prefix, east):
    scene = synthetic_scene(seed=seed, size=(SIDE, SIDE), bands=10)
    optical, radar, heights = (m.read(0, SIDE, 0, SIDE) for m in scene.modalities)
    fine, coarse = from_origin(east, NORTH, 10, 10), from_origin(east, NORTH, 20, 20)
    write(f"{prefix}optical.tif", optical, fine, scene.modality("spectral").bands)
    write(f"{prefix}radar.tif", radar, fine, ["VV", "VH"])
    write(f"{prefix}dsm.tif", heights.reshape(1, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)), coarse, ["height"])
    return scene, optical, fine


def samples(labels):
    """Small rectangles inside areas of one class."""
    rng, shapes, names = np.random.default_rng(0), [], []
    for index in range(len(CLASSES)):
        while names.count(CLASSES[index + 1]) < POLYGONS:
            (y, x), (h, w) = rng.integers(0, SIDE - 6, 2), rng.integers(3, 7, 2)
            if (labels[y : y + h, x : x + w] == index).all():
                shapes.append(shapely.box(EAST + 10 * x, NORTH - 10 * (y + h), EAST + 10 * (x + w), NORTH - 10 * y))
                names.append(CLASSES[index + 1])
    return shapes, names


def main():
    scene, _, _ = rasters(1, "", EAST)
    neighbour, optical, transform = rasters(2, "next_", EAST + 10 * SIDE)
    counts = np.clip(10000 * optical, 0, 32767).astype("int16")
    write("counts.tif", counts, transform, neighbour.modality("spectral").bands)
    shapes, names = samples(scene.labels)
    pyogrio.raw.write(
        "samples.gpkg", shapely.to_wkb(shapes), [np.array(names, object)], ["cover"], layer="samples", driver="GPKG",
        geometry_type="Polygon", crs=CRS,
    )  # fmt: skip
    print(f"wrote 7 GeoTIFFs and samples.gpkg with {len(names)} polygons")


if __name__ == "__main__":
    main()
