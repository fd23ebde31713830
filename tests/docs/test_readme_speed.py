"""Times and ratios in the README are those of the benchmark's file; the gallery shows every operation that is in it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = {
    "selective scan, forward and backward (64, 128, 121, 16)": "selective_scan fwd+bwd (64, 128, 121, 16)",
    "selective scan of a whole scene (1, 128, 50000, 16), forward and backward": "selective_scan fwd+bwd (1, 128, 50000, 16)",
    "cross-attention (256, 8, 49, 16), forward": "cross_attention fwd [256, 8, 49, 16] torch.float32",
    "group channel gate (256, 64, 11, 11), forward and backward": "group_channel_gate fwd+bwd (256, 64, 11, 4, 8, False)",
    "noisy samples of a diffusion model, (256, 182, 11, 11)": "q_sample by sample (256, 182, 11, 11)",
    "loss of the denoiser for each sensor, forward and backward": "denoising_loss fwd+bwd (256, 182, 11, 11)",
}
TABLE = dict(re.findall(r"^\| ([^|]+?) \| (\d[^|]* \| [^|]+ \| \d+\.\dx) \|$", README, re.MULTILINE))


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs/_build/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(pictures):
    return pictures.rows(json.loads(pictures.RESULTS.read_text(encoding="utf-8")))


def test_the_table_has_these_rows():
    assert set(TABLE) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_time_is_that_of_the_file(name, measured):
    row = next(row for row in measured if row["group"] == ROWS[name])
    baseline = row["baseline"].partition(" (")[0]  # without the shape of its result
    expected = f"{row['ours_ms']:.2f} | {row['baseline_ms']:.2f} ({baseline}) | {row['ratio']:.1f}x"
    assert TABLE[name] == expected


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_the_gallery_shows_every_measured_operation(pictures, measured):
    gallery = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    for operation in pictures.OPERATIONS:
        picture = f"pictures/speed_{operation}.png"
        if pictures.cases(measured, operation):
            assert (ROOT / "docs" / picture).exists(), f"make pictures draws {picture}"
            assert f"]({picture})" in gallery


def test_the_overview_names_cases_of_the_file(pictures, measured):
    assert all(any(row["group"].startswith(start) for row in measured) for start in pictures.OVERVIEW)


def test_the_cost_of_a_pixel_is_that_of_the_file():
    benchmarks = json.loads((ROOT / "bench/results/pixel.json").read_text(encoding="utf-8"))["benchmarks"]
    found = next(b["extra_info"] for b in benchmarks if b["name"] == "test_a_pixel_end_to_end")
    ours, patches = found["ours_ms"], found["network over patches_ms"]
    text = " ".join(README.split())
    network = f"{found['network_float32']:.3f} ms of it in the network"
    assert f"Mapping one pixel takes {ours:.3f} ms, features included ({network}" in text
    assert f"or {found['network_bfloat16']:.3f} ms in bfloat16), {patches / ours:.0f} times less" in text
