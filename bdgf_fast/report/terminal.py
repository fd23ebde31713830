"""A result as a person reads it in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_page import comparison, percent


def run_text(report: dict[str, Any], folder: Path) -> str:
    """The accuracy of a run in ``folder``, beside its baselines and by class."""
    lines = [f"{report['name']}: seed {report['seed']}, {report['train_pixels']} training and {report['test_pixels']} test pixels"]
    for row in comparison(report):
        mark = "*" if row["best"] else " "
        lines.append(f" {mark} {row['name']:<40} OA {percent(row['overall_accuracy'])} %  AA {percent(row['average_accuracy'])} %"
                     f"  kappa {row['kappa']:.3f}")  # fmt: skip
    lines += [f"     {name:<38} {percent(value)} %" for name, value in report["per_class"].items()]
    lines.append(f"   {folder / 'report.html'}, {folder / 'map.tif'}, {folder / 'map.png'}")
    return "\n".join(lines)


def summary_text(summary: dict[str, Any], folder: Path) -> str:
    """Mean and deviation over the seeds of runs in ``folder``."""
    seeds = ", ".join(map(str, summary["seeds"]))
    lines = [f"mean and standard deviation over seeds {seeds} ({folder / 'summary.json'})"]
    for row in summary["rows"]:
        oa = row["overall_accuracy"]
        lines.append(f"  {row['name']:<40} OA {100 * oa['mean']:.1f} +- {100 * oa['std']:.1f} %")
    return "\n".join(lines)
