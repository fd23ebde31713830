"""The table of docs/operations/gpu.md is what the committed results say."""

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs/_build/gpu_table.py"


def test_the_table_is_that_of_the_results():
    spec = importlib.util.spec_from_file_location("gpu_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.table() in text
    assert module.page_with_table(text) == text


def test_the_readme_s_predicted_ratios_are_those_of_the_file():
    rows = json.loads((ROOT / "bench/results/sm_90_predicted.json").read_text(encoding="utf-8"))["rows"]
    short = re.compile(r"selective_scan \(\d+, 128, (49|121|256), 16\)")
    some = [row["ratio"] for row in rows if short.match(row["case"]) and row.get("ratio")]
    said = f"for the present kernels {min(some):.1f} to {max(some):.1f} times is *predicted*"
    assert len(some) == 14 and said in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_s_measured_ratios_are_those_of_the_file():
    rows = json.loads((ROOT / "bench/results/nvidia-h200.json").read_text(encoding="utf-8"))["benchmarks"]
    some = [row["ratio"] for row in rows if re.match(r"selective_scan fwd(\+bwd)? \(\d+, 128, (49|121|256), 16\)", row["group"])]
    said = f"the scan was {min(some):.1f} to {max(some):.0f} times as fast as mamba_ssm's for 49 to 256 steps"
    assert len(some) == 36 and said in (ROOT / "README.md").read_text(encoding="utf-8")
