"""Small networks that learn from trained ones."""

import json

import numpy as np
import pytest
import rasterio
import torch

import bdgf_fast
from bdgf_fast.cli import main
from bdgf_fast.files import checkpoint
from bdgf_fast.network.distil import unlabelled
from bdgf_fast.pipeline.run import Run


@pytest.fixture(scope="module")
def teacher(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "run"
    settings = [*tiny, "--set", "model.trees=20"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


def test_a_student_of_one_modality_learns_the_teacher(teacher, tmp_path, capsys):
    out = tmp_path / "student"
    command = ["distil", str(teacher), "--out", str(out), "--quiet", "--threads", "1", "--modalities", "spectral"]
    assert main([*command, "--set", "model.width=16"]) == 0
    report = json.loads((out / "report.json").read_text())
    before = json.loads((teacher / "report.json").read_text())
    assert report["teacher"]["overall_accuracy"] == pytest.approx(before["overall_accuracy"])
    assert report["test_pixels"] == before["test_pixels"]
    chance = max(entry["test"] for entry in report["classes"]) / report["test_pixels"]
    assert report["teacher"]["agreement"] > chance + 0.2
    assert "learned what the run in" in (out / "report.html").read_text()
    assert [m["name"] for m in report["inputs"]] == ["spectral"]
    with rasterio.open(out / "map.tif") as data:
        assert (data.read(1) > 0).all()
    taught, own = (checkpoint.load(run / "checkpoints/network.safetensors", "train")[1]["calibration"] for run in (teacher, out))
    assert own == {**taught, "temperature": 1.0, "power": taught["temperature"] * taught["power"], "fitted_on": "none", "pixels": 0}
    # resumed and evaluated like any run, from the same teacher
    assert main(["evaluate", str(out), "--quiet"]) == 0
    assert json.loads((out / "report.json").read_text())["teacher"] == report["teacher"]
    with pytest.raises(bdgf_fast.UserError, match="no modality 'sonar', only spectral, sar, surface"):
        bdgf_fast.distil(teacher, tmp_path / "other", modalities=["sonar"])
    with pytest.raises(bdgf_fast.UserError, match="--out is the teacher's own directory"):
        bdgf_fast.distil(teacher, teacher)
    assert not (tmp_path / "other").exists()


def test_lessons_leave_the_test_side_out(teacher):
    run = Run.reopen(teacher, quiet=True, elsewhere=True)
    valid = torch.as_tensor(run.prepared.valid)
    rc = unlabelled(run.prepared, run.split.test, 10**6, 0)
    taken = np.zeros(valid.shape, bool)
    taken[tuple(rc.T.numpy())] = True
    test = np.zeros(valid.shape, bool)
    test[tuple(run.split.test.T.numpy())] = True
    assert np.array_equal(taken, valid.numpy() & ~test)
    few = unlabelled(run.prepared, run.split.test, 1, 0)
    assert 0 < len(few) <= 64 * 64 and torch.equal(few, unlabelled(run.prepared, run.split.test, 1, 0))
