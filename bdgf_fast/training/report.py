"""Pictures and the one-page HTML of a run, made from its report.json and history.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import matplotlib

from ..data.export import atomic
from .rundir import RunDirectory, read_json

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first: there may be no display)

_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ r.name }}: BDGF report</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
 table { border-collapse: collapse; margin: .5rem 0 } th, td { padding: .15rem .8rem; text-align: right }
 th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #888 }
 tr.best td { font-weight: 600 } img { max-width: 100% } .swatch { display: inline-block; width: .8em; height: .8em;
 margin-right: .5em; border: 1px solid #999 } .note { color: #666 } pre { overflow-x: auto; background: #f6f6f6; padding: 1rem }
</style></head><body>
<h1>{{ r.name }}</h1>
<p>Overall accuracy <b>{{ pct(r.overall_accuracy) }}</b>, average accuracy <b>{{ pct(r.average_accuracy) }}</b>,
kappa <b>{{ "%.3f"|format(r.kappa) }}</b> on {{ r.test_pixels }} test pixels;
{{ r.train_pixels }} training pixels, seed {{ r.seed }}.
Split: {{ r.split.kind }}, gap {{ r.split.gap }} px. {{ r.split.notes|join(' ') }}</p>
<h2>Beside it, on the same split</h2>
<table><thead><tr><th>method</th><th>OA %</th><th>AA %</th><th>kappa</th></tr></thead><tbody>
{% for row in rows %}<tr{{ ' class="best"' if row.best else '' }}><td>{{ row.name }}</td><td>{{ pct(row.overall_accuracy) }}</td>
<td>{{ pct(row.average_accuracy) }}</td><td>{{ "%.3f"|format(row.kappa) }}</td></tr>{% endfor %}
</tbody></table>
<h2>Map</h2><img src="map.png" alt="classification map">
<h2>Classes</h2>
<table><thead><tr><th>class</th><th>code</th><th>training</th><th>test</th><th>accuracy %</th></tr></thead><tbody>
{% for c in r.classes %}<tr><td><span class="swatch" style="background: rgb({{ c.colour|join(',') }})"></span>{{ c.name }}</td>
<td>{{ c.code }}</td><td>{{ c.train }}</td><td>{{ c.test }}</td>
<td>{{ pct(r.per_class[c.name]) if r.per_class[c.name] is not none else "-" }}</td></tr>{% endfor %}
</tbody></table>
<img src="confusion.png" alt="confusion matrix">
<h2>Branches</h2>
<table><thead><tr><th>branch</th><th>OA %</th></tr></thead><tbody>
{% for name, value in r.branches.items() %}<tr><td>{{ name }}</td><td>{{ pct(value) }}</td></tr>{% endfor %}
</tbody></table>
<p>{% for name, value in r.diversity.items() %}
{{ name|replace("_", " ") }} {{ pct(value) }}{{ "; " if not loop.last }}
{% endfor %}</p>
<h2>Modalities in the diffusion model</h2>
<table><thead><tr><th>modality</th>
{% for key in modality_keys %}<th>{{ key|replace("_", " ") }}</th>{% endfor %}</tr></thead><tbody>
{% for name, facts in r.modalities.items() %}<tr><td>{{ name }}</td>
{% for key in modality_keys %}<td>{{ "%.3f"|format(facts[key]) if facts[key] is not none else "-" }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
<p class="note">Balance (smallest over largest influence):
{{ "%.2f"|format(r.balance) if r.balance is not none else "one modality" }}.</p>
<img src="losses.png" alt="loss curves">
<h2>Time and memory</h2>
<table><tbody>
{% for stage, seconds in r.seconds.items() %}<tr><td>{{ stage }}</td><td>{{ "%.1f"|format(seconds) }} s</td></tr>{% endfor %}
<tr><td>peak resident memory</td><td>{{ "%.2f"|format(r.peak_memory_bytes / 2**30) }} GiB</td></tr></tbody></table>
<h2>Versions and configuration</h2>
<pre>{% for name, value in r.versions.items() %}{{ name }} {{ value }}
{% endfor %}
{{ config }}</pre>
</body></html>
""")


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


def _losses(history: dict[str, Any], path: Path) -> None:
    stages = [(name, history[name]["curves"]) for name in ("pretrain", "train") if name in history]
    figure, axes = plt.subplots(1, len(stages), figsize=(5.5 * len(stages), 3.6), layout="constrained", squeeze=False)
    for axis, (name, curves) in zip(axes[0], stages, strict=True):
        for label, values in curves["series"].items():
            axis.plot(curves["step"], values, label=label, linewidth=1.2)
        axis.set_title({"pretrain": "diffusion model", "train": "group network"}[name])
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    with atomic(path) as beside:
        figure.savefig(beside, dpi=130)
    plt.close(figure)


def _confusion(report: dict[str, Any], path: Path) -> None:
    import numpy as np

    matrix = np.asarray(report["confusion_matrix"], float)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [entry["name"] for entry in report["classes"]]
    side = 2.5 + 0.55 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("label")
    if len(names) <= 20:
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 0.55 else "black"
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, label="% of the label's test pixels", shrink=0.8)
    with atomic(path) as beside:
        figure.savefig(beside, dpi=130)
    plt.close(figure)


def render(run: RunDirectory) -> None:
    """Write losses.png, confusion.png and report.html from the JSON files of `run`."""
    import json

    report, history = read_json(run / "report.json"), read_json(run / "history.json")
    _losses(history, run / "losses.png")
    _confusion(report, run / "confusion.png")
    page = _PAGE.render(
        r=report,
        rows=comparison(report),
        pct=percent,
        modality_keys=list(next(iter(report["modalities"].values()), {})),
        config=json.dumps(report["config"], indent=1),
    )
    with atomic(run / "report.html") as beside:
        beside.write_text(page, encoding="utf-8")
