"""Writes the table of docs/operations/gpu.md from a results file: `python docs/_build/gpu_table.py`. A test compares the two."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results/nvidia-h200.json"
PAGE = ROOT / "docs/operations/gpu.md"
START, END = "<!-- table -->\n", "<!-- end of table -->"


def table() -> str:
    """One line per row of the results."""
    lines = ["| operation, direction, shape, type | CUDA | Triton | fastest baseline | ratio |", "|---|---|---|---|---|"]
    for row in json.loads(RESULTS.read_text(encoding="utf-8"))["benchmarks"]:
        ms = row["ms"]
        peers = {who: time for who, time in ms.items() if not who.startswith("ours")}
        best = min(peers, key=peers.__getitem__) if peers else None
        cells = [f"{ms[who]:.3f}" if who in ms else "wrong" if who in row["failed"] else "" for who in ("ours cuda", "ours triton")]
        cells.append("" if best is None else f"{peers[best]:.3f} ({best})")
        cells.append(f"{row['ratio']:.2f}" if row.get("ratio") else "")
        lines.append("| " + " | ".join([row["group"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def page_with_table(text: str) -> str:
    """The page with its table as the results say."""
    return re.sub(f"{START}.*?{END}", lambda _: START + table() + END, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
