"""Whole runs: the temperature in the checkpoint, maps under a scene's class shares, areas beside a map and in the report."""

import csv
import json

import numpy as np
import pytest
import rasterio

from bdgf_fast.cli import main
from bdgf_fast.files import checkpoint
from bdgf_fast.network.priors import corrected

KEYS = ("overall_accuracy", "average_accuracy", "kappa")


@pytest.fixture(scope="module")
def run(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("areas") / "run"
    settings = [*tiny, "--set", "model.trees=10", "--set", "predict.priors=scene"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


def read(path):
    with rasterio.open(path) as data:
        return data.read()


def rows(folder):
    with open(folder / "areas.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def numbers(table, name):
    return np.array([float(row[name]) for row in table])


def test_the_temperature_is_in_the_checkpoint(run):
    stored = checkpoint.load(run / "checkpoints" / "network.safetensors", "train")[1]["calibration"]
    report = json.loads((run / "report.json").read_text())
    assert stored["fitted_on"] == "squares left out in turn" and 0 < stored["pixels"] <= report["train_pixels"]
    assert 0.1 <= stored["temperature"] <= 10 and stored["temperature"] != 1
    counts = [entry["train"] for entry in report["classes"]]
    np.testing.assert_allclose(stored["prior"], np.array(counts) / sum(counts))
    said = report["calibration"]
    assert said["temperature"] == stored["temperature"] and said["pixels"] == stored["pixels"]
    for name in ("uncalibrated", "calibrated", "written"):
        assert sum(b["pixels"] for b in said[name]["bins"]) == report["test_pixels"]
        assert 0 <= said[name]["expected_calibration_error"] <= 1


def test_the_report_shows_it(run):
    page = (run / "report.html").read_text()
    shown = page.replace("\n", " ").replace("&#39;", "'")
    for words in ("How much of each class there is", "Reliability of the probabilities", "the scene's own class shares"):
        assert words in shown
    assert "areas.csv" in page
    assert (run / "reliability.png").stat().st_size > 5000


def test_the_map_goes_by_the_scenes_shares(run, tmp_path):
    assert main(["predict", str(run), "--out", str(tmp_path), "--priors", "train", "--quiet", "--threads", "1"]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["priors"]["asked"] == "scene"
    training, estimated = (np.array(list(report["priors"][name].values())) for name in ("training", "estimated"))
    plain, written = read(tmp_path / "probabilities.tif"), read(run / "probabilities.tif")
    factor = np.array(list(report["priors"]["factor"].values()))
    np.testing.assert_allclose(written, corrected(plain, factor * estimated / training, report["priors"]["power"]), atol=1e-5)
    np.testing.assert_allclose(written.mean((1, 2)), estimated, atol=1e-3)  # every pixel of this small scene was taken
    codes = np.array([entry["code"] for entry in report["classes"]])
    np.testing.assert_array_equal(read(run / "map.tif")[0], codes[written.argmax(0)])
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], codes[plain.argmax(0)])
    with np.load(run / "split.npz") as split:
        test = split["test"][:, :2]
    with np.load(run / "checkpoints" / "labels.npz") as kept:
        np.testing.assert_array_equal(kept["fused"], written.argmax(0)[tuple(test.T)])
        np.testing.assert_array_equal(kept["confidence.label"], plain.argmax(0)[tuple(test.T)])
        np.testing.assert_allclose(kept["confidence.calibrated"], plain.max(0)[tuple(test.T)], atol=1e-6)
        np.testing.assert_allclose(kept["confidence.written"], written.max(0)[tuple(test.T)], atol=1e-6)


def test_areas_are_those_of_the_files(run, tmp_path):
    table, report = rows(run), json.loads((run / "report.json").read_text())
    codes = np.array([entry["code"] for entry in report["classes"]])
    counted = (read(run / "map.tif")[0] == codes[:, None, None]).sum((1, 2))
    pixel = report["classes"][0]["map_square_metres"]
    unit = 1 if pixel is None else pixel / report["classes"][0]["map_pixels"] / 1e4
    assert table[0]["unit"] == ("pixels" if pixel is None else "ha")
    assert [int(row["pixels"]) for row in table] == counted.tolist()
    np.testing.assert_allclose(numbers(table, "counted"), unit * counted, rtol=1e-6)
    np.testing.assert_allclose(numbers(table, "expected"), unit * read(run / "probabilities.tif").sum((1, 2)), rtol=1e-4)
    shares = np.array(list(report["priors"]["estimated"].values()))
    np.testing.assert_allclose(numbers(table, "corrected"), unit * shares * counted.sum(), rtol=1e-4)
    if report["areas"]["note"] is None:
        assert (numbers(table, "error_matrix_low") <= numbers(table, "error_matrix")).all()
    # another place has no test side
    assert main(["predict", str(run), "--out", str(tmp_path), "--quiet", "--threads", "1"]) == 0
    assert all(row["error_matrix"] == "" for row in rows(tmp_path))


def test_what_is_scored_goes_by_the_same_shares(run, tmp_path):
    """With and without the map's labels at hand."""
    report = json.loads((run / "report.json").read_text())
    for taken in ("labels.npz", "predict"):
        if taken == "labels.npz":
            (run / "checkpoints" / taken).unlink()
        else:
            state = json.loads((run / "state.json").read_text())
            state["stages"].pop("predict")
            (run / "state.json").write_text(json.dumps(state))
        assert main(["evaluate", str(run), "--quiet", "--threads", "1"]) == 0
        again = json.loads((run / "report.json").read_text())
        assert [again[key] for key in KEYS] == [report[key] for key in KEYS]
        assert again["priors"]["with_training_shares"] == report["priors"]["with_training_shares"]
        errors = [r["calibration"]["written"]["expected_calibration_error"] for r in (again, report)]
        assert errors[0] == pytest.approx(errors[1], abs=1e-6)
    assert again["areas"] is None  # no map stands any more


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ('{"watr": 1.0}', "predict.priors names no class of this scene: 'watr'"),
        ('{"water": 0.5, "trees": 0.4}', "predict.priors: the shares of the classes sum to 0.9; they must sum to 1"),
        ("world", 'predict.priors: it takes "train", "scene" or a share from 0 to 1 for each class'),
    ],
)
def test_bad_shares_are_one_sentence(shares, said, run, scene_file, tiny, tmp_path, capsys):
    assert main(["predict", str(run), "--out", str(tmp_path / "map"), "--priors", shares, "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "map" / "map.tif").exists()
    arguments = ["run", str(scene_file), "--out", str(tmp_path / "run"), "--quiet", *tiny, "--set", f"predict.priors={shares}"]
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "denoiser.safetensors").exists()


def test_a_run_of_an_earlier_version_opens_with_temperature_one(scene_file, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    settings = [*tiny, "--set", "model.trees=10", "--set", "predict.calibrate=false"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    path = out / "checkpoints" / "network.safetensors"
    tensors, meta = checkpoint.load(path, "train")
    assert meta["calibration"]["temperature"] == 1 and meta["calibration"]["fitted_on"] == "none"
    del meta["calibration"]
    checkpoint.save(path, "train", tensors, meta)
    config = json.loads((out / "config.json").read_text())
    for key in ("calibrate", "priors"):
        del config["config"]["predict"][key]
    (out / "config.json").write_text(json.dumps(config))
    before = read(out / "probabilities.tif")
    assert main(["predict", str(out), "--quiet", "--threads", "1"]) == 0
    np.testing.assert_array_equal(read(out / "probabilities.tif"), before)
    assert all(row["corrected"] == "" for row in rows(out))
    assert main(["evaluate", str(out), "--quiet", "--threads", "1"]) == 0
    assert "No temperature was fitted" in (out / "report.html").read_text()
    assert main(["predict", str(out), "--priors", "scene", "--out", str(tmp_path / "map"), "--quiet"]) == 2
    assert "train again with `bdgf-fast train`" in capsys.readouterr().err
