"""Alignment of sensors without labels: every scene's bands are shifted and scaled to common means and deviations.

Another gain, offset, sun or season changes a band's level and spread in a whole scene. This takes such a change out before the
normalisation, and with it what differs in truth: a scene of water alone is made to look like all others. It helps where scenes
hold the same classes in about the same shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bdgf_fast.data.normalise import PERCENTILES, sample_of
from bdgf_fast.data.scene import Modality, Scene
from bdgf_fast.data.sources.raster import Raster

Levels = dict[str, list[list[float | None]]]
"""By modality: the centres of its bands, and their spreads; None for a band without any value."""
MOST = 8_000_000
"""Values of a modality that its levels are taken from, at most, evenly spread over the scene."""


def levels(scene: Scene) -> Levels:
    """Mean and standard deviation of every band over the scene's valid pixels, where values beyond the 1st and 99th percentile
    count as these: a few wild values move nothing."""
    found = {}
    valid = scene.valid()
    for modality in scene.modalities:
        sample = sample_of([(scene, modality, valid)], MOST)
        there = np.isfinite(sample).all(1)
        out = np.full((len(sample), 2), np.nan)
        low, high = np.percentile(sample[there], PERCENTILES, axis=1)
        drawn = np.clip(sample[there].astype(np.float64), low[:, None], high[:, None])
        out[there] = np.stack([drawn.mean(1), drawn.std(1)], 1)
        found[modality.name] = _listed(out.T)
    return found


def common_levels(scenes: Sequence[Scene]) -> Levels:
    """What scenes are brought to: the mean of their levels, each scene counting alike; a modality's of those that have it."""
    found = [levels(scene) for scene in scenes]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: _listed(np.mean([np.array(one[name], float) for one in found if name in one], axis=0)) for name in names}


def reference_levels(scene: Scene) -> Levels:
    """The common levels of the scenes that one was joined of, or its own."""
    return common_levels([part for _, part in scene.places])


def _listed(values: np.ndarray) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in values.tolist()]


def aligned(scene: Scene, reference: Levels) -> Scene:
    """The scene, or each of those it is joined of, with the levels of ``reference`` in the modalities that this names; their bands
    must stand in the reference's order."""
    return scene.with_places([_aligned(part, reference) for _, part in scene.places])


def _aligned(scene: Scene, reference: Levels) -> Scene:
    own = levels(scene)
    modalities = [
        _moved(modality, own[modality.name], reference[modality.name]) if modality.name in reference else modality
        for modality in scene.modalities
    ]
    return replace(scene, modalities=modalities)


class MovedBands(Raster):
    """The bands of a modality, each times a gain plus an offset."""

    def __init__(self, modality: Modality, gain: np.ndarray, offset: np.ndarray) -> None:
        self._modality, self._gain, self._offset = modality, gain, offset
        self.source, self.height, self.width = modality.source, modality.height, modality.width
        self.names, self.units = list(modality.bands), modality.units
        self.nodata, self.notes = [None] * len(modality.bands), []

    @property
    def sources(self) -> list[str]:
        return [source for raster, _ in self._modality.parts for source in raster.sources]

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        chosen = list(bands)
        values = self._modality.read(y0, y1, x0, x1)[chosen].astype(np.float64)
        return values * self._gain[chosen, None, None] + self._offset[chosen, None, None]


def _moved(modality: Modality, own: Any, wanted: Any) -> Modality:
    (centre, spread), (to, width) = np.array(own, float), np.array(wanted, float)
    usable = np.isfinite(centre) & np.isfinite(to)
    varies = usable & (spread > 0) & (width > 0)
    gain = np.where(varies, width / np.where(varies, spread, 1), 1.0)
    offset = np.where(usable, to - gain * centre, 0.0)
    if (gain == 1).all() and (offset == 0).all():  # the scene the reference was taken from
        return modality
    raster = MovedBands(modality, gain, offset)
    return replace(modality, parts=[(raster, list(range(len(modality.bands))))])
