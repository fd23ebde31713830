"""What mkdocs does to a page beside Markdown: measured figures from the benchmark's file, and formulas as MathML.

`<!-- measured: PREFIX ... -->` becomes a table of the rows of bench/results/cpu.json whose group starts with a prefix;
`<!-- known sets -->` a table of the data sets known by name. What follows up to `<!-- end -->` is for readers of the plain file, and
goes;
links to bench/results/*.json, which lie outside of docs/, lead to copies of these files on the site;
fenced `math` blocks and inline dollar-backtick formulas (GitHub's own forms) become MathML, so that no script is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results/cpu.json"
_MEASURED = re.compile(r"<!-- measured: ([^>]+?) -->.*?<!-- end -->", re.DOTALL)
_KNOWN = re.compile(r"<!-- known sets -->.*?<!-- end -->", re.DOTALL)
_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RESULT_LINK = re.compile(r"\]\((?:\.\./)+bench/results/([\w.]+)\)")
_INLINE = re.compile(r"\$`(.+?)`\$")
_formulas: list[str] = []


def _summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_summary", ROOT / "bench/summary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(prefixes: list[str], data: dict[str, Any]) -> str:
    """The rows of a benchmark file whose group starts with one of the prefixes, as a Markdown table with its machine."""
    summary = _summary()
    rows = [row for row in summary.rows(data) if row["group"].split(" ")[0] in prefixes]
    if not rows:
        return f"`bench/results/{RESULTS.name}` of {data['datetime'][:10]} holds no row for this operation; `make bench` renews it."
    cpu = data["machine_info"]["cpu"]
    where = f"{cpu['count']} cores of {cpu['brand_raw']}, {data['datetime'][:10]}"
    machine = f"{where}; smaller times are better, and every case first passed a correctness gate."
    disturbed = data["machine_info"]["bdgf"]["disturbed"]
    note = "\n\nOther work disturbed this run (the measured limit moved by more than 10 %): the ratios are indications only."
    return f"{summary.markdown(rows)}\n\n{machine}{note if disturbed else ''}"


def known_sets() -> str:
    """The data sets known by name, from their tables."""
    lines = ["| name | set | rows x columns | modalities (bands) | classes |", "|---|---|---|---|---|"]
    for file in sorted((ROOT / "bdgf_fast/data/known").glob("*.toml")):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        sizes = " or ".join(f"{rows} x {columns}" for rows, columns in table["sizes"])
        modalities = ", ".join(f"{m['name']} ({m['bands']})" if "bands" in m else m["name"] for m in table["modality"])
        lines.append(f"| `{file.stem}` | {table['title']} | {sizes} | {modalities} | {len(table['classes'])} |")
    return "\n".join(lines)


def _formula(text: str, display: str) -> str:
    from latex2mathml.converter import convert

    _formulas.append(convert(text.strip(), display=display))
    return f"BDGFFORMULA{len(_formulas) - 1}END"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    from mkdocs.structure.files import File

    for path in sorted(RESULTS.parent.glob("*.json")):
        files.append(File.generated(config, f"files/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    up = "../" * page.file.src_uri.count("/")
    markdown = _RESULT_LINK.sub(lambda found: f"]({up}files/{found[1]})", markdown)
    data = json.loads(RESULTS.read_text())
    markdown = _MEASURED.sub(lambda found: measured(found[1].split(), data), markdown)
    markdown = _KNOWN.sub(lambda found: known_sets(), markdown)
    markdown = _BLOCK.sub(lambda found: _formula(found[1], "block"), markdown)
    return _INLINE.sub(lambda found: _formula(found[1], "inline"), markdown)


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(r"BDGFFORMULA(\d+)END", lambda found: _formulas[int(found[1])], html)
