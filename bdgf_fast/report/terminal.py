"""A result as a person reads it in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_page import comparison, percent


def run_text(report: dict[str, Any], folder: Path) -> str:
    """The accuracy of a run in ``folder``, beside its baselines and by class."""
    lines = [f"{report['name']}: seed {report['seed']}, {report['train_pixels']} training and {report['test_pixels']} test pixels"]
    rows = comparison(report)
    width = max(len(name) for name in [*(row["name"] for row in rows), *report["per_class"], *(report.get("without") or ())])
    for row in rows:
        lines.append(f"   {row['name']:<{width}}  OA {percent(row['overall_accuracy']):>5} %  "
                     f"AA {percent(row['average_accuracy']):>5} %  kappa {row['kappa']:.3f}")  # fmt: skip
    priors = report.get("priors", {"asked": "train"})
    if priors["asked"] != "train":
        shares = "the scene's estimated" if priors["asked"] == "scene" else "the given"
        oa, aa = (percent(priors["with_training_shares"][key]) for key in ("overall_accuracy", "average_accuracy"))
        lines.append(f"   BDGF by {shares} class shares; by those of the training labels, as the others: OA {oa} %  AA {aa} %")
    lines.append("   accuracy of each class:")
    lines += [f"   {name:<{width}}     {percent(value):>5} %" for name, value in report["per_class"].items()]
    if report.get("without"):
        lines.append("   with a modality missing:")
        lines += [f"   {name:<{width}}  OA {percent(row['overall_accuracy']):>5} %" for name, row in report["without"].items()]
    if report.get("teacher"):
        taught = report["teacher"]
        lines.append(f"   its teacher: OA {percent(taught['overall_accuracy'])} %; they agree on "
                     f"{percent(taught['agreement'])} % of the test pixels")  # fmt: skip
    lines.append(f"   {folder / 'report.html'}, {folder / 'map.tif'}, {folder / 'map.png'}")
    return "\n".join(lines)


def summary_text(summary: dict[str, Any], folder: Path) -> str:
    """Mean and deviation over the seeds of runs in ``folder``."""
    seeds = ", ".join(map(str, summary["seeds"]))
    lines = [f"mean and standard deviation over seeds {seeds} ({folder / 'summary.json'})"]
    width = max(len(row["name"]) for row in summary["rows"])
    for row in summary["rows"]:
        oa = row["overall_accuracy"]
        lines.append(f"  {row['name']:<{width}}  OA {100 * oa['mean']:5.1f} ± {100 * oa['std']:4.1f} %")
    return "\n".join(lines)
