"""Pictures of a report, each from plain figures to one PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ..files.atomic import atomic
from .embedding import FUSION

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first: there may be no display)

STAGES = {"pretrain": "diffusion model, loss per modality", "train": "classifier"}
VERDICTS = {"better": "tab:blue", "worse": "tab:red", "open": "0.35"}
PARTS = {"loss": "total", "ce": "branches", "ce_fused": "fused", "entropy": "entropy alignment",
         "similarity": "similarity alignment"}  # fmt: skip


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as beside:
        figure.savefig(beside, dpi=130)
    plt.close(figure)


def losses(history: dict[str, Any], path: Path) -> None:
    """Loss curves: per modality of the diffusion model, per part of the classifier."""
    stages = [(name, history[name]["curves"]) for name in STAGES if history.get(name, {}).get("curves", {}).get("step")]
    count = max(len(stages), 1)
    figure, axes = plt.subplots(1, count, figsize=(5.5 * count, 3.6), layout="constrained", squeeze=False)
    for axis, (name, curves) in zip(axes[0], stages, strict=False):
        for label, values in curves["series"].items():
            shown = PARTS.get(label, label) if name == "train" else label
            axis.plot(curves["step"], values, label=shown, linewidth=1.2, marker="." if len(values) < 3 else None)
        axis.set(title=STAGES[name], xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    _save(figure, path)


def mask_rates(history: dict[str, Any], path: Path) -> bool:
    """How often pre-training hid each modality, over its steps; returns whether there is anything to show."""
    stage = history.get("pretrain", {})
    rates, steps = stage.get("mask_rates", {}), stage.get("curves", {}).get("step", [])
    if not steps or len(rates) < 2:
        path.unlink(missing_ok=True)
        return False
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for name, values in rates.items():
        axis.plot(steps, 100 * np.asarray(values), label=name, linewidth=1.4, marker="." if len(values) < 3 else None)
    axis.set(title="how often a modality is hidden", xlabel="step", ylabel="% of the samples")
    axis.set_ylim(0, max(5.0, 115 * max(max(v) for v in rates.values())))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)
    return True


def confusion(report: dict[str, Any], path: Path) -> None:
    """Confusion matrix in per cent of each label's test pixels."""
    matrix = np.asarray(report["confusion_matrix"], float)
    totals = matrix.sum(1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    names = [entry["name"] for entry in report["classes"]]
    side = 1.9 + 0.4 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="label")
    if len(names) <= 20:
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 0.55 else "black"
            text = f"{100 * value:.0f}" if totals[row, 0] else "-"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, label="% of the label's test pixels", shrink=0.8)
    _save(figure, path)


def differences(cells: list[dict[str, Any]], level: float, path: Path) -> bool:
    """Paired differences of a study's cells to its default with their intervals; returns whether there is anything to show.

    Args:
        cells: each with ``title``, ``group`` and ``difference`` (see ``study_page.difference``).
        level: of the intervals.
    """
    if not cells:
        path.unlink(missing_ok=True)
        return False
    figure, axis = plt.subplots(figsize=(8.5, 1.4 + 0.27 * len(cells)), layout="constrained")
    for place, cell in enumerate(cells):
        found = cell["difference"]
        colour = VERDICTS[found["verdict"]]
        if found["low"] is None:  # one seed has no interval
            axis.plot(found["mean"], place, marker="o", markerfacecolor="white", color=colour, markersize=5)
        else:
            spread = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            axis.errorbar(found["mean"], place, xerr=spread, fmt="o", color=colour, capsize=3, markersize=5, linewidth=1.4)
        if place and cell["group"] != cells[place - 1]["group"]:
            axis.axhline(place - 0.5, color="0.85", linewidth=0.8)
    axis.axvline(0, color="0.4", linewidth=1)
    axis.set_yticks(range(len(cells)), [cell["title"] for cell in cells])
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_xlabel(f"points of overall accuracy against the default, mean over seeds with the {100 * level:.0f} % interval")
    axis.grid(axis="x", alpha=0.3)
    _save(figure, path)
    return True


def reliability(calibration: dict[str, Any] | None, path: Path) -> bool:
    """Accuracy over confidence in bins, before and after the temperature; returns whether there is anything to show."""
    if calibration is None:
        path.unlink(missing_ok=True)
        return False
    figure, axis = plt.subplots(figsize=(4.8, 5.0), layout="constrained")
    axis.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
    shown = [("uncalibrated", "as trained", "tab:orange"), ("calibrated", "with the temperature", "tab:blue")]
    if calibration["written"] != calibration["calibrated"]:
        shown.append(("written", "under the map's class shares", "tab:green"))
    for name, title, colour in shown:
        bins = [b for b in calibration[name]["bins"] if b["pixels"]]
        error = 100 * calibration[name]["expected_calibration_error"]
        sure, right = ([100 * b[key] for b in bins] for key in ("confidence", "accuracy"))
        axis.plot(sure, right, color=colour, marker="o", markersize=4, linewidth=1.3, label=f"{title}: error {error:.1f} points")
    axis.set(title="reliability on the test pixels", xlabel="probability of the predicted class, %",
             ylabel="share that is right, %", xlim=(0, 102), ylim=(0, 102), aspect="equal")  # fmt: skip
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", frameon=False)  # curves may pass through any corner
    _save(figure, path)
    return True


def save_curves(lines: list[tuple[str, list[int], list[float], list[float]]], across: str, up: str, path: Path) -> None:
    """Lines over a logarithmic axis: each a title, places, values and standard errors."""
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for k, (title, places, values, errors) in enumerate(lines):
        width = 2.2 if k == 0 else 1.2
        axis.errorbar(places, values, yerr=errors, label=title, capsize=3, marker="o", markersize=4, linewidth=width)
    axis.set_xscale("log")
    ticks = sorted({place for _, places, _, _ in lines for place in places})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel=across, ylabel=up)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def tsne(stored: Path, classes: list[dict[str, Any]], path: Path) -> bool:
    """t-SNE of every branch and of the fusion, coloured by label; returns whether there is anything to show."""
    if not stored.exists():
        path.unlink(missing_ok=True)
        return False
    with np.load(stored) as data:
        truth = data["truth"]
        maps = {name: data[name] for name in data.files if name != "truth"}
    across = min(len(maps), 2 if len(maps) <= 4 else 4)
    down = -(-len(maps) // across)
    figure, axes = plt.subplots(down, across, figsize=(4.4 * across, 4.2 * down + 0.5), layout="constrained", squeeze=False)
    for axis in axes.flat[len(maps):]:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, maps.items(), strict=False):
        for k in np.unique(truth):
            mine = points[truth == k]
            colour = [v / 255 for v in classes[k]["colour"]]
            axis.scatter(*mine.T, s=14, color=colour, edgecolor="0.35", linewidth=0.25, label=classes[k]["name"])
        axis.set(title="fusion (the branches side by side)" if name == FUSION else f"{name} branch", xticks=[], yticks=[])
    handles, labels = axes.flat[0].get_legend_handles_labels()
    rows = -(-len(labels) // (3 * across))
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows), frameon=False, fontsize=9)
    _save(figure, path)
    return True
