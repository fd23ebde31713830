"""Several runs on one page: their accuracy, classes and maps side by side, and what was set differently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import atomic
from ..files.json_files import read_json
from .metrics import METRICS
from .page import COMPARISON, STYLE, embedded
from .run_page import percent


def compare(folders: Sequence[Path], out: Path) -> None:
    """Write the page ``out`` from the report.json and map.png of finished runs, in their order."""
    reports = [read_json(folder / "report.json") for folder in folders]
    page = COMPARISON.render(
        title=f"{len(reports)} runs compared", style=STYLE, pct=percent, names=_names(folders), reports=reports,
        notes=_notes(reports), best={metric: max(report[metric] for report in reports) for metric in METRICS},
        classes=_classes(reports), settings=_differences(reports), maps=[embedded(folder / "map.png") for folder in folders],
    )  # fmt: skip
    with atomic(out) as beside:
        beside.write_text(page, encoding="utf-8")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where two are called alike."""
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _notes(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What keeps the figures from being compared as they stand."""
    notes = []
    if len({report["name"] for report in reports}) > 1:
        notes.append("The runs are on different scenes.")
    elif len({(report["seed"], report["train_pixels"], report["test_pixels"]) for report in reports}) > 1:
        notes.append("The runs differ in their seed or their split, and so in their training and test pixels: part of a difference "
                     "is the split's. A study compares settings on the same splits.")  # fmt: skip
    else:
        notes.append("One seed and one split: a difference between two runs may be chance. A study over several seeds gives "
                     "intervals.")  # fmt: skip
    return notes


def _classes(reports: Sequence[dict[str, Any]]) -> list[tuple[str, list[float | None]]]:
    """Accuracy of each class in every run."""
    names = dict.fromkeys(name for report in reports for name in report["per_class"])
    return [(name, [report["per_class"].get(name) for report in reports]) for name in names]


def _differences(reports: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The values of the configuration that are not the same in all runs."""
    tables = [_leaves(report["config"]) for report in reports]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [table.get(key, "-") for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def _leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found
