"""The tables over the number of labels, and what the pages quote of them, are those of the committed file."""

import json
from pathlib import Path

from bdgf_fast.studies.label_curve import markdown

ROOT = Path(__file__).resolve().parents[2]
TREES = "extra-trees-statistics-at-several-radii"
FOUND = json.loads((ROOT / "bench/results/label_curve.json").read_text(encoding="utf-8"))
SECTION = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## Few labels")[1].split("\n## ")[0]


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def test_the_tables():
    assert rows(SECTION) == rows(markdown(FOUND))
    seeds = {tuple(cell[str(n)]["oa"]) for cell in FOUND["cells"].values() for n in FOUND["labels"] if str(n) in cell}
    assert seeds == {("20", "21", "22", "23", "24", "25")}


def ahead_of(cell: str, labels: int) -> tuple[str, str]:
    """How far the default is ahead of a cell in points, and the interval, as the pages write them."""
    found = FOUND["cells"][cell][str(labels)]["difference"]
    return f"{-found['mean']:.1f}", f"({-found['high']:.1f} to {-found['low']:.1f})"


def test_what_the_pages_quote():
    (trees, of_trees), (guidance, of_guidance) = (ahead_of(cell, 20) for cell in (TREES, "guidance-off"))
    readme, guide = (" ".join((ROOT / page).read_text(encoding="utf-8").split()) for page in ("README.md", "docs/guides/fewer.md"))
    assert f"With 20 labels per class it is {trees} points ahead of extra trees {of_trees}" in readme
    assert f"and guidance gains {guidance} points {of_guidance}" in readme
    assert f"with 20 labels per class it is {trees} points ahead of the best forest without features {of_trees}" in guide
    for cell in (TREES, "guidance-off", "untrained-denoiser"):
        for labels in (10, 20):
            points, interval = ahead_of(cell, labels)
            assert f"{points} points {interval}" in " ".join(SECTION.split()), (cell, labels)
