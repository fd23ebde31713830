"""The one-page HTML of a run and its pictures, made from the files of the run alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Scene
from ..data.sources.grid import pixel_metres
from ..files.atomic import atomic
from ..files.json_files import read_json
from . import pictures
from .areas import HECTARE
from .embedding import EMBEDDING
from .page import PAGE, STYLE, embedded
from .study_page import PLOT, fragment


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
        files = dict.fromkeys(Path(source).name for raster, _ in modality.parts for source in raster.sources)
        found.append({"name": modality.name, "files": list(files), "bands": len(modality.bands),
                      "size": [modality.height, modality.width], "crs": crs, "pixel": pixel})  # fmt: skip
    return found


def area(predicted: dict[str, Any], k: int) -> dict[str, Any]:
    """Pixels of the k-th class in the map and their square metres, None where there is no map or no known pixel size."""
    known = predicted.get("on_ground", False)
    return {"map_pixels": predicted["pixels"][k] if "pixels" in predicted else None,
            "map_square_metres": predicted["counted"][k] if known else None}  # fmt: skip


def amount(value: float | None) -> str:
    """An area with at least three digits, or a whole number; "-" for none."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{min(2 - math.floor(math.log10(value)), 4)}f}"


def hectares(value: float | None) -> str:
    """Square metres as hectares; "-" for none."""
    return amount(None if value is None else value / HECTARE)


def _study(folder: Path) -> str | None:
    """The study's part of the page, where there is a study in the run's directory or in a folder ``study`` of it."""
    for path in (folder / "study.json", folder / "study" / "study.json"):
        if path.exists():
            return fragment(read_json(path), embedded(path.with_name(PLOT)))
    return None


def render(folder: Path, *, with_map: bool) -> None:
    """Write the pictures and report.html of the run in ``folder`` from its JSON files, the stored t-SNE and map.png.

    Args:
        with_map: whether map.png is the run's own and not one of a prediction that has been taken back.
    """
    report, history = read_json(folder / "report.json"), read_json(folder / "history.json")
    pictures.losses(history, folder / "losses.png")
    pictures.mask_rates(history, folder / "mask_rates.png")
    pictures.confusion(report, folder / "confusion.png")
    pictures.reliability(report.get("calibration"), folder / "reliability.png")
    pictures.tsne(folder / "checkpoints" / EMBEDDING, report["classes"], folder / "tsne.png")
    shown = {name: embedded(folder / f"{name}.png") for name in ("losses", "mask_rates", "confusion", "tsne", "reliability")}
    shown["map"] = embedded(folder / "map.png") if with_map else None
    page = PAGE.render(
        r=report,
        rows=comparison(report),
        pct=percent,
        hectares=hectares,
        amount=amount,
        picture=shown,
        style=STYLE,
        study=_study(folder),
        modality_keys=list(next(iter(report["modalities"].values()), {})),
        config=json.dumps(report["config"], indent=1),
    )
    with atomic(folder / "report.html") as beside:
        beside.write_text(page, encoding="utf-8")
