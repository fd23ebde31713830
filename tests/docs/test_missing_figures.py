"""The table on missing sensors, and what the pages quote of it, are those of the committed file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bdgf_fast.report.study_page import difference, signed_interval, spread

ROOT = Path(__file__).resolve().parents[2]
SPLITS = json.loads((ROOT / "bench/results/missing_modality.json").read_text(encoding="utf-8"))["reported"]
SECTION = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## A missing sensor")[1].split("\n## ")[0]
ALONE = "The network that was trained with hiding"
TITLES = {"none": "none", "Sentinel-2": "s2", "Sentinel-1": "s1", "heights": "dem"}


def accuracies(rate: str, key: str) -> dict[str, float]:
    return {seed: rows[f"rate {rate}"][key]["overall_accuracy"] for seed, rows in SPLITS.items()}


def losses(rate: str) -> list[str]:
    means = {key: 100 * np.mean(list(accuracies(rate, key).values())) for key in TITLES.values()}
    return [f"{means['none'] - means[key]:.1f}" for key in ("s2", "s1", "dem")]


def test_the_table():
    section = SECTION.split(ALONE)[0]
    rows = dict(re.findall(r"^\| (none|Sentinel-[12]|heights) \| (.+) \|$", section, re.MULTILINE))
    assert rows.keys() == TITLES.keys() and set(SPLITS) == {"20", "21", "22", "23", "24", "25"}
    for title, key in TITLES.items():
        without, hiding = accuracies("0", key), accuracies("0.3", key)
        said = [spread(list(found.values()), 100) for found in (without, hiding)]
        assert rows[title] == " | ".join([*said, signed_interval(difference(hiding, without))])
    text = " ".join(section.split())
    first, second = losses("0"), losses("0.3")
    said = f"the loss of Sentinel-2 costs {first[0]} points, that of Sentinel-1 {first[1]} and that of the heights {first[2]}"
    assert said in text
    assert f"with hiding {second[0]}, {second[1]} and {second[2]}" in text


def test_the_table_of_networks_without_the_modality():
    section = SECTION.split(ALONE)[1]
    rows = dict(re.findall(r"^\| (Sentinel-[12]|heights) \| (.+) \|$", section, re.MULTILINE))
    assert rows.keys() == TITLES.keys() - {"none"}
    full, lost = 100 * np.mean(list(accuracies("0", "none").values())), []
    for title, figures in rows.items():
        own = {seed: found[f"trained without {TITLES[title]}"]["overall_accuracy"] for seed, found in SPLITS.items()}
        hiding = accuracies("0.3", TITLES[title])
        said = [spread(list(found.values()), 100) for found in (hiding, own)]
        assert figures == " | ".join([*said, signed_interval(difference(hiding, own))])
        lost.append(f"{full - 100 * np.mean(list(own.values())):.1f}")
    assert f"lose {lost[0]}, {lost[1]} and {lost[2]} points against the default with all sensors" in " ".join(section.split())


@pytest.mark.parametrize("page", ["docs/guides/fewer.md"])
def test_what_a_page_quotes(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    never, hiding = losses("0")[0], losses("0.3")[0]
    assert f"loses {never} points of accuracy when Sentinel-2 is missing, and one that had loses {hiding}" in text


def test_the_variants_of_the_demo():
    found = json.loads((ROOT / "bench/results/demo_variants.json").read_text(encoding="utf-8"))["overall_accuracy"]
    section = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("## The built-in scene of the demo")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d+\.\d) \|$", section, re.MULTILINE))
    assert rows == {name: f"{value:.1f}" for name, value in found.items()}
