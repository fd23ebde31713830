"""The table and the picture of accuracy over the number of labels, from the studies of each number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .pictures import save_curves
from .study_page import DEFAULT, analyse, signed_interval, spread


def curve(studies: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What labels.json holds: ``name`` of the scene, ``labels``, and ``cells`` {name: title and, by the number as text, ``oa`` and
    ``difference``}.

    Args:
        studies: the state of each number's study.
    """
    first = next(iter(studies.values()))
    cells: dict[str, dict[str, Any]] = {}
    for n, state in studies.items():
        for group in analyse(state)["cells"].values():
            for cell in group:
                row = cells.setdefault(cell["name"], {"title": cell["title"]})
                row[str(n)] = {"oa": cell["oa"], "difference": cell["difference"]}
    return {"name": first["name"], "labels": list(studies), "cells": cells, **{k: first[k] for k in ("config", "versions")}}


def markdown(found: dict[str, Any]) -> str:
    """Overall accuracy of every cell for each number, and its difference to the default."""
    numbers = [str(n) for n in found["labels"]]
    head = ["", *(f"{n} labels per class" for n in numbers)]
    lines = [f"# {found['name']}: accuracy over the number of labels", ""]
    for title, text in (("Overall accuracy in %", _accuracy), ("Difference to the default in points", _difference)):
        rows = [[cell["title"], *(text(cell.get(n)) for n in numbers)] for name, cell in found["cells"].items()
                if text is _accuracy or name != DEFAULT]  # fmt: skip
        lines += [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]
    lines += ["Mean and standard deviation over the seeds; differences are paired by seed, with their 95 % t interval.", ""]
    return "\n".join(lines)


def _accuracy(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else spread(list(entry["oa"].values()), 100)


def _difference(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None or entry["difference"] is None else signed_interval(entry["difference"])


def picture(found: dict[str, Any], path: Path) -> None:
    """Overall accuracy over labels per class, a line for each cell, with the standard error over the seeds."""
    lines = []
    for cell in found["cells"].values():
        points = [(n, 100 * np.array(list(cell[str(n)]["oa"].values()))) for n in found["labels"] if str(n) in cell]
        errors = [v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0.0 for _, v in points]
        lines.append((cell["title"], [n for n, _ in points], [float(v.mean()) for _, v in points], errors))
    save_curves(lines, "training pixels per class", "overall accuracy in %", path)
