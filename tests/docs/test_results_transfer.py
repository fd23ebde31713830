"""The table of accuracies across scenes is made from the committed file, and what is said of it follows from it."""

import importlib.util
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
RESULT = json.loads((ROOT / "bench/results/transfer.json").read_text(encoding="utf-8"))
SECTION = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## Across scenes")[1].split("\n## ")[0]


def bench():
    spec = importlib.util.spec_from_file_location("bench_transfer", ROOT / "bench/transfer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METHOD, TREES = "BDGF", "extra trees, statistics at several radii"


def gains(method: str) -> dict[str, list[float]]:
    """Points that alignment gains in each run, by the case."""
    out: dict[str, list[float]] = {}
    directions = bench().DIRECTIONS
    for case, run in RESULT["runs"].items():
        for target, rows in run["targets"].items():
            plain, aligned = (100 * rows[way][method]["overall_accuracy"] for way in ("none", "scene"))
            out.setdefault("halves" if case.split("/")[0] in directions else target, []).append(aligned - plain)
    return out


def leads() -> dict[str, float]:
    """Points that the method is ahead of the best forest with the bands as they are, by the column."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in bench().table(RESULT)]
    plain = {row[0]: [float(value) for value in row[2:]] for row in table[2:] if row[1] == "as they are"}
    ours = plain.pop(METHOD)
    return {name: own - max(column) for name, own, *column in zip(table[0][2:], ours, *plain.values(), strict=True)}


def test_the_table_is_that_of_the_file():
    assert "\n".join(bench().table(RESULT)) in SECTION


def test_what_is_said_follows():
    text, trees, method = " ".join(SECTION.split()), gains(TREES), gains(METHOD)
    for found in (trees, method):
        assert len(found["halves"]) == 4 and max(found["halves"]) < 0
        assert f"alignment is worth {np.mean(found['sensor']):.0f} points" in text
    costs = [-np.mean(found["halves"]) for found in (trees, method)]
    assert f"it costs extra trees {costs[0]:.0f} points and the method {costs[1]:.0f}, with a loss in each" in text
    gain, loss = np.mean(trees["season"]), -np.mean(method["season"])
    assert f"there alignment gains extra trees {gain:.0f} points and costs the method {loss:.0f}" in text
    ahead = leads()
    said = f"by {ahead['halves of the tile']:.1f} points between the halves, {ahead['season']:.1f} in another season, and "
    assert said + f"{ahead['season and sensor']:.1f} in another season with other sensors" in text
