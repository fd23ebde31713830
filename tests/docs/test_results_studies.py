"""Tables of the results page on parts of the method, its controls and a student are those of their committed files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.report.study_page import difference, signed_interval, spread

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
DEVELOPED, REPORTED = {"0", "1", "2"}, {"20", "21", "22", "23", "24", "25"}


def loaded(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "bench/results" / name).read_text(encoding="utf-8"))


def section(title: str) -> str:
    return PAGE.split(f"## {title}")[1].split("\n## ")[0].split("\n### ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """First cell of each line of the tables: the other cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines if not set(first) <= set("- :")}


def accuracies(cell: dict[str, Any]) -> dict[str, float]:
    return {seed: found["overall_accuracy"] for seed, found in cell["results"].items()}


def figures(found: dict[str, float], default: dict[str, float]) -> list[str]:
    """Accuracy, and how it differs from the default's."""
    return [spread(list(found.values()), 100), "" if found is default else signed_interval(difference(found, default))]


def test_what_each_part_is_worth():
    study, table = loaded("study_quick_dense.json"), rows(section("What each part is worth"))
    found = {cell["title"]: accuracies(cell) for cell in study["cells"] if not cell["same_as"]}
    assert set(found["default"]) == DEVELOPED
    assert table.keys() - {"cell"} == found.keys()
    for title, values in found.items():
        assert table[title] == figures(values, found["default"])


def test_the_controls_of_the_reported_splits():
    study, table = loaded("study_controls.json"), rows(section("Raw statistics as the guide"))
    cells = {cell["title"]: accuracies(cell) for cell in study["cells"]}
    assert set(cells["default"]) == REPORTED
    for title, found in cells.items():
        assert table[title] == figures(found, cells["default"])
    gain = difference(cells["raw statistics guide"], cells["default"])
    said = f"{-gain['mean']:+z.1f} points ({-gain['high']:+z.1f} to {-gain['low']:+z.1f})"
    assert said in " ".join(section("Raw statistics as the guide").split())


def test_whole_scenes():
    whole, quarter, text = loaded("large_scene.json"), loaded("large_scene_2000.json"), " ".join(section("Time and memory").split())
    assert f"in {whole['seconds'] / 60:.0f} minutes on two cores ({whole['microseconds_per_pixel']:.0f} microseconds per" in text
    assert f"peaked at {whole['peak_mib'] / 1024:.1f} GiB" in text
    slow, student = quarter["default"], quarter["student"]
    minutes = slow["microseconds_per_pixel"] * 16 / 60
    assert f"took {slow['microseconds_per_pixel']:.0f} microseconds per pixel, which would be {minutes:.0f} minutes" in text
    assert f"{student['microseconds_per_pixel']:.0f} microseconds per pixel, reading" in text
    assert f"took {student['seconds']:.0f} seconds" in text


def test_a_student():
    splits, text = loaded("distil.json")["splits"], section("A distilled student")
    table = rows(text)
    assert set(splits) == REPORTED
    for who in ("teacher", "student"):
        spreads = [spread([found[who][key] for found in splits.values()], 100) for key in ("overall_accuracy", "average_accuracy")]
        cost = np.mean([found[who]["microseconds_per_pixel"] for found in splits.values()])
        assert table[who] == [*spreads, f"{cost:.1f}"]
    gap = difference(*({s: found[who]["overall_accuracy"] for s, found in splits.items()} for who in ("student", "teacher")))
    plain = " ".join(text.split())
    assert f"{gap['mean']:+z.1f} points ({gap['low']:+z.1f} to {gap['high']:+z.1f})" in plain
    assert f"agree on {100 * np.mean([found['agreement'] for found in splits.values()]):.0f} % of the test pixels" in plain
    ratio = np.mean([s["teacher"]["microseconds_per_pixel"] / s["student"]["microseconds_per_pixel"] for s in splits.values()])
    assert re.search(rf"\b{ratio:.0f} times less\b", plain)
    assert f"[{ratio:.0f} times less](docs/results.md#a-distilled-student)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_refined_maps():
    study, text = loaded("refine.json"), section("Refined maps")
    assert set(study["splits"]) == REPORTED
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| [de]", line)]
    shown = {(line[0], line[1]): line[2:] for line in lines}
    for labels in ("100", "10"):
        for method, name in (("default", "default"), ("extra trees", "extra trees, statistics at several radii")):
            plain, refined = (
                {seed: found[labels][method + more] for seed, found in study["splits"].items()} for more in ("", ", refined")
            )
            told = [spread(list(values.values()), 100) for values in (plain, refined)]
            assert shown[name, labels] == [*told, signed_interval(difference(refined, plain))]
    cost = np.mean([found["microseconds_per_pixel"] for found in study["splits"].values()])
    assert f"costs {cost:.0f} microseconds per pixel" in text


def test_the_controller_of_the_masking():
    tried, text = loaded("masking_integral.json"), " ".join(section("The network on patches").split())
    old, new = tried["adaptive"][-1], tried["integral"][-1]
    said = [f"{new['balance']:.2f}, where adaptive masking has {old['balance']:.2f}"]
    said += ["{:.2f}, {:.2f} and {:.2f}".format(*found["hidden_r2"]) for found in (new, old)]
    said.append("({:.0f}, {:.0f} and {:.0f} %)".format(*(100 * rate for rate in new["mask_rate"])))
    assert all(words in text for words in said)
