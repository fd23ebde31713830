"""How much of each class there is: by the map, by its probabilities, by estimated shares, and by the error matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassInfo
from ..files.atomic import atomic

Z = 1.959963984540054
"""Quantile of the normal distribution for a 95 % interval."""
HECTARE = 1e4
COLUMNS = ("code", "class", "unit", "pixels", "counted", "expected", "corrected", "error_matrix", "error_matrix_low",
           "error_matrix_high")  # fmt: skip


def error_matrix_areas(matrix: Any, mapped: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Areas of the classes and half the width of their 95 % intervals, each (K,), by the stratified estimator of Olofsson et al.,
    "Good practices for estimating area and assessing accuracy of land change", 2014 (equations 9 to 11); None where a class of the
    map has fewer than two pixels in the matrix.

    Args:
        matrix: counts (K, K) of the sample, rows = class in the map, columns = reference.
        mapped: area of each class in the map (K,), in any unit, which the result has too.

    The map's classes are the strata. The interval is right for a random sample in each of them.
    """
    counts, mapped_area = np.asarray(matrix, np.float64), np.asarray(mapped, np.float64)
    sampled = counts.sum(1)
    there = mapped_area > 0
    if (sampled[there] < 2).any() or not there.any():
        return None
    total = mapped_area.sum()
    weight = mapped_area[there] / total
    share = counts[there] / sampled[there, None]  # of each reference class in a stratum
    variance = (weight[:, None] ** 2 * share * (1 - share) / (sampled[there, None] - 1)).sum(0)
    return total * (weight @ share), Z * total * np.sqrt(variance)


def area_table(
    classes: Sequence[ClassInfo], predicted: dict[str, Any], confusion: Any | None = None
) -> dict[str, Any]:
    """The areas of a map's classes, JSON-able: ``unit`` ("ha" or "pixels"), ``rows`` with the keys ``COLUMNS`` but the unit, and
    ``note``, a sentence where there is no estimate by the error matrix.

    Args:
        predicted: what the prediction kept of the map: ``pixels``, ``counted``, ``expected``, ``on_ground`` and ``priors``.
        confusion: of the test pixels in this map, rows = truth; None where there are none.
    """
    unit, scale = ("ha", HECTARE) if predicted["on_ground"] else ("pixels", 1.0)
    counted, expected = (np.array(predicted[name]) / scale for name in ("counted", "expected"))
    estimated = predicted["priors"]["estimated"]
    found = None if confusion is None else error_matrix_areas(np.asarray(confusion).T, counted)
    note = None
    if confusion is not None and found is None:
        bare = [info.name for info, row, area in zip(classes, np.asarray(confusion).T, counted, strict=True)
                if area > 0 and row.sum() < 2]  # fmt: skip
        note = f"Fewer than two test pixels lie in what the map calls {', '.join(bare)}: there is no estimate by the error matrix."
    rows = []
    for k, info in enumerate(classes):
        area, half = (None, None) if found is None else (float(found[0][k]), float(found[1][k]))
        rows.append({
            "code": info.code, "class": info.name, "pixels": predicted["pixels"][k], "counted": float(counted[k]),
            "expected": float(expected[k]),
            "corrected": None if estimated is None else estimated[info.name] * float(counted.sum()),
            "error_matrix": area, "error_matrix_low": None if area is None or half is None else max(0.0, area - half),
            "error_matrix_high": None if area is None or half is None else area + half,
        })  # fmt: skip
    return {"unit": unit, "rows": rows, "note": note}


def write_areas(path: Path, table: dict[str, Any]) -> None:
    """Write ``area_table`` as CSV; what is not known stays empty."""
    with atomic(path) as beside, open(beside, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in table["rows"]:
            known = {key: value for key, value in row.items() if value is not None}
            shown = {key: f"{value:.8g}" if isinstance(value, float) else value for key, value in known.items()}
            writer.writerow({**shown, "unit": table["unit"]})
