"""A scene: co-registered rasters on one grid with a label map."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data.colours import class_colours
from bdgf_fast.data.readers import ArrayRaster, Raster, default_names
from bdgf_fast.errors import DataWarning, SceneError

STRIP_BYTES = 64 * 2**20
MAX_CLASSES = 32767  # class indices are int16


@dataclass(frozen=True)
class ClassInfo:
    """One land-cover class: its code in the label file, its name and its colour (0-255 each)."""

    code: int
    name: str
    colour: tuple[int, int, int]


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
    def source(self) -> str:
        """The file or files, for messages."""
        return ", ".join(raster.source for raster, _ in self.parts)

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


@dataclass
class Scene:
    """Rasters, labels and split rules of one place.

    ``labels`` is int16 (H, W): class index 0..K-1, -1 unlabelled or ignored. ``given`` holds the bool (H, W) maps of a
    given split under "train", "test" and, if there is one, "val". ``notes`` says what was settled on loading (axis order,
    base of index lists, names of classes taken from a file).
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
    _valid: np.ndarray | None = field(default=None, repr=False)

    @property
    def labels_source(self) -> str:
        """What to name in messages about the scene."""
        return str(self.path) if self.path else f"scene {self.name!r}"

    @classmethod
    def from_tuple(cls, data: Sequence[Any], **options: Any) -> Scene:
        """Scene of the (hsi, dsm, labels, info) tuples of rs-fusion-datasets; see `bdgf_fast.data.tuples.scene_from_tuple`."""
        from bdgf_fast.data.tuples import scene_from_tuple

        return scene_from_tuple(data, **options)

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

        Raises SceneError for a band without any value; warns with the count of excluded pixels.
        """
        if self._valid is None:
            valid = np.ones((self.height, self.width), bool)
            for modality in self.modalities:
                seen = np.zeros(len(modality.bands), bool)
                lost = 0
                for y0, y1 in self.strips():
                    finite = np.isfinite(modality.read(y0, y1, 0, self.width))
                    seen |= finite.any(axis=(1, 2))
                    whole = finite.all(axis=0)
                    lost += int((~whole).sum())
                    valid[y0:y1] &= whole
                for index in map(int, np.flatnonzero(~seen)):
                    raise SceneError(
                        f"{modality.band_source(index)}: band {modality.bands[index]!r} of modality "
                        f"{modality.name!r} holds no value at all (nodata or NaN everywhere); leave it out with "
                        "'bands' or correct 'nodata'."
                    )
                if lost:
                    warnings.warn(
                        f"{modality.source}: {lost} of {valid.size} pixels hold nodata or NaN in modality "
                        f"{modality.name!r}; they are excluded.",
                        DataWarning,
                        stacklevel=2,
                    )
            if not valid.any():
                raise SceneError(
                    f"{self.labels_source}: no pixel has a value in every modality; check that the files cover the "
                    "same ground and that 'nodata' is right."
                )
            self._valid = valid
        return self._valid


def scene_from_arrays(
    name: str,
    modalities: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    classes: Mapping[int, str] | None = None,
    ignore: Sequence[int] = (0,),
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
        ignore: codes treated as unlabelled.
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
    if labels is None:
        index = np.full((height, width), -1, np.int16)
    else:
        index, infos = index_labels(np.asarray(labels), f"labels of scene {name!r}", classes=classes, ignore=ignore)
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
    )


def index_labels(
    codes: np.ndarray,
    source: str,
    *,
    classes: Mapping[int, str] | None,
    ignore: Sequence[int] = (0,),
    colours: Mapping[int, tuple[int, int, int]] | None = None,
    missing: np.ndarray | None = None,
) -> tuple[np.ndarray, list[ClassInfo]]:
    """Class indices int16 (H, W), -1 unlabelled, and the classes in ascending code.

    Code 0 is unlabelled unless ``classes`` names it. ``missing`` marks pixels the file holds no value for.
    """
    codes = as_codes(codes, source, missing)
    present, counts = np.unique(codes, return_counts=True)
    skipped = {_MISSING, *ignore, *(() if classes and 0 in classes else (0,))}
    both = sorted(set(ignore) & set(classes or ()))
    if both:
        raise SceneError(f"{source}: code {both[0]} is both a class and in ignore; keep it in one of them.")
    unknown = [(int(c), int(n)) for c, n in zip(present, counts, strict=True) if c not in skipped]
    if classes is None:
        classes = {c: f"class {c}" for c, _ in unknown if c > 0}
    for code, count in unknown:
        if code not in classes:
            raise SceneError(
                f"{source}: label code {code} ({count} pixels) has no class; add it to classes or to ignore in "
                "[labels]."
            )
    if not classes:
        raise SceneError(f"{source} holds no labelled pixel: only ignored codes occur.")
    order = sorted(classes)
    if len(order) > MAX_CLASSES:
        raise SceneError(f"{source} holds {len(order)} different codes; is it a label map?")
    for code in sorted(set(colours or ()) - set(order)):
        raise SceneError(f"{source}: a colour is given for code {code}, which is no class ({_codes(order)}).")
    names = [classes[c] for c in order]
    shades = class_colours(names)
    infos = [ClassInfo(c, classes[c], (colours or {}).get(c, shade)) for c, shade in zip(order, shades, strict=True)]
    position = np.searchsorted(order, codes)
    position[position == len(order)] = 0
    hit = np.asarray(order)[position] == codes
    hit &= ~np.isin(codes, list(skipped))
    return np.where(hit, position, -1).astype(np.int16), infos


_MISSING = np.iinfo(np.int64).min


def as_codes(raw: np.ndarray, source: str, missing: np.ndarray | None = None) -> np.ndarray:
    """Label values as int64, checked to be whole numbers; ``missing`` ones get a code of their own."""
    if raw.dtype.kind not in "biuf":
        raise SceneError(f"{source} holds {raw.dtype} values; a label map holds whole numbers.")
    bad = np.zeros(raw.shape, bool) if missing is None else missing.copy()
    if raw.dtype.kind == "f":
        bad |= ~np.isfinite(raw)
        raw = np.where(bad, 0, raw)
        fractions = raw != np.round(raw)
        if fractions.any():
            raise SceneError(
                f"{source} is no label map: {int(fractions.sum())} values are not whole numbers (such as "
                f"{raw[fractions][0]:g})."
            )
    codes = raw.astype(np.int64)
    codes[bad] = _MISSING
    return codes


def _codes(order: Sequence[int]) -> str:
    return ", ".join(map(str, order))


__all__ = ["ClassInfo", "Modality", "Scene", "SplitSpec", "default_names", "index_labels", "scene_from_arrays"]
