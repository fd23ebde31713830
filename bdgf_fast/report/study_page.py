"""A study's table and the sentences that its figures allow, as HTML and Markdown."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ..config import Config
from .page import STUDY, STUDY_PAGE, STYLE

DEFAULT = "default"
"""Name of the cell that the others are compared with."""
LEVEL = 0.95
PLOT = "differences.png"
HEADS = ("cell", "OA %", "AA %", "kappa", "difference to the default", "verdict", "seeds", "seconds per cell",
         "seconds of pre-training")  # fmt: skip


def difference(values: dict[str, float], default: dict[str, float]) -> dict[str, Any] | None:
    """Paired differences of two cells' accuracies {seed: value}, in points, over the seeds both have.

    Returns ``mean``, ``std`` (n - 1), ``n``, the t interval ``low``..``high`` at ``LEVEL``, and ``verdict``: better, worse, or
    open where the interval holds 0; with one seed std and interval are None and the verdict is open. None without a seed.
    """
    from scipy.stats import t

    seeds = sorted(values.keys() & default.keys(), key=int)
    if not seeds:
        return None
    d = np.array([100 * (values[s] - default[s]) for s in seeds])
    found: dict[str, Any] = {"mean": float(d.mean()), "n": len(d), "std": None, "low": None, "high": None, "verdict": "open"}
    if len(d) > 1:
        half = float(t.ppf(0.5 + LEVEL / 2, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))
        found |= {"std": float(d.std(ddof=1)), "low": found["mean"] - half, "high": found["mean"] + half}
        found["verdict"] = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "open"
    return found


def analyse(study: dict[str, Any]) -> dict[str, Any]:
    """What the templates show: introduction, sentences, rows by group, and the balance table."""
    cells = [dict(c, oa=_values(c, "overall_accuracy")) for c in study["cells"] if c["results"]]
    default: dict[str, Any] = next((c for c in cells if c["name"] == DEFAULT), {"oa": {}})
    for cell in cells:
        itself = DEFAULT in (cell["name"], cell["same_as"])
        cell["difference"] = None if itself else difference(cell["oa"], default["oa"])
    by_group: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        by_group.setdefault(cell["group"], []).append(cell)
    heads, rows = _balance(study, cells)
    return {
        "intro": _intro(study, default),
        "sentences": _sentences(study, cells, default),
        "heads": HEADS,
        "cells": by_group,
        "groups": [(group, [_row(study, cell) for cell in own]) for group, own in by_group.items()],
        "legend": "Mean and standard deviation over seeds. Differences in points of overall accuracy, paired by seed (same split, "
        f"same scored pixels); verdict by the {100 * LEVEL:.0f} % t interval of the mean difference, - where it holds 0 or for "
        "one seed. Seconds: mean of a cell without pre-training; that of its denoisers, which cells share.",
        "balance_heads": heads,
        "balance": rows,
        "balance_legend": "Balance: smallest over largest influence on the features, 1 = balanced. R² on held-out squares with the "
        "modality visible and hidden, same crops, steps and noise for every policy.",
    }


def compared(study: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that differ from the default, in the table's order, each with its ``title``, ``group`` and ``difference``."""
    cells = [c for group in analyse(study)["cells"].values() for c in group]
    return [c for c in cells if c["difference"] is not None and not c["same_as"]]


def fragment(study: dict[str, Any], plot: str | None = None) -> str:
    """The study as a part of an HTML page; ``plot`` is the address of its picture."""
    return STUDY.render(s=analyse(study), plot=plot)


def page(study: dict[str, Any], plot: str | None = None) -> str:
    """The study as a page of its own."""
    config = json.dumps({"versions": study["versions"], "config": study["config"]}, indent=1)
    return STUDY_PAGE.render(title=f"{study['name']}: study", style=STYLE, body=fragment(study, plot), config=config)


def markdown(study: dict[str, Any]) -> str:
    """The study as Markdown, for a README."""
    s = analyse(study)
    lines = [f"# {study['name']}: study", "", s["intro"], ""]
    for sentence in s["sentences"]:
        lines += [sentence, ""]
    lines += _table(s["heads"], [row for _, rows in s["groups"] for row in rows]) + ["", s["legend"], ""]
    if s["balance"]:
        table = _table(s["balance_heads"], s["balance"])
        lines += ["## Modality balance by masking policy", "", *table, "", s["balance_legend"], ""]
    return "\n".join(lines)


# --- table ---


def _table(heads: Any, rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] + ["---:"] * (len(heads) - 1), *rows)]


def _values(cell: dict[str, Any], metric: str) -> dict[str, float]:
    return {seed: result[metric] for seed, result in cell["results"].items()}


def spread(values: list[float], factor: float = 1, digits: int = 1) -> str:
    """Mean and, of several values, standard deviation."""
    v = factor * np.asarray(values, float)
    return f"{v.mean():.{digits}f}" + (f" ± {v.std(ddof=1):.{digits}f}" if len(v) > 1 else "")


def signed_interval(found: dict[str, Any]) -> str:
    """The mean of a ``difference`` with its interval, where there is one."""
    return f"{found['mean']:+z.1f}" + ("" if found["low"] is None else f" ({found['low']:+z.1f} to {found['high']:+z.1f})")


def _signed(found: dict[str, Any]) -> str:
    return f"{found['mean']:+z.1f}" + ("" if found["std"] is None else f" ± {found['std']:.1f}")


def _row(study: dict[str, Any], cell: dict[str, Any]) -> list[str]:
    results = list(cell["results"].values())
    found = cell["difference"]
    if cell["same_as"]:
        told, verdict = f"= {cell['same_as']}", "-"
    elif found is None:
        told, verdict = "-", "-"
    else:
        told, verdict = _signed(found), found["verdict"].replace("open", "-")
    spent = [sum(study["pretraining"][k]["seconds"] for k in r["pretraining"]) for r in results]
    return [
        cell["title"],
        spread([r["overall_accuracy"] for r in results], 100),
        spread([r["average_accuracy"] for r in results], 100),
        spread([r["kappa"] for r in results], digits=3),
        told,
        verdict,
        str(len(results)),
        f"{np.mean([r['seconds'] for r in results]):.0f}",
        f"{np.mean(spent):.0f}" if any(spent) else "-",
    ]


def _balance(study: dict[str, Any], cells: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Balance, and influence and R² of every modality, for each masking policy that was run."""
    rows = []
    for policy, found in _policies(study, cells).items():
        for i, name in enumerate(study["modalities"]):
            row = [policy, spread([f["balance"] for f in found], digits=2)] if i == 0 else ["", ""]
            row.append(name)
            for figure, factor, digits in (("mask_rate", 100, 0), ("influence", 1, 2), ("visible_r2", 1, 2), ("hidden_r2", 1, 2)):
                values = [f["modalities"][name][figure] for f in found]
                row.append("-" if None in values else spread(values, factor, digits))
            rows.append(row)
    return ("policy", "balance", "modality", "hidden in %", "influence", "visible R²", "hidden R²"), rows


def _policies(study: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The pre-trainings of each masking policy's cell; none for one modality."""
    found = {}
    for cell in cells:
        if cell["group"] == "masking":
            facts = [study["pretraining"][k] for r in cell["results"].values() for k in r["pretraining"]]
            facts = [f for f in facts if f["balance"] is not None]
            if facts:
                found[cell["name"].removeprefix("masking-")] = facts
    return found


# --- sentences ---


def _intro(study: dict[str, Any], default: dict[str, Any]) -> str:
    seeds = ", ".join(sorted(default["oa"], key=int)) or "none yet"
    pixels = study["test_pixels"]
    drawn = f"{pixels} random test pixels per seed (all where there are fewer), drawn before any training, the same for every cell"
    scored = drawn if pixels else "all test pixels"
    quick = "meant for at most about 100 s per cell on two cores; the table has the seconds that it took"
    preset = f"{study['preset']} ({quick})" if study["preset"] == "quick" else study["preset"]
    changed = ", ".join(_changed(study["config"], Config().to_dict())) or "none"
    return (f"Scene {study['name']}, preset {preset}; settings other than the built-in ones: {changed}. "
            f"Seeds of the default: {seeds}, each with its own split, weights and noise. "
            f"Scored on {scored}; nothing is selected by them.")  # fmt: skip


def _changed(here: dict[str, Any], there: dict[str, Any], path: str = "") -> list[str]:
    """The values in which a configuration differs from another, as ``section.key=value``."""
    out = []
    for key, value in here.items():
        if isinstance(value, dict):
            out += _changed(value, there.get(key, {}), f"{path}{key}.")
        elif value != there.get(key):
            out.append(f"{path}{key}={value}")
    return out


def _told(cell: dict[str, Any]) -> str:
    found = cell["difference"]
    interval = "" if found["low"] is None else f", {found['low']:+z.1f} to {found['high']:+z.1f}"
    return f"{cell['title']} ({found['mean']:+z.1f}{interval})"


def _sentences(study: dict[str, Any], cells: list[dict[str, Any]], default: dict[str, Any]) -> list[str]:
    compared = [c for c in cells if c["difference"] is not None and not c["same_as"]]
    if not compared:
        return ["No cell can be compared with the default yet."]
    single = [c for c in compared if c["difference"]["n"] < 2]
    compared = [c for c in compared if c["difference"]["n"] > 1]
    if not compared:
        return ["One seed: the differences in the table are not judged. More seeds (--seeds 0 1 2 ...) go into the same study."]
    out = []
    listed = {v: [c for c in compared if c["difference"]["verdict"] == v] for v in ("worse", "better", "open")}
    for verdict, text in (
        ("worse", "Worse than the default, in points with the {level} % interval: {cells}."),
        ("better", "Better than the default: {cells}; there the default is not the best choice on this scene."),
        ("open", "Not significantly different from the default: {cells}."),
    ):
        if listed[verdict]:
            chosen = sorted(listed[verdict], key=lambda c: c["difference"]["mean"])
            out.append(text.format(level=f"{100 * LEVEL:.0f}", cells="; ".join(map(_told, chosen))))
    if single:
        out.append(f"Not judged, with one seed: {'; '.join(c['title'] for c in single)}.")
    out += [s for s in (_baselines(compared, default), _controls(compared), _masking(study, cells), _distances(study)) if s]
    brief = " The quick preset trains briefly, which can change the order: confirm with --preset full."
    quick = brief if study["preset"] == "quick" else ""
    counts = sorted({c["difference"]["n"] for c in compared})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[-1]}"
    out.append(f"Caution: {seeds} seeds are few, and of {len(compared)} comparisons at {100 * LEVEL:.0f} % about "
               f"{len(compared) * (1 - LEVEL):.1f} would stand out by chance alone.{quick}")  # fmt: skip
    return out


def _baselines(compared: list[dict[str, Any]], default: dict[str, Any]) -> str | None:
    rivals = [c for c in compared if c["group"] == "baselines"]
    if not rivals:
        return None
    best = max(rivals, key=lambda c: c["difference"]["mean"])
    ahead, n = -best["difference"]["mean"], best["difference"]["n"]
    told = {"worse": "a significant difference", "better": "a significant difference",
            "open": "not a significant difference"}[best["difference"]["verdict"]]  # fmt: skip
    return (f"The best baseline is {best['title']} ({spread(list(best['oa'].values()), 100)} %); the default "
            f"({spread(list(default['oa'].values()), 100)} %) is {abs(ahead):.1f} points "
            f"{'ahead' if ahead >= 0 else 'behind'} over the {n} seeds both have, {told}.")  # fmt: skip


def _distances(study: dict[str, Any]) -> str | None:
    """The default's accuracy by distance to the training pixels, mean over seeds."""
    entry = next((c for c in study["cells"] if c["name"] == DEFAULT), None)
    results = [r["by_distance"] for r in entry["results"].values() if "by_distance" in r] if entry else []
    if not results:
        return None
    texts = []
    for places in zip(*results, strict=True):
        values = [p["accuracy"] for p in places if p["accuracy"] is not None]
        low, high = places[0]["from"], places[0]["to"]
        if values:
            place = f"up to {high}" if low == 0 else f"{low} to {high}" if high else f"{low} or more"
            texts.append(f"{place} px {100 * np.mean(values):.1f} %")
    return f"Accuracy of the default by distance to the nearest training pixel: {', '.join(texts)}."


def _controls(compared: list[dict[str, Any]]) -> str | None:
    """What the controls say about pre-training and guidance."""
    texts = {
        "untrained-denoiser": ("pre-training the denoiser pays", "an untrained denoiser guides even better",
                               "no gain of pre-training over an untrained denoiser is shown"),
        "raw-statistics": ("diffusion features guide better than raw statistics of the same reach",
                           "raw statistics of the same reach guide better than diffusion features",
                           "no gain of diffusion features over raw statistics of the same reach is shown"),
        "head-statistics-off": ("statistics in the heads pay", "statistics in the heads cost accuracy",
                                "no effect of statistics in the heads is shown"),
        "twins-off": ("unguided copies of the branches pay", "unguided copies of the branches cost accuracy",
                      "no effect of unguided copies of the branches is shown"),
        "forests-off": ("the forests pay", "the forests cost accuracy", "no effect of the forests is shown"),
        "guidance-off": ("guidance pays", "guidance costs accuracy", "no effect of guidance as a whole is shown"),
    }  # fmt: skip
    shown = [c for c in compared if c["name"] in texts]
    found = [texts[c["name"]][("worse", "better", "open").index(c["difference"]["verdict"])] for c in shown]
    return f"Controls: {'; '.join(found)}." if found else None


def _masking(study: dict[str, Any], cells: list[dict[str, Any]]) -> str | None:
    policies = _policies(study, cells)
    if len(policies) < 2:
        return None
    balance = {p: float(np.mean([f["balance"] for f in found])) for p, found in policies.items()}
    oa = {p: np.mean(list(next(c for c in cells if c["name"] == f"masking-{p}")["oa"].values())) for p in policies}
    most, best = max(balance, key=lambda p: balance[p]), max(oa, key=lambda p: oa[p])
    listed = ", ".join(f"{p} {b:.2f}" for p, b in balance.items())
    same = "the same policy" if most == best else f"another one, {best}"
    judged = [c["difference"] for c in cells if c["group"] == "masking" and c["difference"]]
    told = "" if any(d["verdict"] != "open" for d in judged) else ", not a significant difference with these seeds"
    spread = 100 * (max(oa.values()) - min(oa.values()))
    return (f"Masking: balance by policy {listed}; the most balanced is {most}, the highest mean accuracy has {same} "
            f"({100 * oa[best]:.1f} %; the policies lie {spread:.1f} points apart{told}).")  # fmt: skip
