"""Whether a scene's values look like those a model was trained on: another unit, scale or season shows here, not in the map."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bdgf_fast.data.normalise import CLIP, SEEN, Normaliser
from bdgf_fast.data.sources.grid import pixel_metres
from bdgf_fast.errors import DataWarning

from ..data.prepared import PreparedScene

SAMPLE_ROWS, SAMPLE_COLUMNS = 256, 512
CLIPPED = 0.05
"""Share of clipped values from which a band is named; on the training side it is below 0.02 by the choice of the range."""
MIDDLE = (SEEN.index(5.0), SEEN.index(95.0))
PIXEL_RATIO = 1.05
MOST_NAMED = 6


def value_warnings(prepared: PreparedScene) -> list[str]:
    """Sentences on how a `PreparedScene` differs from what its normalisation was fitted on; none if it does not.

    A band is named, with its share of clipped values, if that exceeds 5 % or if its median lies outside the middle 90 % of the
    training side. Other units and another pixel size are named too. Reads at most 256 rows, evenly spread.
    """
    scene = prepared.scene
    out = []
    for normaliser in (n for n in prepared.normalisers if n.name not in prepared.absent):
        bands = _strange_bands(scene, normaliser)
        if bands:
            more = f" and {len(bands) - MOST_NAMED} more bands" if len(bands) > MOST_NAMED else ""
            out.append(
                f"{scene.labels_source}: modality {normaliser.name!r} leaves what the model was trained on in "
                f"{', '.join(bands[:MOST_NAMED])}{more}; are units, scale, offset and nodata the same?"
            )
        units = scene.modality(normaliser.name).units
        for band, unit, known in zip(normaliser.bands, units, normaliser.units, strict=False):
            if unit and known and unit != known:
                name = f"band {band!r} of modality {normaliser.name!r}"
                out.append(f"{scene.labels_source}: {name} is in {unit!r}, the model was trained on {known!r}.")
    here, there = pixel_metres(scene), prepared.pixel
    if here and there and any(max(a / b, b / a) > PIXEL_RATIO for a, b in zip(here, there, strict=True)):
        sizes = [f"{a:.4g} m" if a == b else f"{a:.4g} x {b:.4g} m" for a, b in (here, there)]
        out.append(f"{scene.labels_source}: pixels of {sizes[0]}, the model was trained on {sizes[1]}.")
    return out


def warn_of_values(prepared: PreparedScene) -> None:
    """Warn of each of `value_warnings`."""
    for text in value_warnings(prepared):
        warnings.warn(text, DataWarning, stacklevel=2)


def _strange_bands(scene: Any, normaliser: Normaliser) -> list[str]:
    """Kept bands that leave the range, each with its share of clipped values and both ranges."""
    if normaliser.seen is None:  # a state of an older release
        return []
    values = _sample(scene, normaliser)
    reach = (CLIP - 1) / 2 * (normaliser.scaling.high - normaliser.scaling.low)
    low, high = normaliser.scaling.low - reach, normaliser.scaling.high + reach
    out = []
    for i, band in enumerate(normaliser.kept):
        own = values[i][np.isfinite(values[i])]
        if not own.size:
            continue
        clipped = float(((own < low[i]) | (own > high[i])).mean())
        seen = normaliser.seen[band]
        if clipped > CLIPPED or not seen[MIDDLE[0]] <= np.median(own) <= seen[MIDDLE[1]]:
            here = np.percentile(own, (1, 99))
            out.append(
                f"{normaliser.bands[band]} ({100 * clipped:.1f} % of the values clipped; mostly {here[0]:.4g} to {here[1]:.4g} "
                f"here, {seen[1]:.4g} to {seen[-2]:.4g} there)"
            )
    return out


def _sample(scene: Any, normaliser: Normaliser) -> np.ndarray:
    """Values (kept bands, n) of evenly spread rows and columns."""
    rows = np.unique(np.linspace(0, scene.height - 1, min(scene.height, SAMPLE_ROWS)).round().astype(int))
    step = max(1, scene.width // SAMPLE_COLUMNS)
    modality = scene.modality(normaliser.name)
    parts = [modality.read(y, y + 1, 0, scene.width)[normaliser.kept][:, 0, ::step] for y in map(int, rows)]
    return np.concatenate(parts, axis=1)
