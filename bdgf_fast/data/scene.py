"""A scene: co-registered rasters on one grid with a label map."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data.classes import ClassInfo, index_labels
from bdgf_fast.data.sources.raster import ArrayRaster, Raster, default_names
from bdgf_fast.errors import DataWarning, SceneError

STRIP_BYTES = 64 * 2**20
COMPLETE, SEVERAL = 255, 254
"""In `Scene.lacking`: no modality, or more than one."""


@dataclass(frozen=True)
class SplitSpec:
    """How labelled pixels are divided; see `bdgf_fast.data.split.make_split` for the meaning of each field."""

    kind: str = "blocks"
    block: int = 16
    train_fraction: float = 0.3
    per_class: int | None = 100
    gap: int | str | None = None
    val_blocks: float = 0.0


@dataclass
class Modality:
    """Bands of one sensor, possibly stacked from several files.

    ``parts`` lists (raster, 0-based bands) in order; ``bands`` holds one name per band.
    """

    name: str
    parts: list[tuple[Raster, list[int]]]
    bands: list[str]
    pca: int | None = None
    rgb: tuple[int, int, int] | None = None

    @property
    def units(self) -> list[str]:
        """One text per band, empty where the file says none."""
        return [raster.units[band] for raster, bands in self.parts for band in bands]

    def reordered(self, order: Sequence[int]) -> Modality:
        """The same modality with its 0-based bands in this order."""
        flat = [(raster, band) for raster, bands in self.parts for band in bands]
        rgb = None if self.rgb is None else tuple(order.index(band) for band in self.rgb)
        return Modality(self.name, stack([flat[i] for i in order]), [self.bands[i] for i in order], self.pca, rgb)  # type: ignore[arg-type]

    @property
    def source(self) -> str:
        """The file or files, for messages."""
        return ", ".join(dict.fromkeys(raster.source for raster, _ in self.parts))

    @property
    def height(self) -> int:
        return self.parts[0][0].height

    @property
    def width(self) -> int:
        return self.parts[0][0].width

    def band_source(self, index: int) -> str:
        """File of the band with this 0-based index."""
        for raster, bands in self.parts:
            if index < len(bands):
                return raster.source
            index -= len(bands)
        raise IndexError(index)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Rows y0..y1-1, columns x0..x1-1: float32 (C, y1 - y0, x1 - x0), NaN where a value is missing."""
        if not (0 <= y0 <= y1 <= self.height and 0 <= x0 <= x1 <= self.width):
            raise ValueError(f"window rows {y0}:{y1}, columns {x0}:{x1} leaves the {self.height} x {self.width} scene")
        windows = [raster.read(bands, y0, y1, x0, x1) for raster, bands in self.parts]
        return windows[0] if len(windows) == 1 else np.concatenate(windows)


def stack(bands: Sequence[tuple[Raster, int]]) -> list[tuple[Raster, list[int]]]:
    """Single bands as parts: neighbours of one raster are read together."""
    parts: list[tuple[Raster, list[int]]] = []
    for raster, band in bands:
        if parts and parts[-1][0] is raster:
            parts[-1][1].append(band)
        else:
            parts.append((raster, [band]))
    return parts


@dataclass
class Scene:
    """Rasters, labels and split rules of one place.

    ``labels`` is int16 (H, W): class index 0..K-1, -1 unlabelled or ignored. ``given`` holds the bool (H, W) maps of a
    given split under "train", "test" and, if there is one, "val". ``notes`` says what was settled on loading (axis order,
    base of index lists, names of classes taken from a file). ``ignored`` is bool (H, W), the pixels whose label is one of
    the codes to leave out, None without any. ``empty`` lists, once `valid` has looked, the 0-based bands without any value
    by modality; they take no part.
    """

    name: str
    modalities: list[Modality]
    height: int
    width: int
    labels: np.ndarray
    classes: list[ClassInfo]
    crs: Any = None
    transform: Any = None
    split_spec: SplitSpec = field(default_factory=SplitSpec)
    given: dict[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None
    notes: list[str] = field(default_factory=list)
    ignored: np.ndarray | None = None
    empty: dict[str, list[int]] = field(default_factory=dict)
    _lacking: np.ndarray | None = field(default=None, repr=False)

    @property
    def labels_source(self) -> str:
        """What to name in messages about the scene."""
        return str(self.path) if self.path else f"scene {self.name!r}"

    @property
    def places(self) -> list[tuple[int, Scene]]:
        """The scenes that this one is made of, each with its first row: itself alone, but for joined ones."""
        return [(0, self)]

    def with_places(self, scenes: Sequence[Scene]) -> Scene:
        """The scene with these in place of its ``places``, which differ in their values alone."""
        return scenes[0]

    def modality(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        known = ", ".join(m.name for m in self.modalities)
        raise SceneError(f"{self.labels_source} has no modality {name!r}; it has {known}.")

    def strips(self, bytes_per_pixel: int | None = None) -> Iterator[tuple[int, int]]:
        """Row ranges (y0, y1) that bound what is read at once."""
        per_pixel = bytes_per_pixel or 12 * max(len(m.bands) for m in self.modalities)
        rows = max(1, STRIP_BYTES // max(1, per_pixel * self.width))
        for y0 in range(0, self.height, rows):
            yield y0, min(self.height, y0 + rows)

    def valid(self) -> np.ndarray:
        """Bool (H, W): every band of every modality has a value. One pass over the rasters, then kept.

        Raises SceneError where no pixel has; else as ``lacking``.
        """
        valid = self.lacking() == COMPLETE
        if not valid.any():
            raise SceneError(
                f"{self.labels_source}: no pixel has a value in every modality; check that the files cover the "
                "same ground and that 'nodata' is right."
            )
        return valid

    def lacking(self) -> np.ndarray:
        """uint8 (H, W), the modality that a pixel lacks a value of: its index, ``COMPLETE`` where none and ``SEVERAL`` where more
        than one is lacking. One pass over the rasters, then kept.

        Bands without any value are left aside, with a warning. Raises SceneError for a modality without any value; warns with
        the count of incomplete pixels.
        """
        if self._lacking is None:
            lacking = np.full((self.height, self.width), COMPLETE, np.uint8)
            for index, modality in enumerate(self.modalities):
                seen, whole = self._look(modality)
                names = [modality.bands[i] for i in np.flatnonzero(~seen)]
                if not seen.any():
                    raise SceneError(
                        f"{modality.source}: modality {modality.name!r} holds no value at all (nodata or NaN everywhere); "
                        "leave it out or correct 'nodata'."
                    )
                if names:
                    self.empty[modality.name] = np.flatnonzero(~seen).tolist()
                    _warn(
                        f"{modality.source}: modality {modality.name!r} is used without {', '.join(names)}: no value there at all "
                        "(nodata or NaN everywhere)."
                    )
                lost = int(whole.size - whole.sum())
                if lost:
                    _warn(
                        f"{modality.source}: {lost} of {whole.size} pixels hold nodata or NaN in modality "
                        f"{modality.name!r}; they take no part in training, and get a class only from a network that was trained "
                        "with model.hide_rate above 0."
                    )
                mark_lacking(lacking, index, whole)
            self._lacking = lacking
        return self._lacking

    def _look(self, modality: Modality) -> tuple[np.ndarray, np.ndarray]:
        """Which bands hold values at all, and the pixels (H, W) where all of these do."""
        finite = np.zeros(len(modality.bands), np.int64)
        whole = np.zeros((self.height, self.width), bool)
        for y0, y1 in self.strips():
            there = np.isfinite(modality.read(y0, y1, 0, self.width))
            finite += there.sum((1, 2))
            whole[y0:y1] = there.all(0)
        seen = finite > 0
        if seen.any() and not seen.all():  # a second look, now that it is known which bands count
            for y0, y1 in self.strips():
                whole[y0:y1] = np.isfinite(modality.read(y0, y1, 0, self.width)[seen]).all(0)
        return seen, whole


def mark_lacking(lacking: np.ndarray, index: int, whole: np.ndarray) -> None:
    """Note in the map ``lacking`` (see `Scene.lacking`) that pixels outside ``whole`` have no value of modality ``index``."""
    lacking[~whole] = np.where(lacking[~whole] == COMPLETE, index, SEVERAL)


def _warn(text: str) -> None:
    warnings.warn(text, DataWarning, stacklevel=4)


def scene_from_arrays(
    name: str,
    modalities: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    classes: Mapping[int, str] | None = None,
    ignore: Sequence[int] | None = None,
    nodata: float | None = None,
    crs: Any = None,
    transform: Any = None,
    split: SplitSpec | None = None,
    given: Mapping[str, np.ndarray] | None = None,
) -> Scene:
    """Scene from arrays in memory.

    Args:
        modalities: name -> (C, H, W) or (H, W) real array, all of one H x W.
        labels: (H, W) integer class codes, None for a scene only to be predicted.
        classes: code -> name; without it every positive code that occurs becomes "class <code>".
        ignore: codes treated as unlabelled; by default 0, unless ``classes`` names it.
        given: "train", "test" and optionally "val" bool (H, W) maps for a split of kind "given".
    """
    built = []
    for key, array in modalities.items():
        array = np.asarray(array)
        source = f"array {key!r} of scene {name!r}"
        raster = ArrayRaster(
            array, source, layout={2: "hw"}.get(array.ndim, "chw"), nodata=nodata, crs=crs, transform=transform
        )
        built.append(Modality(key, [(raster, list(range(len(raster.names))))], list(raster.names)))
    if not built:
        raise SceneError(f"scene {name!r} has no modality; give at least one array.")
    height, width = built[0].height, built[0].width
    maps = {"labels": labels} if labels is not None else {}
    for key, shape in [(m.name, (m.height, m.width)) for m in built] + [
        (k, np.shape(v)) for k, v in {**maps, **(given or {})}.items()
    ]:
        if tuple(shape) != (height, width):
            raise SceneError(
                f"scene {name!r}: {key!r} is {' x '.join(map(str, shape))} pixels, {built[0].name!r} is {height} x "
                f"{width}."
            )
    infos: list[ClassInfo] = []
    notes: list[str] = []
    passed = None
    if labels is None:
        index = np.full((height, width), -1, np.int16)
    else:
        ignore = ignore if ignore is not None else () if classes and 0 in classes else (0,)
        source = f"labels of scene {name!r}"
        index, infos, passed = index_labels(np.asarray(labels), source, classes=classes, ignore=ignore, notes=notes)
    return Scene(
        name=name,
        modalities=built,
        height=height,
        width=width,
        labels=index,
        classes=infos,
        crs=crs,
        transform=transform,
        split_spec=split or SplitSpec(kind="given" if given else "blocks", per_class=None if given else 100),
        given={k: np.asarray(v, bool) for k, v in (given or {}).items()},
        notes=notes,
        ignored=passed,
    )


__all__ = ["ClassInfo", "Modality", "Scene", "SplitSpec", "default_names", "scene_from_arrays"]
