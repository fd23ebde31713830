"""Training and test pixels given as lists of (row, column): which base, which order, and are they labelled?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from bdgf_fast.errors import DataWarning, SceneError

# In order of preference: the common loaders read 0-based (row, column), MATLAB counts from 1.
READINGS = tuple((base, swapped) for swapped in (False, True) for base in (0, 1))
LEAST = 0.9  # share of listed pixels that must be labelled for a reading to be believed


def is_list(array: Any) -> bool:
    """Whether an array given for one side of a split is a list of pixels, (N, 2), rather than a map."""
    return array.ndim == 2 and array.shape[1] == 2


def settle(
    lists: Mapping[str, np.ndarray], labelled: np.ndarray, sources: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], str]:
    """Read lists of pixels against the ground truth.

    Args:
        lists: side -> (N, 2) whole numbers.
        labelled: bool (H, W), pixels the ground truth labels.
        sources: side -> the file to name in messages.

    Returns bool (H, W) maps by side, unlabelled pixels left out, and a sentence that says which reading was found. All
    sides are read alike: of the readings in which every pixel lies inside the scene the one that hits most labelled pixels,
    on equal terms the common one. Warns when two bases hit alike or the columns are swapped, raises SceneError when no
    reading hits at least 90 %.
    """
    said = ", ".join(dict.fromkeys(sources.values()))
    points = {side: _whole(array, sources[side]) for side, array in lists.items()}
    everything = np.concatenate(list(points.values()))
    if not len(everything):
        raise SceneError(f"{said}: the lists of pixels are empty.")
    hits = {reading: _hits(everything, labelled, *reading) for reading in READINGS}
    best = max(READINGS, key=lambda reading: hits[reading])  # the first of equals
    if hits[best] < LEAST:
        low, high = everything.min(0).tolist(), everything.max(0).tolist()
        raise SceneError(
            f"{said}: the listed pixels (first column {low[0]} to {high[0]}, second {low[1]} to {high[1]}) do not fit the "
            f"{labelled.shape[0]} x {labelled.shape[1]} ground truth: read as (row, column) or (column, row), 0- or 1-based, "
            f"at most {max(hits[best], 0):.0%} of them are labelled; are ground truth and lists of the same scene?"
        )
    base, swapped = best
    other = hits[1 - base, swapped]
    sentence = (
        f"{said}: read as {base}-based {'(column, row)' if swapped else '(row, column)'}; {hits[best]:.1%} of the listed "
        f"pixels are labelled ({1 - base}-based {f'{other:.1%}' if other >= 0 else 'leaves the scene'})."
    )
    if swapped:
        warnings.warn(f"{sentence} The columns stand in unusual order.", DataWarning, stacklevel=2)
    if other == hits[best]:
        sentence += " Both bases fit equally; the common one is taken."
        warnings.warn(sentence, DataWarning, stacklevel=2)
    masks = {}
    for side, array in points.items():
        masks[side] = np.zeros(labelled.shape, bool)
        rows, cols = (array[:, ::-1] if swapped else array).T - base
        masks[side][rows, cols] = True
    lost = sum(int((mask & ~labelled).sum()) for mask in masks.values())
    if lost:
        warnings.warn(f"{said}: {lost} listed pixels carry no label and are left out.", DataWarning, stacklevel=2)
    return {side: mask & labelled for side, mask in masks.items()}, sentence


def _whole(array: np.ndarray, source: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and not np.array_equal(array, np.round(array))):
        raise SceneError(f"{source} is not a list of pixels: rows and columns are whole numbers, not {array.dtype} with fractions.")
    return array.astype(np.int64)


def _hits(points: np.ndarray, labelled: np.ndarray, base: int, swapped: bool) -> float:
    """Share of the points that are labelled, -1 when one lies outside."""
    rows, cols = (points[:, ::-1] if swapped else points).T - base
    if min(rows.min(), cols.min()) < 0 or rows.max() >= labelled.shape[0] or cols.max() >= labelled.shape[1]:
        return -1.0
    return float(labelled[rows, cols].mean())
