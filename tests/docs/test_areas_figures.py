"""Every figure of the table of areas and calibration, and those that the guide quotes, is that of the committed file."""

import json
import re
from pathlib import Path

import numpy as np

from bdgf_fast.report.study_page import difference, signed_interval, spread

ROOT = Path(__file__).resolve().parents[2]
REPORTED, DEVELOPMENT = (
    json.loads((ROOT / f"bench/results/{name}.json").read_text(encoding="utf-8"))["splits"]
    for name in ("areas", "areas_development")
)
SECTION = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## Calibration and class areas")[1].split("\n## ")[0]
FIRST = {"area error": "counted in the map", "OA": "training shares", "AA": "training shares", "calibration error": "as trained"}
NAMES = {
    "counted in the map": "counted", "expected by the probabilities": "expected", 'estimated (`priors = "scene"`)': "estimated",
    "training shares": "train", "scene's shares": "scene", "as trained": "uncalibrated", "with the temperature": "calibrated",
    "under the scene's shares": "written",
}  # fmt: skip
GROUPS = {
    "area error": "area_error", "OA": "overall_accuracy", "AA": "average_accuracy",
    "calibration error": "expected_calibration_error",
}  # fmt: skip


def values(splits: dict, group: str, title: str) -> dict[str, float]:
    key, name = GROUPS[group], NAMES.get(title, title)
    return {seed: s["accuracy"][name][key] if group in ("OA", "AA") else s[key][name] for seed, s in splits.items()}


def rows(section: str) -> list[tuple[str, str, str]]:
    return re.findall(r"^\| (area error|OA|AA|calibration error) \| (.+?) \| (.+) \|$", section, re.MULTILINE)


def test_the_reported_table():
    found = rows(SECTION.split("### Reported")[1].split("### Development")[0])
    assert len(found) == 12 and set(REPORTED) == {"20", "21", "22", "23", "24", "25"}
    for group, title, figures in found:
        ours, first = (values(REPORTED, group, t) for t in (title, FIRST[group]))
        said = "" if title == FIRST[group] else " " + signed_interval(difference(ours, first))
        assert figures == f"{spread(list(ours.values()), 100)} |{said}", title


def test_the_table_of_the_development_splits():
    found = rows(SECTION.split("### Development")[1])
    assert len(found) == 14
    for group, title, figures in found:
        per_split = [100 * value for value in values(DEVELOPMENT, group, title).values()]
        assert figures.split(" | ") == [f"{value:.1f}" for value in [*per_split, np.mean(per_split)]], title


def test_what_the_guide_quotes():
    text = " ".join((ROOT / "docs/guides/areas.md").read_text(encoding="utf-8").split())

    def mean(group: str, title: str) -> str:
        return f"{100 * np.mean(list(values(REPORTED, group, title).values())):.1f}"

    counted, expected, estimated = (mean("area error", title) for title in list(NAMES)[:3])
    assert f"{counted} points by counting, {expected} expected, and {estimated} by estimated shares" in text
    train, scene = (mean("OA", title) for title in ("training shares", "scene's shares"))
    assert f"was {train} % under the shares of the training labels and {scene} % under the estimated ones" in text
