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


def gains() -> dict[str, list[float]]:
    """Points that alignment gains in each run, by the case."""
    out: dict[str, list[float]] = {}
    directions = bench().DIRECTIONS
    for case, run in RESULT["runs"].items():
        (rows,) = run["targets"].values()
        plain, aligned = (100 * next(iter(rows[way].values()))["overall_accuracy"] for way in ("none", "scene"))
        name = case.split("/")[0]
        out.setdefault("halves" if name in directions else name, []).append(aligned - plain)
    return out


def test_the_table_is_that_of_the_file():
    assert "\n".join(bench().table(RESULT)) in SECTION


def test_what_is_said_follows():
    found = gains()
    assert len(found["halves"]) == 4 and max(found["halves"]) < 0
    assert f"cost {-np.mean(found['halves']):.0f} points" in SECTION
    assert f"alignment is worth {np.mean(found['sensor']):.0f} points" in SECTION
    assert f"there it gains {np.mean(found['season']):.0f} points" in SECTION
