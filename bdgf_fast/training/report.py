"""The one-page HTML of a run and its pictures, made from the files of the run alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Scene
from ..data.export import atomic
from ..data.grid import pixel_metres
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


def inputs(scene: Scene, names: Sequence[str]) -> list[dict[str, Any]]:
    """File or files, bands, coordinate system and pixel of each modality, for the page."""
    sides = pixel_metres(scene)
    pixel = None if sides is None else f"{sides[0]:.4g} m" if sides[0] == sides[1] else f"{sides[0]:.4g} x {sides[1]:.4g} m"
    crs = None
    if scene.crs is not None:
        code = scene.crs.to_epsg() if hasattr(scene.crs, "to_epsg") else None
        crs = f"EPSG:{code}" if code else str(scene.crs)[:80]
    found = []
    for modality in map(scene.modality, names):
        files = dict.fromkeys(Path(raster.source).name for raster, _ in modality.parts)
        found.append({"name": modality.name, "files": list(files), "bands": len(modality.bands),
                      "size": [modality.height, modality.width], "crs": crs, "pixel": pixel})  # fmt: skip
    return found


def area(scene: Scene, pixels: Sequence[int] | None, k: int) -> dict[str, Any]:
    """Pixels of the k-th class in the map and their square metres, None where there is no map or no known pixel size."""
    sides = pixel_metres(scene)
    count = None if pixels is None else pixels[k]
    return {"map_pixels": count, "map_square_metres": None if count is None or sides is None else count * sides[0] * sides[1]}


def hectares(value: float | None) -> str:
    """Square metres as hectares; "-" for none."""
    return "-" if value is None else f"{value / 1e4:,.3g}" if value < 1e6 else f"{value / 1e4:,.0f}"


def _study(run: RunDirectory) -> str | None:
    """The study's part of the page, where there is a study in the run's directory or in a folder ``study`` of it."""
    from .study_report import PLOT, fragment

    for path in (run / "study.json", run.path / "study" / "study.json"):
        if path.exists():
            return fragment(read_json(path), embedded(path.with_name(PLOT)))
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
        hectares=hectares,
        picture=shown,
        style=STYLE,
        study=_study(run),
        modality_keys=list(next(iter(report["modalities"].values()), {})),
        config=json.dumps(report["config"], indent=1),
    )
    with atomic(run / "report.html") as beside:
        beside.write_text(page, encoding="utf-8")
