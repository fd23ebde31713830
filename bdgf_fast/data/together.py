"""Several scenes of the same sensors, normalised alike: one value means one thing in all of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bdgf_fast.data.align import aligned, common_levels
from bdgf_fast.data.normalise import Normaliser, fit_together
from bdgf_fast.data.prepared import CACHE_BYTES, PreparedScene, band_order
from bdgf_fast.data.ranges import PIXEL_RATIO
from bdgf_fast.data.scene import Modality, Scene
from bdgf_fast.errors import DataWarning, SceneError


def prepare_together(
    scenes: Sequence[Scene], *, align: bool = False, state: dict[str, Any] | None = None, cache_bytes: int = CACHE_BYTES
) -> list[PreparedScene]:
    """Prepare scenes, each with the modalities of all, by statistics over the valid pixels of all of them; labels play no part.

    Args:
        align: bring them to common levels of the bands first (see `bdgf_fast.data.align`).
        state: take the levels and the normalisation from there (see ``state_of``) instead of fitting it.
        cache_bytes: what all the scenes together may hold in memory, as for ``prepare``.

    A scene may lack modalities, which read as 0; the bands of those it has must be the same, by number and name, and are brought to
    the order of the first scene that has them. Raises StateError or SceneError naming the scene and the modality that differs.
    """
    first: dict[str, tuple[Scene, Modality]] = {}
    alike = [_unlabelled(same_bands(scene, first)) for scene in scenes]
    reference = state.get("levels") if state is not None else common_levels(alike) if align else None
    if reference is not None:
        alike = [aligned(scene, reference) for scene in alike]
    if state is None:
        fitted = [_fit(name, alike) for name in first]
        normalisers = [normaliser for normaliser in fitted if normaliser is not None]
    else:
        normalisers = [Normaliser.from_state(entry) for entry in state["modalities"]]
    if not normalisers:
        raise SceneError(f"{scenes[0].labels_source}: every band is constant in all scenes; there is nothing to learn from.")
    prepared = [PreparedScene(scene, normalisers, cache_bytes=cache_bytes // len(scenes)) for scene in alike]
    for one in prepared:
        one.levels = reference
    return prepared


def state_of(prepared: Sequence[PreparedScene]) -> dict[str, Any]:
    """The normalisation that scenes share, JSON-able, from which ``PreparedScene.from_state`` prepares another scene."""
    pixels = [p.pixel for p in prepared]
    alike = all(p is not None for p in pixels) and all(
        max(side) <= PIXEL_RATIO * min(side) for side in zip(*(p for p in pixels if p is not None), strict=True)
    )
    names = ", ".join(p.scene.name for p in prepared)
    return {**prepared[0].state(), "scene": names, "classes": [], "pixel": pixels[0] if alike else None}


def same_bands(scene: Scene, first: dict[str, tuple[Scene, Modality]]) -> Scene:
    """The scene with its bands in the order of the scenes before it; ``first`` takes the modalities that are new."""
    scene.valid()  # finds the bands without any value
    modalities, empty = [], dict(scene.empty)
    for modality in scene.modalities:
        other, known = first.setdefault(modality.name, (scene, modality))
        if other is not scene:
            where = f"{scene.labels_source} does not go with {other.labels_source}"
            order = band_order(scene, modality, known, where, other.labels_source)
            if order is not None:
                modality = modality.reordered(order)
                empty[modality.name] = [order.index(band) for band in empty.get(modality.name, [])]
            _require_alike(scene, modality, empty.get(modality.name, []), other, known)
        modalities.append(modality)
    return replace(scene, modalities=modalities, empty=empty)


def _unlabelled(scene: Scene) -> Scene:
    labels = np.broadcast_to(np.int16(-1), (scene.height, scene.width))  # takes no memory
    return replace(scene, labels=labels, classes=[])


def _require_alike(scene: Scene, modality: Modality, empty: list[int], other: Scene, known: Modality) -> None:
    if modality.pca != known.pca:
        raise SceneError(
            f"{scene.labels_source}: pca of modality {modality.name!r} is {modality.pca}, in {other.labels_source} it is "
            f"{known.pca}; write the same."
        )
    differing = sorted(set(empty) ^ set(other.empty.get(modality.name, [])))
    if differing:
        band, at = known.bands[differing[0]], scene if differing[0] in empty else other
        raise SceneError(
            f"{at.labels_source}: band {band!r} of modality {modality.name!r} holds no value here, but it does in other scenes; "
            "correct the file or 'nodata', or leave the band out everywhere."
        )
    for band, unit, there in zip(known.bands, modality.units, known.units, strict=True):
        if unit and there and unit != there:
            warnings.warn(
                f"{scene.labels_source}: band {band!r} of modality {modality.name!r} is in {unit!r}, in {other.labels_source} it "
                f"is in {there!r}.",
                DataWarning, stacklevel=2,
            )  # fmt: skip


def _fit(name: str, scenes: Sequence[Scene]) -> Normaliser | None:
    having = [(scene, modality, scene.valid()) for scene in scenes for modality in scene.modalities if modality.name == name]
    return fit_together(having)
