"""The one-page HTML of a run and its pictures, made from the files of the run alone."""

from __future__ import annotations

import json
from typing import Any

from ..data.export import atomic
from . import pictures
from .embedding import EMBEDDING
from .report_page import PAGE, STYLE, embedded
from .rundir import RunDirectory, read_json


def percent(value: float | None) -> str:
    """A share as per cent with one decimal; "-" for none."""
    return "-" if value is None else f"{100 * value:.1f}"


def comparison(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The method and its baselines as rows, best overall accuracy first."""
    keys = ("overall_accuracy", "average_accuracy", "kappa")
    rows = [{"name": "BDGF, all modalities", **{key: report[key] for key in keys}}]
    rows += [{"name": name, **{key: row[key] for key in keys}} for name, row in report.get("baselines", {}).items()]
    rows.sort(key=lambda row: -row["overall_accuracy"])
    return [dict(row, best=position == 0) for position, row in enumerate(rows)]


def _study(run: RunDirectory) -> str | None:
    """The study's part of the page, where there is a study in the run's directory or in a folder ``study`` of it."""
    from .study_report import fragment

    for path in (run / "study.json", run.path / "study" / "study.json"):
        if path.exists():
            return fragment(read_json(path))
    return None


def render(run: RunDirectory) -> None:
    """Write the pictures and report.html of ``run`` from its JSON files, map.png and the stored t-SNE."""
    report, history = read_json(run / "report.json"), read_json(run / "history.json")
    pictures.losses(history, run / "losses.png")
    pictures.mask_rates(history, run / "mask_rates.png")
    pictures.confusion(report, run / "confusion.png")
    pictures.tsne(run.checkpoints / EMBEDDING, report["classes"], run / "tsne.png")
    shown = {name: embedded(run / f"{name}.png") for name in ("losses", "mask_rates", "confusion", "tsne")}
    shown["map"] = embedded(run / "map.png") if run.done("predict") else None
    page = PAGE.render(
        r=report,
        rows=comparison(report),
        pct=percent,
        picture=shown,
        style=STYLE,
        study=_study(run),
        modality_keys=list(next(iter(report["modalities"].values()), {})),
        config=json.dumps(report["config"], indent=1),
    )
    with atomic(run / "report.html") as beside:
        beside.write_text(page, encoding="utf-8")
