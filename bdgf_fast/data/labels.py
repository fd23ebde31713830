"""The [labels] table of a scene file: class indices, classes, and the maps of a given split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bdgf_fast.data.classes import (
    MISSING,
    NO_CLASS_NAMES,
    ClassInfo,
    as_codes,
    class_indices,
    count_codes,
    settle_classes,
    skipped_codes,
    strips,
)  # fmt: skip
from bdgf_fast.data.colours import parse_colour
from bdgf_fast.data.sources import index_lists
from bdgf_fast.data.sources.gdal_raster import GdalRaster
from bdgf_fast.data.sources.named_files import SIDES, Source
from bdgf_fast.data.sources.raster import Raster
from bdgf_fast.errors import SceneError


@dataclass
class Labels:
    """Class indices int16 (H, W), the classes, bool (H, W) maps of a given split, and the pixels of ignored codes."""

    index: np.ndarray
    classes: list[ClassInfo] = field(default_factory=list)
    given: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: np.ndarray | None = None


def _by_code(table: dict[str, Any], key: str, where: str) -> dict[int, Any] | None:
    """A table whose keys are label codes."""
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise SceneError(f'{where}: {key} is a table such as {{ 1 = "...", 2 = "..." }}.')
    result = {}
    for code, entry in value.items():
        try:
            number = int(code)
        except ValueError:
            raise SceneError(
                f"{where}: {key} has the key {code!r}; keys are the whole numbers in the label map."
            ) from None
        if abs(number) >= 2**63:
            raise SceneError(f"{where}: {key} has the key {code[:30]}, beyond any code in a label map.")
        result[number] = entry
    return result


def named_classes(table: dict[str, Any] | None, where: str) -> dict[int, str] | None:
    """Code -> name as the table gives them."""
    classes = _by_code(table or {}, "classes", where)
    for code, name in (classes or {}).items():
        if not isinstance(name, str):
            raise SceneError(f"{where}: class {code} is named {name!r}; a name is text in quotes.")
    return classes


def read_labels(
    table: dict[str, Any],
    where: str,
    sources: dict[tuple[str, int, int], Source],
    grid: Raster,
    classes: dict[int, str] | None,
    names: dict[int, str] | None,
    notes: list[str],
) -> Labels:
    """Labels on ``grid``, looked through in strips of rows; ``names`` are those of a vector file."""
    if "path" not in table and not {"train", "test"} <= set(table):
        raise SceneError(f"{where}: give path, or train and test, or all three.")
    colours = {}
    for code, value in (_by_code(table, "colours", where) or {}).items():
        try:
            colours[code] = parse_colour(value)
        except ValueError as error:
            raise SceneError(f"{where}: colour of code {code}: {error}.") from None
    shades: dict[int, tuple[int, int, int]] = {}
    first = sources[next(key for key in ("path", *SIDES) if key in table), 0, 0]
    if isinstance(first.raster, GdalRaster):
        legend, shades = first.raster.legend()
        names = {**{code: name for code, name in legend.items() if name.casefold() not in NO_CLASS_NAMES}, **(names or {})}
    ignore = table.get("ignore", [] if 0 in (classes if classes is not None else names or {}) else [0])
    if not isinstance(ignore, list) or not all(type(code) is int and abs(code) < 2**63 for code in ignore):
        raise SceneError(f"{where}: ignore is a list of codes such as [0, 255].")
    read = _Reader(table, sources, (grid.height, grid.width), skipped_codes(classes or names, ignore))
    if read.lists and "path" not in table:
        raise SceneError(f"{where}: {next(iter(read.lists.values())).label} lists pixels; name the ground truth with path too.")
    tally = read.look(notes)
    known = {"classes": classes, "ignore": ignore, "colours": colours, "names": names, "shades": shades}
    infos = settle_classes(tally, read.source, **known, notes=notes)  # type: ignore[arg-type]
    index, ignored = class_indices(read.merged, read.shape, infos, ignore)
    return Labels(index, infos, read.given, ignored)


class _Reader:
    """The label maps of a scene, merged into one, by strips of rows."""

    def __init__(
        self, table: dict[str, Any], sources: dict[tuple[str, int, int], Source], shape: tuple[int, int], skip: list[int]
    ) -> None:
        self.shape, self.skip = shape, skip
        self.whole = sources["path", 0, 0].settled if "path" in table else None
        sides = {side: sources[side, 0, 0] for side in SIDES if side in table}
        self.lists = {side: source for side, source in sides.items() if source.listed}
        self.maps = {side: source.settled for side, source in sides.items() if not source.listed}
        self.given = {side: np.zeros(shape, bool) for side in self.maps}
        self.source = self.whole.source if self.whole else ", ".join(raster.source for raster in self.maps.values())
        # Beside a ground truth, 0 in the map of a side means "not in it", also where 0 is a class.
        self.beside = [*skip, 0] if self.whole else skip
        for raster in [*([self.whole] if self.whole else []), *self.maps.values()]:
            if len(raster.names) != 1:
                raise SceneError(f"{raster.source} has {len(raster.names)} bands; a label map has one.")

    def codes(self, raster: Raster, y0: int, y1: int) -> np.ndarray:
        window = (y0, y1, 0, self.shape[1])
        raw = raster.native([0], *window)
        return as_codes(raw[0], raster.source, raster.missing(raw, [0], window)[0])

    def merged(self, y0: int, y1: int) -> np.ndarray:
        """Codes of rows y0..y1-1: those of the ground truth, else of the sides, of which the training side counts first."""
        if self.whole is not None:
            return self.codes(self.whole, y0, y1)
        out = np.full((y1 - y0, self.shape[1]), MISSING)
        for side in ("test", "val", "train"):
            if side in self.maps:
                values = self.codes(self.maps[side], y0, y1)
                inside = ~np.isin(values, self.beside)
                out[inside] = values[inside]
        return out

    def look(self, notes: list[str]) -> Counter[int]:
        """Fill ``given``, check that the maps agree; pixels by code."""
        tally: Counter[int] = Counter()
        own: dict[str, set[int]] = {side: set() for side in self.maps}
        clashes: dict[str, list[Any]] = {}
        labelled = np.zeros(self.shape, bool) if self.lists else None
        for y0, y1 in strips(*self.shape):
            merged = self.merged(y0, y1)
            count_codes(tally, merged)
            if labelled is not None:
                labelled[y0:y1] = ~np.isin(merged, self.skip)
            for side, raster in self.maps.items():
                values = self.codes(raster, y0, y1)
                inside = ~np.isin(values, self.beside)
                self.given[side][y0:y1] = inside
                own[side].update(np.unique(values[inside]).tolist())
                clash = inside & (values != merged)
                if clash.any():
                    y, x = np.argwhere(clash)[0]
                    entry = clashes.setdefault(side, [0, y0 + y, x, values[y, x], merged[y, x]])
                    entry[0] += int(clash.sum())
        for side, (count, y, x, value, other) in clashes.items():
            # A map with a single value beside a label map only marks pixels; any other carries codes, which must agree.
            if self.whole is None or len(own[side]) != 1:
                raise SceneError(
                    f"{self.maps[side].source} contradicts the other label maps at {count} pixels "
                    f"(first at row {y}, column {x}: {value} and {other}); correct one of them."
                )
        if labelled is not None:
            said = {side: source.label for side, source in self.lists.items()}
            masks, sentence = index_lists.settle({side: s.array for side, s in self.lists.items()}, labelled, said)
            notes.append(sentence)
            self.given = {side: {**self.given, **masks}[side] for side in SIDES if side in self.given or side in masks}
        return tally
