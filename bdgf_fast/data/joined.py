"""Several labelled scenes as one: laid one below the other on a grid of their own, with rows without a value between them.

What trains on one scene then trains on several, in bounded memory: windows are read from the files of the scenes they lie in. No
window that the gap is wide enough for sees two scenes. Where a scene ends at the gap, or beside a wider one, there is no value,
where alone it would be mirrored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bdgf_fast.data.classes import ClassInfo
from bdgf_fast.data.scene import SEVERAL, Modality, Scene, SplitSpec
from bdgf_fast.data.sources.raster import Raster
from bdgf_fast.data.together import same_bands
from bdgf_fast.errors import SceneError

GAP = 128
"""Rows between two scenes, at least: more than the default network with its features sees (81 pixels)."""
STEP = 64
"""A scene begins at a multiple of this row, which all windows of the networks divide: it is cut into them as it would be alone."""


class JoinedBands(Raster):
    """One modality of several scenes, each from its row on; NaN elsewhere."""

    def __init__(self, parts: Sequence[tuple[int, Modality]], height: int, width: int, origins: Sequence[str]) -> None:
        first = parts[0][1]
        self._parts, self._origins = list(parts), list(origins)
        self.source = ", ".join(modality.source for _, modality in parts)
        self.height, self.width = height, width
        self.names, self.units = list(first.bands), first.units
        self.nodata, self.notes = [None] * len(first.bands), []

    @property
    def sources(self) -> list[str]:
        return [*self._origins, *(s for _, modality in self._parts for raster, _ in modality.parts for s in raster.sources)]

    def native(self, bands: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        out = np.full((len(bands), y1 - y0, x1 - x0), np.nan, np.float32)
        for top, modality in self._parts:
            a, b, right = max(y0, top), min(y1, top + modality.height), min(x1, modality.width)
            if a < b and x0 < right:
                values = modality.read(a - top, b - top, x0, right)
                out[:, a - y0 : b - y0, : right - x0] = values if list(bands) == list(range(len(values))) else values[list(bands)]
        return out


@dataclass
class JoinedScene(Scene):
    """Scenes of ``parts`` one below the other; part i begins at row ``tops[i]``."""

    parts: list[Scene] = field(default_factory=list)
    tops: list[int] = field(default_factory=list)

    @property
    def places(self) -> list[tuple[int, Scene]]:
        return list(zip(self.tops, self.parts, strict=True))

    def with_places(self, scenes: Sequence[Scene]) -> JoinedScene:
        return replace(self, parts=list(scenes), modalities=_modalities(scenes, self.tops, self.height, self.width))

    def lacking(self) -> np.ndarray:
        """As of a `Scene`; outside the parts every modality is lacking."""
        if self._lacking is None:
            lacking = np.full((self.height, self.width), SEVERAL, np.uint8)
            for top, part in self.places:
                lacking[top : top + part.height, : part.width] = part.lacking()
            self._lacking = lacking
        return self._lacking


def join_scenes(
    scenes: Sequence[Scene], name: str, *, gap: int = GAP, split: SplitSpec | None = None, path: Path | None = None
) -> JoinedScene:
    """One scene of several with the same modalities, bands and legend; a class may be missing in some of them.

    Args:
        gap: rows without a value between two scenes, at least.
        split: rules for the whole; ``per_class`` counts in each scene alone.

    Bands are brought to the order of the first scene by their names. Raises SceneError or StateError naming the scene and the
    modality, band or class that differs, and for a scene without labels.
    """
    classes = legend(scenes)
    for scene in scenes:
        if not scene.classes:
            raise SceneError(
                f"{scene.labels_source} has no labels: a scene that trains has some; leave it out, or add a [labels] table."
            )
    parts = alike(scenes)
    tops, height = [], 0
    for part in parts:
        tops.append(height)
        height += -(-(part.height + gap) // STEP) * STEP
    height = tops[-1] + parts[-1].height
    width = max(part.width for part in parts)
    labels = np.full((height, width), -1, np.int16)
    order = {info.code: k for k, info in enumerate(classes)}
    for top, part in zip(tops, parts, strict=True):
        table = np.array([*(order[info.code] for info in part.classes), -1], np.int16)  # the last entry is that of -1
        labels[top : top + part.height, : part.width] = table[part.labels]
    return JoinedScene(
        name=name,
        modalities=_modalities(parts, tops, height, width),
        height=height,
        width=width,
        labels=labels,
        classes=classes,
        split_spec=split or SplitSpec(),
        path=path,
        notes=[type(note)(f"{part.name}: {note}") for part in parts for note in part.notes],
        empty=dict(parts[0].empty),
        parts=parts,
        tops=tops,
    )


def legend(scenes: Sequence[Scene]) -> list[ClassInfo]:
    """The classes of all scenes in ascending code. Raises SceneError where a code or a name means two things; a code without a name
    ("class 3") goes with any."""
    known: dict[int, tuple[ClassInfo, Scene]] = {}
    for scene in scenes:
        for info in scene.classes:
            for other, there in list(known.values()):
                same_code, same_name = info.code == other.code, info.name.casefold() == other.name.casefold()
                nameless = any(one.name == f"class {one.code}" for one in (info, other))
                if same_code and not same_name and not nameless:
                    raise SceneError(
                        f"{scene.labels_source}: code {info.code} is {info.name!r} here, {other.name!r} in {there.labels_source}; "
                        "scenes that are used together share one legend."
                    )
                if same_name and not same_code:
                    raise SceneError(
                        f"{scene.labels_source}: class {info.name!r} has code {info.code} here, {other.code} in "
                        f"{there.labels_source}; scenes that are used together share one legend."
                    )
            if info.code not in known or known[info.code][0].name == f"class {info.code}":
                known[info.code] = (info, scene)
    return [known[code][0] for code in sorted(known)]


def alike(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes with their modalities and bands in the order of the first. Raises SceneError or StateError where they differ."""
    first: dict[str, tuple[Scene, Modality]] = {}
    names = [modality.name for modality in scenes[0].modalities]
    parts = []
    for scene in scenes:
        own = [modality.name for modality in scene.modalities]
        if set(own) != set(names):
            raise SceneError(
                f"{scene.labels_source} has the modalities {', '.join(own)}, {scenes[0].labels_source} has {', '.join(names)}; "
                "scenes that are used together have the same, under the same names."
            )
        scene = same_bands(scene, first)
        found = {modality.name: modality for modality in scene.modalities}
        if own != names:  # what lacks where is told by the modality's number
            scene = replace(scene, _lacking=None)
        parts.append(replace(scene, modalities=[found[name] for name in names]))
    return parts


def _modalities(parts: Sequence[Scene], tops: Sequence[int], height: int, width: int) -> list[Modality]:
    out = []
    origins = [str(part.path) for part in parts if part.path is not None]
    for k, first in enumerate(parts[0].modalities):
        pieces = [(top, part.modalities[k]) for top, part in zip(tops, parts, strict=True)]
        raster = JoinedBands(pieces, height, width, origins)
        out.append(Modality(first.name, [(raster, list(range(len(first.bands))))], list(first.bands), first.pca, first.rgb))
    return out


def table_of(references: Sequence[str], name: str, per_class: int | None, gap: int) -> str:
    """The text of a scene file that joins scenes, all of whose labelled pixels may train."""
    texts = [json.dumps(text, ensure_ascii=False) for text in (name, *references)]  # TOML's basic strings take JSON's escapes
    most = "" if per_class is None else f"per_class = {per_class}\n"
    return f'name = {texts[0]}\njoin = [{", ".join(texts[1:])}]\ngap = {gap}\n[split]\nkind = "all"\n{most}'
