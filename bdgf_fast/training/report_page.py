"""Templates of the HTML pages. The pages hold their pictures, so that one file can be sent by mail."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

STYLE = """
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
 table { border-collapse: collapse; margin: .5rem 0 } th, td { padding: .15rem .8rem; text-align: right; white-space: nowrap }
 th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #888 }
 .words td:nth-child(3) { text-align: left } .inputs td:nth-child(2) { text-align: left; white-space: normal }
 tr.best td { font-weight: 600 } tr.group td { padding-top: .6rem; color: #666; font-style: italic }
 .scroll { overflow-x: auto; font-size: 14px } .scroll th, .scroll td { padding: .12rem .45rem }
 .scroll th { white-space: normal; vertical-align: bottom }
 img { max-width: 100%; height: auto } .swatch { display: inline-block; width: .8em; height: .8em;
 margin-right: .5em; border: 1px solid #999 } .note { color: #666 } pre { overflow-x: auto; background: #f6f6f6; padding: 1rem }
 img.small { max-width: 36rem; width: 100% }
 .pair { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start } .pair > * { flex: 1 1 24rem; min-width: 0 }
"""

_ENVIRONMENT = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

PAGE = _ENVIRONMENT.from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ r.name }}: BDGF report</title><style>{{ style|safe }}</style></head><body>
<h1>{{ r.name }}</h1>
<p>Overall accuracy <b>{{ pct(r.overall_accuracy) }} %</b>, average accuracy <b>{{ pct(r.average_accuracy) }} %</b>,
kappa <b>{{ "%.3f"|format(r.kappa) }}</b> on {{ "{:,}".format(r.test_pixels) }} test pixels;
{{ "{:,}".format(r.train_pixels) }} training pixels, seed {{ r.seed }}.
Split: {{ r.split.kind }}, gap {{ r.split.gap }} px. {{ r.split.notes|join(' ') }}</p>
<p>A pixel's class may depend on bands up to {{ r.reach }} px away; test pixels may be as close to training pixels as the gap
allows. Accuracy by distance to the nearest training pixel:
{% for d in r.by_distance if d.pixels %}
{{ "%d to %d"|format(d.from, d.to) if d.to is not none else "%d or more"|format(d.from) }} px
{{ pct(d.accuracy) }} % ({{ "{:,}".format(d.pixels) }} pixels){{ "; " if not loop.last else "." }}
{% endfor %}</p>
{% for note in r.notes %}<p>{{ note }}</p>
{% endfor %}
<h2>Inputs</h2>
<table class="inputs"><thead><tr><th>modality</th><th>file</th><th>bands</th><th>rows x columns</th><th>CRS</th><th>pixel</th></tr>
</thead><tbody>
{% for m in r.inputs %}<tr><td>{{ m.name }}</td><td>{{ m.files[:3]|join(", ") }}{{ ", ..." if m.files|length > 3 else "" }}</td>
<td>{{ m.bands }}</td><td>{{ m.size[0] }} x {{ m.size[1] }}</td><td>{{ m.crs or "-" }}</td><td>{{ m.pixel or "-" }}</td></tr>
{% endfor %}</tbody></table>
<h2>Beside it, on the same split</h2>
<table><thead><tr><th>method</th><th>OA %</th><th>AA %</th><th>kappa</th></tr></thead><tbody>
{% for row in rows %}<tr{{ ' class="best"'|safe if row.best else '' }}><td>{{ row.name }}</td>
<td>{{ pct(row.overall_accuracy) }}</td>
<td>{{ pct(row.average_accuracy) }}</td><td>{{ "%.3f"|format(row.kappa) }}</td></tr>{% endfor %}
</tbody></table>
<p class="note">Best overall accuracy in bold. No epoch and no setting was chosen by the test pixels.</p>
{% if picture.map %}<h2>Map</h2>
<p><a href="map.tif">map.tif</a> (the classes) and <a href="probabilities.tif">probabilities.tif</a> lie beside this page.
{% if r.map and r.map.stride > 1 %}
The map is coarse: it was predicted in one of every {{ r.map.stride }} rows and columns, and interpolated between them. The
figures on this page are of the test pixels themselves, not of this map.{% endif %}</p>
<img src="{{ picture.map }}" alt="false colour, labels, classification and errors">{% endif %}
<h2>Classes</h2>
<div class="scroll">
<table><thead><tr><th>class</th><th>code</th><th>training pixels</th><th>test pixels</th><th>producer's accuracy %</th>
<th>user's accuracy %</th><th>F1 %</th><th>IoU %</th><th>pixels in the map</th><th>hectares in the map</th></tr></thead><tbody>
{% for c in r.classes %}<tr><td><span class="swatch" style="background: rgb({{ c.colour|join(',') }})"></span>{{ c.name }}</td>
<td>{{ c.code }}</td><td>{{ c.train }}</td><td>{{ c.test }}</td>
<td>{{ pct(c.producers_accuracy) }}</td><td>{{ pct(c.users_accuracy) }}</td><td>{{ pct(c.f1) }}</td><td>{{ pct(c.iou) }}</td>
<td>{{ "{:,}".format(c.map_pixels) if c.map_pixels is not none else "-" }}</td><td>{{ hectares(c.map_square_metres) }}</td></tr>
{% endfor %}
</tbody></table></div>
<p class="note">Producer's accuracy: the share of a class's test pixels that are called by its name. User's accuracy: the share of
the test pixels called by its name that belong to it. IoU: pixels in both over pixels in either.</p>
<img class="small" src="{{ picture.confusion }}" alt="confusion matrix">
<h2>Members</h2>
<table><thead><tr><th>branch or forest</th><th>OA %</th></tr></thead><tbody>
{% for name, value in r.branches.items() %}<tr><td>{{ name }}</td><td>{{ pct(value) }}</td></tr>{% endfor %}
</tbody></table>
{% if r.branches|length > 1 %}
<p>Two members disagree on {{ pct(r.diversity.disagreement) }} % of the test pixels (mean over pairs); at least one is right on
{{ pct(r.diversity.any_right) }} %, all are right on {{ pct(r.diversity.all_right) }} %.</p>
{% endif %}
{% if picture.tsne %}<h3>t-SNE of the pooled features, a random few hundred test pixels</h3>
<img src="{{ picture.tsne }}" alt="t-SNE of the branches and the fusion">{% endif %}
<h2>Training</h2>
<img src="{{ picture.losses }}" alt="loss curves">
{% if r.modalities %}
<h2>Modalities in the diffusion model</h2>
<div class="scroll"><table><thead><tr><th>modality</th>
{% for key in modality_keys %}<th>{{ key|replace("_", " ")|replace("r2", "R²") }}</th>{% endfor %}</tr></thead><tbody>
{% for name, facts in r.modalities.items() %}<tr><td>{{ name }}</td>
{% for key in modality_keys %}<td>{{ "%.3f"|format(facts[key]) if facts[key] is not none else "-" }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="note">Balance (smallest over largest influence):
{{ "%.2f"|format(r.balance) if r.balance is not none else "one modality" }}. Influence: how much the features change when this
modality alone comes from elsewhere. R² on held-out squares, with the modality visible and hidden.</p>
{% if picture.mask_rates %}<img class="small" src="{{ picture.mask_rates }}" alt="mask rates over time">{% endif %}
{% elif r.features == "none" %}<p>Nothing guided the network: all guidance was switched off, and no diffusion model was
trained.</p>
{% else %}<p>Feature maps of another model guided the network: {{ r.features|join(", ") }}.</p>{% endif %}
{% if study %}<h2>Study</h2>{{ study|safe }}{% endif %}
<h2>Time and memory</h2>
<table><tbody>
{% for stage, seconds in r.seconds.items() %}<tr><td>{{ stage }}</td><td>{{ "%.1f"|format(seconds) }} s</td></tr>{% endfor %}
{% if r.peak_memory_bytes %}<tr><td>peak resident memory</td>
<td>{{ "%.2f"|format(r.peak_memory_bytes / 2**30) }} GiB</td></tr>{% endif %}</tbody></table>
<h2>Versions and configuration</h2>
<details><summary>show</summary><pre>{% for name, value in r.versions.items() %}{{ name }} {{ value }}
{% endfor %}
{{ config }}</pre></details>
</body></html>
""")

STUDY = _ENVIRONMENT.from_string("""
<p>{{ s.intro }}</p>
{% for sentence in s.sentences %}<p>{{ sentence }}</p>{% endfor %}
{% if plot %}<img src="{{ plot }}" alt="paired differences to the default with their intervals">{% endif %}
<div class="scroll"><table><thead><tr>{% for head in s.heads %}<th>{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for group, rows in s.groups %}<tr class="group"><td colspan="{{ s.heads|length }}">{{ group }}</td></tr>
{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}{% endfor %}
</tbody></table></div>
<p class="note">{{ s.legend }}</p>
{% if s.balance %}<h3>Modality balance by masking policy</h3>
<div class="scroll"><table class="words"><thead><tr>
{% for head in s.balance_heads %}<th>{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for row in s.balance %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div><p class="note">{{ s.balance_legend }}</p>{% endif %}
""")

STUDY_PAGE = _ENVIRONMENT.from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style|safe }}</style></head><body><h1>{{ title }}</h1>
{{ body|safe }}
<h2>Versions and configuration of the default</h2><details><summary>show</summary><pre>{{ config }}</pre></details>
</body></html>
""")


def embedded(path: Path) -> str | None:
    """A PNG file as a data URI; None where there is none."""
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
