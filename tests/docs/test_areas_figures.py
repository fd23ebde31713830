"""Every figure of the table of areas and calibration, and those that the guide quotes, is that of the committed file."""

import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SPLITS = json.loads((ROOT / "bench/results/areas_development.json").read_text(encoding="utf-8"))["splits"]
SECTION = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## Calibration and class areas")[1].split("\n## ")[0]
NAMES = {
    "counted in the map": "counted", "expected by the probabilities": "expected", 'estimated (`priors = "scene"`)': "estimated",
    "training shares": "train", "scene's shares": "scene", "as trained": "uncalibrated", "with the temperature": "calibrated",
    "under the scene's shares": "written",
}  # fmt: skip
GROUPS = {
    "area error": "area_error", "OA": "overall_accuracy", "AA": "average_accuracy",
    "calibration error": "expected_calibration_error",
}  # fmt: skip


def values(group: str, title: str) -> list[float]:
    key, name = GROUPS[group], NAMES.get(title, title)
    found = [s["accuracy"][name][key] if group in ("OA", "AA") else s[key][name] for s in SPLITS.values()]
    return [100 * value for value in [*found, np.mean(found)]]


def test_the_table():
    rows = re.findall(r"^\| (area error|OA|AA|calibration error) \| (.+?) \| (.+) \|$", SECTION, re.MULTILINE)
    assert len(rows) == 14
    for group, title, figures in rows:
        assert figures.split(" | ") == [f"{value:.1f}" for value in values(group, title)], title


def test_what_the_guide_quotes():
    text = " ".join((ROOT / "docs/guides/areas.md").read_text(encoding="utf-8").split())
    counted, expected, estimated = (values("area error", title)[-1] for title in list(NAMES)[:3])
    assert f"{counted:.1f} points by counting, {expected:.1f} expected, and {estimated:.1f} by estimated shares" in text
    train, scene = (values("OA", title)[-1] for title in ("training shares", "scene's shares"))
    assert f"was {train:.1f} % under the shares of the training labels and {scene:.1f} % under the estimated ones" in text
