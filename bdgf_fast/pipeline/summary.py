"""Mean and deviation over runs that differ in their seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..report.metrics import METRICS
from ..report.run_page import comparison
from .run_directory import STAGES


def summary(reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The content of summary.json from the report of every seed: the rows of their tables, best overall accuracy first."""
    tables = {seed: {row["name"]: row for row in comparison(report)} for seed, report in reports.items()}
    rows = []
    for name in next(iter(tables.values())):
        row: dict[str, Any] = {"name": name}
        for metric in METRICS:
            values = [table[name][metric] for table in tables.values()]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            row[metric] = {"mean": float(np.mean(values)), "std": deviation, "values": values}
        rows.append(row)
    rows.sort(key=lambda row: -row["overall_accuracy"]["mean"])
    seconds = {stage: [report["seconds"][stage] for report in reports.values()] for stage in STAGES}
    return {"seeds": list(reports), "rows": rows, "seconds": seconds,
            "peak_memory_bytes": max(report["peak_memory_bytes"] for report in reports.values())}  # fmt: skip
