"""A made-up scene for demos and tests in which no sensor alone tells all classes apart.

| class   | spectrum             | SAR                  | surface model |
|---------|----------------------|----------------------|---------------|
| water   | dark                 | dark, smooth         | ground        |
| asphalt | mineral              | dark, smooth         | ground        |
| roofs   | mineral              | bright               | high          |
| trees   | green                | bright               | high          |
| crops   | green                | bright               | ground        |
| meadow  | green                | medium               | ground        |
| fallow  | soil                 | bright               | ground        |

Spectra miss roofs/asphalt and trees/crops/meadow, SAR misses water/asphalt and roofs/trees/crops/fallow, heights tell
only high from low, and that against hills. Each pair of sensors leaves something mixed too: crops and meadow without
SAR, crops and trees without heights, crops and fallow without spectra. Speckle blurs single SAR pixels: neighbourhoods
have to be read.
"""

from __future__ import annotations

import numpy as np

from bdgf_fast.data.scene import Scene, SplitSpec, scene_from_arrays
from bdgf_fast.errors import UserError

CLASSES = {1: "water", 2: "asphalt", 3: "roofs", 4: "trees", 5: "crops", 6: "meadow", 7: "fallow"}
WATER, ASPHALT, ROOFS, TREES, CROPS, MEADOW, FALLOW = range(7)
MIN_SIDE = 64

# SAR backscatter (VV, VH) in dB before speckle, per class; object heights in metres (mean, spread between objects).
_SAR = np.array([[-16, -23], [-16, -23], [-8.5, -15], [-8.5, -14.5], [-9, -15], [-13, -19], [-9, -15]], float)
# What a full season takes from the leaves' share and from the backscatter in dB, per class.
_DRY = np.array([0, 0, 0, 0.15, 0.7, 0.45, 0.1])
_SEASON_DB = np.array([0, 0, 0, -0.5, -2.5, -1.0, 0])
_HEIGHT = np.array([[0, 0], [0.1, 0.05], [8, 1], [9, 1.5], [0.6, 0.3], [0.3, 0.2], [0.4, 0.3]], float)


def synthetic_scene(
    seed: int = 0,
    size: tuple[int, int] = (112, 112),
    *,
    bands: int = 28,
    noise: float = 1.0,
    season: float = 0.0,
    sensor: float = 0.0,
    split: SplitSpec | None = None,
) -> Scene:
    """Parcels, woods, a river and a town, seen by a spectrometer, a radar and a height sensor.

    Args:
        seed: the same seed gives the same scene, bit for bit, on one numpy version.
        size: (rows, columns), at least 64 each.
        bands: of the spectral cube, reflectance at 400-2450 nm.
        noise: factor on the spectral and height noise and on the speckle's spread; 0 gives a clean scene.
        season: how far the year has advanced, 0 to 1: crops are harvested, meadows dry up to bare soil and scatter less, and trees
            thin out. Each class changes in its own way, which no shift and scale of the bands can undo.
        sensor: how far the sensors' calibration is off: 1 is a gain of some 0.7 to 1.4 and an offset of up to a standard deviation,
            drawn for each band from the seed.
        split: rules other than blocks of 14 px with 30 % for training and 40 pixels per class.

    Modalities: "spectral" (``bands``), "sar" (VV, VH in dB), "surface" (metres), float32, without nodata; every pixel
    has a label. Raises UserError for a size or number of bands that is too small.
    """
    height, width = size
    if min(size) < MIN_SIDE:
        raise UserError(f"size is {height} x {width}; each side of a synthetic scene has at least {MIN_SIDE} pixels.")
    if bands < 3:
        raise UserError(f"bands is {bands}; a spectral cube has at least 3.")
    rng = np.random.default_rng(seed)
    index, parcel = _landscape(rng, height, width)
    names, spectral = _spectral(rng, index, parcel, bands, noise, season)
    scene = scene_from_arrays(
        f"synthetic-{seed}",
        {
            name: _recalibrated(values, sensor, seed)
            for name, values in (
                ("spectral", spectral),
                ("sar", _sar(rng, index, parcel, noise, season)),
                ("surface", _surface(rng, index, parcel, noise)),
            )
        },
        index + 1,
        classes=CLASSES,
        split=split or SplitSpec(kind="blocks", block=14, train_fraction=0.3, per_class=40, gap="patch"),
    )
    scene.modality("spectral").bands = names
    scene.modality("sar").bands = ["VV", "VH"]
    scene.modality("surface").bands = ["height"]
    at = [int(np.argmin(np.abs(_wavelengths(bands) - nm))) for nm in (650, 550, 470)]
    scene.modality("spectral").rgb = (at[0], at[1], at[2])
    return scene


def _smooth(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Gaussian random field of unit variance."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return (field - field.mean()) / field.std()


def _landscape(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Class index and object number of each pixel, int64 (H, W)."""
    yy, xx = np.mgrid[:height, :width].astype(float)
    # Parcels: Voronoi cells under a warped metric, so that borders are not straight.
    count = max(24, height * width // 220)
    sites = rng.uniform((0, 0), (height, width), (count, 2))
    wy, wx = (yy + 2 * _smooth(rng, (height, width), 6), xx + 2 * _smooth(rng, (height, width), 6))
    distance = (wy[..., None] - sites[:, 0]) ** 2 + (wx[..., None] - sites[:, 1]) ** 2
    parcel = distance.argmin(-1)
    use = rng.permutation(np.resize([CROPS, FALLOW, TREES, MEADOW], count))
    index = use[parcel]
    # Towns: streets and yards with houses of their own numbers.
    number = count
    for _ in range(max(4, height * width // 2600)):
        cy, cx = rng.uniform(0.08 * height, 0.92 * height), rng.uniform(0.08 * width, 0.92 * width)
        radius = rng.uniform(0.11, 0.16) * min(height, width)
        town = np.hypot(yy - cy, xx - cx) < radius * (1 + 0.15 * _smooth(rng, (height, width), 8))
        index[town], parcel[town] = ASPHALT, number
        number += 1
        step, angle = int(rng.integers(9, 12)), rng.uniform(0, np.pi / 2)
        u = np.cos(angle) * (yy - cy) + np.sin(angle) * (xx - cx) + 1000 * step
        v = -np.sin(angle) * (yy - cy) + np.cos(angle) * (xx - cx) + 1000 * step
        house = town & (u % step < 0.62 * step) & (v % step < 0.72 * step)
        plot = (u // step).astype(int) * 4000 + (v // step).astype(int)
        for key in np.unique(plot[house]):
            if rng.random() < 0.88:
                here = house & (plot == key)
                index[here], parcel[here] = ROOFS, number
                number += 1
    # A river through everything, with ponds.
    course = width * (0.5 + 0.22 * np.sin(2 * np.pi * (yy[:, 0] / height * rng.uniform(0.8, 1.3) + rng.uniform())))
    river = np.abs(xx - course[:, None]) < 3.6 + 1.2 * np.sin(yy / 9 + rng.uniform(0, 6))
    for _ in range(max(2, height * width // 5000)):
        py, px = rng.uniform(0, height), rng.uniform(0, width)
        river |= np.hypot(yy - py, (xx - px) * 0.8) < rng.uniform(5, 8)
    index[river], parcel[river] = WATER, number
    return index, parcel


def _wavelengths(bands: int) -> np.ndarray:
    return np.linspace(400, 2450, bands)


def _endmembers(bands: int) -> dict[str, np.ndarray]:
    """Smooth reflectance spectra (bands,) made of steps and bells; shapes as in textbooks, numbers made up."""
    nm = _wavelengths(bands)

    def bell(centre: float, spread: float) -> np.ndarray:
        return np.exp(-(((nm - centre) / spread) ** 2))

    def step(centre: float, spread: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(nm - centre) / spread))

    leaf = 0.04 + 0.05 * bell(555, 45) + 0.42 * step(715, 18) - 0.22 * bell(1450, 110) - 0.28 * bell(1950, 140)
    leaf -= 0.14 * step(1350, 80) + 0.10 * step(1900, 120)
    soil = 0.08 + 0.26 * step(900, 330) - 0.04 * bell(1450, 70) - 0.06 * bell(1940, 80) - 0.05 * bell(2210, 60)
    mineral = 0.10 + 0.09 * step(800, 500) - 0.02 * bell(2320, 90)
    tile = 0.10 + 0.12 * step(620, 60) + 0.05 * step(1200, 300) - 0.02 * bell(2200, 90)
    water = 0.015 + 0.07 * bell(520, 110)
    return {k: np.clip(v, 0.005, 1) for k, v in locals().items() if k in ("leaf", "soil", "mineral", "tile", "water")}


def _spectral(
    rng: np.random.Generator, index: np.ndarray, parcel: np.ndarray, bands: int, noise: float, season: float
) -> tuple[list[str], np.ndarray]:
    from scipy.ndimage import gaussian_filter

    pure = _endmembers(bands)
    objects = parcel.max() + 1
    # Abundances per object: the green classes share one range of leaf and soil, roofs and asphalt of stone and tile.
    soil = rng.uniform(0.05, 0.45, objects)[parcel] + 0.06 * rng.standard_normal(index.shape)
    tile = rng.uniform(0.0, 0.35, objects)[parcel] + 0.05 * rng.standard_normal(index.shape)
    tile += 0.05 * (index == ROOFS)
    soil = np.where(index == FALLOW, 0.5 + soil, soil)
    soil = soil + season * _DRY[index]
    soil, tile = np.clip(soil, 0, 0.95), np.clip(tile, 0, 0.8)
    green, stone = np.isin(index, (TREES, CROPS, MEADOW, FALLOW)), np.isin(index, (ROOFS, ASPHALT))
    weights = {
        "leaf": green * (1 - soil),
        "soil": green * soil,
        "mineral": stone * (1 - tile),
        "tile": stone * tile,
        "water": (index == WATER).astype(float),
    }
    # The sensor's point spread mixes neighbours; light falls unevenly, by relief and pixel by pixel.
    light = np.exp(0.15 * _smooth(rng, index.shape, 7) + 0.08 * rng.standard_normal(index.shape))
    cube = np.stack([sum(gaussian_filter(w, 0.8) * pure[k][b] for k, w in weights.items()) for b in range(bands)])
    cube = cube * light + noise * 0.02 * rng.standard_normal(cube.shape)
    return [f"{nm:.0f} nm" for nm in _wavelengths(bands)], cube.astype(np.float32)


def _recalibrated(values: np.ndarray, sensor: float, seed: int) -> np.ndarray:
    """Bands (C, H, W) as sensors see them whose gain and offset are off by ``sensor``."""
    if not sensor:
        return values
    rng = np.random.default_rng([seed, 1])
    gain = np.exp(sensor * rng.uniform(-0.35, 0.35, len(values)))[:, None, None]
    offset = (sensor * rng.uniform(-1, 1, len(values)) * values.std((1, 2)))[:, None, None]
    return (values * gain + offset).astype(np.float32)


def _sar(rng: np.random.Generator, index: np.ndarray, parcel: np.ndarray, noise: float, season: float) -> np.ndarray:
    level = _SAR[index].transpose(2, 0, 1) + 0.6 * rng.standard_normal(parcel.max() + 1)[parcel]
    level += season * _SEASON_DB[index]
    looks = 4.0
    speckle = rng.gamma(looks, 1 / looks, level.shape)  # multi-look intensity: multiplicative, mean 1
    return (level + noise * 10 * np.log10(speckle)).astype(np.float32)


def _surface(rng: np.random.Generator, index: np.ndarray, parcel: np.ndarray, noise: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    ground = 60 + 1.5 * _smooth(rng, index.shape, 16)
    mean, spread = _HEIGHT[index].transpose(2, 0, 1)
    objects = np.clip(mean + spread * rng.standard_normal(parcel.max() + 1)[parcel], 0, None)
    crowns = np.where(index == TREES, 0.8, 0.1) * rng.standard_normal(index.shape)
    return (ground + gaussian_filter(objects + crowns, 0.7) + noise * 1.5 * rng.standard_normal(index.shape)).astype(
        np.float32
    )[None]
