"""A run's report.json and its page, from what its stages left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import Config
from ..data import PreparedScene
from ..files.json_files import read_json, write_json
from ..network.reach import reach
from ..report.areas import area_table, write_areas
from ..report.metrics import METRICS, by_class
from ..report.run_page import area, inputs, render
from .pretrained import note_of
from .run_directory import STAGES, RunDirectory
from .scoring import is_scored
from .versions import versions


def write_report(
    directory: RunDirectory, prepared: PreparedScene, config: Config, seed: int, guide: str, result: dict[str, Any],
    baselines: dict[str, Any], notes: Sequence[str], given: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write report.json, report.html and its pictures; returns the content of report.json.

    Args:
        guide: what guides the network, as in ``Run.guide``.
        result: accuracy on the test pixels, as ``report.evaluation.score`` gives it, and what ``scoring.trust`` does.
        baselines: accuracy of each, by its name.
        notes: sentences for the page.
        given: facts about a denoiser that took the place of stage 1.
    """
    scene, split = prepared.scene, prepared.split
    assert split is not None, "a report needs the split's test pixels"
    history = read_json(directory / "history.json")
    stage1 = history.get("pretrain", {"modalities": {}, "balance": None})  # left out where no denoiser guides
    classes, counts = prepared.classes, split.counts
    predicted = directory.facts("predict")
    measures = by_class(result["confusion_matrix"])
    areas = None
    if "counted" in predicted:
        areas = area_table(classes, predicted, result["confusion_matrix"] if is_scored(predicted, config) else None)
        write_areas(directory / "areas.csv", areas)
    report = {
        "name": scene.name,
        **{key: result[key] for key in METRICS},
        "per_class": {info.name: value for info, value in zip(classes, result["per_class"], strict=True)},
        "confusion_matrix": result["confusion_matrix"],
        "classes": [{"code": info.code, "name": info.name, "colour": list(info.colour), "train": counts["train"][k],
                     "test": counts["test"][k], **measures[k], **area(predicted, k)}
                    for k, info in enumerate(classes)],
        "inputs": inputs(scene, prepared.modality_names),
        "map": {key: predicted[key] for key in ("stride", "precision", "refine") if key in predicted} or None,
        "refine": config.predict.refine,
        "branches": result["branches"],
        "diversity": result["diversity"],
        "calibration": result["calibration"],
        "priors": result["priors"],
        "areas": areas,
        "without": result.get("without"),
        "teacher": result.get("teacher"),
        "modalities": {name: {"loss": (stage1["curves"]["series"][name] or [None])[-1], **facts}
                       for name, facts in stage1["modalities"].items()},
        "balance": stage1["balance"],
        "features": config.features.path if guide == "maps" else guide,
        "baselines": baselines,
        "denoiser": given,
        "notes": [*notes, *([] if given is None else [note_of(given)])],
        "train_pixels": len(split.train),
        "test_pixels": len(split.test),
        "split": split.summary(),
        "reach": reach(config),
        "by_distance": result["by_distance"],
        "normalisation": "fitted on the training side" if given is None else "that of the denoiser",
        "pretrain_region": config.pretrain.region,
        "seconds": {stage: directory.facts(stage).get("seconds", 0.0) for stage in STAGES},
        "peak_memory_bytes": max(facts.get("peak_memory_bytes", 0) for facts in directory.state["stages"].values()),
        "versions": versions(),
        "seed": seed,
        "config": config.to_dict(),
    }
    write_json(directory / "report.json", report)
    render(directory.path, with_map=directory.done("predict"))
    return report
