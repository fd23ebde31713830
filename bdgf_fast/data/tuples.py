"""Scenes in the form of the package rs-fusion-datasets: (hsi, dsm, labels, info), arrays as bands, rows, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.colours import parse_colour
from bdgf_fast.data.scene import Scene, SplitSpec, scene_from_arrays
from bdgf_fast.errors import SceneError


def scene_from_tuple(
    data: Sequence[Any], *, split: SplitSpec | None = None, names: tuple[str, str] = ("hsi", "dsm"), ignore: Sequence[int] = (0,)
) -> Scene:
    """Scene of the tuple that the fetchers of rs-fusion-datasets (checked against 1.0.0) return.

    Args:
        data: (hsi, dsm, labels, info), (hsi, dsm, train, test, info) or (hsi, dsm, train, test, all, info). hsi and dsm are
            (C, H, W) arrays, dsm may be (H, W) or hold SAR; the label maps are (H, W) SciPy sparse or dense, 0 unlabelled.
            Of info the keys "name", "label_name" (code -> name) and "palette" (colours in order of the codes, as "#rrggbb"
            or CSS names) are used; all may be missing.
        split: rules of the split; by default the train and test sides given, with labels alone blocks.
        names: of the two modalities.
        ignore: codes treated as unlabelled.

    Raises SceneError for another form, sizes that differ and a pixel that carries two codes.
    """
    if not isinstance(data, Sequence) or len(data) not in (4, 5, 6):
        raise SceneError(
            "the tuple must be (hsi, dsm, labels, info), (hsi, dsm, train, test, info) or (hsi, dsm, train, test, all, info); "
            f"here it is {f'{len(data)} long' if isinstance(data, Sequence) else type(data).__name__}."
        )
    hsi, dsm, *maps, info = data
    if not isinstance(info, Mapping):
        raise SceneError(f"the last of the tuple is the info table, a dict; here it is {type(info).__name__}.")
    name = str(info.get("name") or "tuple")
    hsi, dsm = np.asarray(hsi), np.asarray(dsm)
    sides = ("labels",) if len(maps) == 1 else ("train", "test", "all")
    codes = {side: _dense(array, f"{side} of scene {name!r}") for side, array in zip(sides, maps, strict=False)}
    for side, array in codes.items():
        if hsi.ndim != 3 or array.shape != hsi.shape[1:]:
            hint = "(bands, rows, columns) and (rows, columns) are needed"
            if hsi.ndim == 3 and array.shape == hsi.shape[:2]:
                hint = "the bands stand last: give hsi.transpose(2, 0, 1)"
            raise SceneError(f"scene {name!r}: hsi has shape {hsi.shape}, {side} {array.shape}; {hint}.")
    given: dict[str, np.ndarray] = {side: ~np.isin(codes[side], [*ignore, 0]) for side in ("train", "test") if side in codes}
    if given:
        merged = np.where(given["train"], codes["train"], np.where(given["test"], codes["test"], codes.get("all", 0)))
    else:
        merged = codes["labels"]
    classes = {int(code): str(text) for code, text in dict(info.get("label_name") or {}).items() if int(code) not in (0, *ignore)}
    scene = scene_from_arrays(
        name, dict(zip(names, (hsi, dsm), strict=True)), merged, classes=classes or None, ignore=ignore, split=split, given=given
    )
    colours = _palette(info.get("palette"), name)
    order = sorted(classes) or [c.code for c in scene.classes]
    if len(colours) >= len(order):
        shades = dict(zip(order, colours, strict=False))
        scene.classes = [replace(c, colour=shades.get(c.code, c.colour)) for c in scene.classes]
    return scene


def _dense(array: Any, source: str) -> np.ndarray:
    """Label map of a dense array or a sparse one; in coordinate form a pixel may be listed twice, which must not add up."""
    if not hasattr(array, "tocoo"):
        return np.asarray(array)
    coo = array.tocoo()
    dense = np.zeros(coo.shape, np.int64)
    values = np.asarray(coo.data)
    if values.dtype.kind not in "biuf" or not np.array_equal(values, np.round(values)):
        raise SceneError(f"{source} holds {values.dtype} values; a label map holds whole numbers.")
    dense[coo.row, coo.col] = values
    clash = dense[coo.row, coo.col] != values
    if clash.any():
        row, col = coo.row[clash][0], coo.col[clash][0]
        raise SceneError(f"{source}: row {row}, column {col} carries two codes; keep one of them.")
    return dense


def _palette(palette: Any, name: str) -> list[tuple[int, int, int]]:
    if not palette:
        return []
    colours = require("matplotlib.colors", f"the palette of scene {name!r}")
    try:
        return [parse_colour(colours.to_hex(colour)) for colour in palette]
    except ValueError as error:
        raise SceneError(f"the palette of scene {name!r}: {error}.") from None
