"""Whole runs that can do without a modality: the report, a scene without a sensor's file, a scene with a hole."""

import json

import numpy as np
import pytest
import rasterio

from bdgf_fast.cli import main


@pytest.fixture(scope="module")
def run(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("missing") / "run"
    settings = [*tiny, "--set", "model.hide_rate=0.4", "--set", "model.trees=10"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


def without(scene_file, folder, *names):
    """The scene's file without the tables of some modalities, in a folder of its own."""
    head, *tables = scene_file.read_text().split("[[modality]]")
    rest = ""
    if "[labels]" in tables[-1]:
        tables[-1], rest = tables[-1].split("[labels]")[0], ""
    kept = [t for t in tables if not any(f'name = "{name}"' in t for name in names)]
    kept = [t.replace('path = "', f'path = "{scene_file.parent}/') for t in kept]
    path = folder / "other.toml"
    path.write_text(head + "".join("[[modality]]" + t for t in kept) + rest)
    return path


def read(path):
    with rasterio.open(path) as data:
        return data.read(1)


def test_the_report_says_what_each_modality_is_worth(run):
    report = json.loads((run / "report.json").read_text())
    assert set(report["without"]) == {"spectral", "sar", "surface"}
    assert all(0 < row["overall_accuracy"] < 1 for row in report["without"].values())
    assert "With a modality missing" in (run / "report.html").read_text()
    assert (read(run / "quality.tif") == 1).all()


def test_a_scene_without_a_sensor_gets_a_map(run, scene_file, tmp_path, capsys):
    scene = without(scene_file, tmp_path, "sar")
    assert main(["predict", str(run), "--scene", str(scene), "--out", str(tmp_path / "map"), "--quiet"]) == 0
    assert (read(tmp_path / "map" / "map.tif") > 0).all()
    assert (read(tmp_path / "map" / "quality.tif") == 3).all()
    with rasterio.open(tmp_path / "map" / "quality.tif") as data:
        assert data.tags(1)["CLASS_3"] == "without sar"
    assert main(["data", "check", str(scene), "--run", str(run)]) == 0
    capsys.readouterr()


def test_two_missing_sensors_are_refused(run, scene_file, tmp_path, capsys):
    scene = without(scene_file, tmp_path, "sar", "surface")
    assert main(["predict", str(run), "--scene", str(scene), "--out", str(tmp_path / "map"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "it has no modality 'sar', only spectral (its network can do without one modality, not without several)" in said
    assert not (tmp_path / "map").exists()


def test_a_hole_in_a_sensor_is_mapped_and_marked(run, scene_file, tmp_path):
    scene = without(scene_file, tmp_path)
    source = scene_file.parent / "sar.tif"
    with rasterio.open(source) as data:
        values, profile = data.read(), data.profile
    values[:, 8:30, 20:50] = np.nan
    with rasterio.open(tmp_path / "sar.tif", "w", **profile) as data:
        data.write(values)
    scene.write_text(scene.read_text().replace(str(source), str(tmp_path / "sar.tif")))
    assert main(["predict", str(run), "--scene", str(scene), "--out", str(tmp_path / "map"), "--quiet"]) == 0
    inside = np.zeros((64, 64), bool)
    inside[8:30, 20:50] = True
    assert np.array_equal(read(tmp_path / "map" / "quality.tif"), np.where(inside, 3, 1))
    assert (read(tmp_path / "map" / "map.tif") > 0).all()
