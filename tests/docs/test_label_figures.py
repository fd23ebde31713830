"""The tables over the number of labels, and what the pages quote of them, are those of the committed file."""

import json
import re
from pathlib import Path

from bdgf_fast.report.study_page import signed_interval
from bdgf_fast.studies.label_curve import markdown

ROOT = Path(__file__).resolve().parents[2]
FOUND = json.loads((ROOT / "bench/results/label_curve.json").read_text(encoding="utf-8"))


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def test_the_tables():
    section = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## Few labels")[1].split("\n## ")[0]
    assert rows(section) == rows(markdown(FOUND))
    seeds = {tuple(cell[str(n)]["oa"]) for cell in FOUND["cells"].values() for n in FOUND["labels"] if str(n) in cell}
    assert seeds == {("20", "21", "22", "23", "24", "25")}
