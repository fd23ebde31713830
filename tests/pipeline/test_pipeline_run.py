"""Whole runs through the command line: what they leave, that a kill loses nothing, and what bad input says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from safetensors import safe_open

from bdgf_fast.baselines import FORESTS, GUIDED_FOREST
from bdgf_fast.cli import main

KEYS = {
    "overall_accuracy", "average_accuracy", "kappa", "per_class", "confusion_matrix", "classes", "modalities", "seconds",
    "peak_memory_bytes", "versions", "seed", "config", "baselines", "balance", "branches", "diversity",
}


@pytest.fixture(scope="module")
def finished(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", *tiny]) == 0
    return out


def test_run_leaves_all_it_promises(finished, scene_file):
    report = json.loads((finished / "report.json").read_text())
    assert set(report) >= KEYS
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum() == report["test_pixels"] > 0
    assert report["overall_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    assert set(report["baselines"]) == {*FORESTS, GUIDED_FOREST}
    for facts in report["modalities"].values():
        assert facts["loss"] > 0 and 0 <= facts["mask_rate"] <= 1
    for name in ("report.html", "map.png", "losses.png", "confusion.png", "probabilities.tif", "history.json"):
        assert (finished / name).stat().st_size > 0
    assert not [path for path in finished.rglob("*") if ".part" in path.name]


def test_map_agrees_with_probabilities_and_report(finished, scene_file):
    report = json.loads((finished / "report.json").read_text())
    source = scene_file.parent / next(path.name for path in scene_file.parent.glob("*.tif"))
    with rasterio.open(finished / "map.tif") as data, rasterio.open(source) as scene:
        codes = data.read(1)
        assert data.dtypes == ("uint8",) and data.crs == scene.crs and data.transform == scene.transform
        assert all(data.colormap(1)[entry["code"]][:3] == tuple(entry["colour"]) for entry in report["classes"])
        assert data.tags(1)[f"CLASS_{report['classes'][0]['code']}"] == report["classes"][0]["name"]
    with rasterio.open(finished / "probabilities.tif") as data:
        probabilities = data.read()
        assert data.descriptions == tuple(entry["name"] for entry in report["classes"])
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array([c["code"] for c in report["classes"]])[probabilities.argmax(0)], codes)


def test_checkpoints_are_safetensors(finished):
    files = sorted((finished / "checkpoints").glob("*.safetensors"))
    assert [file.stem for file in files] == ["denoiser", "network"]
    for file in files:
        with safe_open(file, "pt") as stream:
            assert stream.keys()


def test_stages_one_by_one_give_the_same(finished, scene_file, tiny, tmp_path):
    out = tmp_path / "stages"
    assert main(["pretrain", str(scene_file), "--out", str(out), "--quiet", *tiny]) == 0
    assert main(["train", str(out), "--quiet"]) == 0
    assert main(["evaluate", str(out), "--quiet"]) == 0
    whole, staged = (json.loads((path / "report.json").read_text()) for path in (finished, out))
    assert staged["confusion_matrix"] == whole["confusion_matrix"]
    assert main(["predict", str(out), "--quiet"]) == 0
    with rasterio.open(finished / "probabilities.tif") as a, rasterio.open(out / "probabilities.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_predict_takes_another_scene(finished, scene_file, tmp_path):
    assert main(["predict", str(finished), "--scene", str(scene_file), "--out", str(tmp_path / "other"), "--quiet"]) == 0
    with rasterio.open(finished / "map.tif") as a, rasterio.open(tmp_path / "other" / "map.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_maps_of_another_model_belong_to_their_scene(scene_file, tiny, tmp_path, capsys):
    maps, run, other = tmp_path / "maps.npy", tmp_path / "run", tmp_path / "other"
    np.save(maps, np.random.default_rng(0).normal(size=(5, 64, 64)).astype(np.float32))
    shutil.copytree(scene_file.parent, other)
    assert main(["pretrain", str(scene_file), "--out", str(run), "--features", str(maps), "--quiet", *tiny]) == 0
    assert main(["train", str(run), "--quiet"]) == 0
    predict = ["predict", str(run), "--quiet", "--out", str(tmp_path / "out"), "--scene"]
    assert main([*predict, str(other)]) == 2
    assert f"and the run's belong to {scene_file}; give those of {other} by --features" in capsys.readouterr().err
    assert main([*predict, str(scene_file.parent)]) == 0  # the run's own scene, by its folder
    assert main([*predict, str(other), "--features", str(maps)]) == 0


def _start(scene_file, out, tiny, *more):
    command = [sys.executable, "-m", "bdgf_fast", "run", str(scene_file), "--out", str(out), *tiny, *more]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=out.parent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored when make runs in the background
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_result(finished, scene_file, tiny, tmp_path, how):
    out = tmp_path / "killed"
    process = _start(scene_file, out, tiny)
    checkpoint = out / "checkpoints" / "denoiser.safetensors"
    deadline = time.time() + 120
    while not checkpoint.exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, how)
    _, text = process.communicate(timeout=120)
    if how == signal.SIGINT:
        assert process.returncode == 130 and "--resume" in text and "Traceback" not in text
    assert not (out / "report.json").exists()
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--resume", *tiny]) == 0
    with rasterio.open(finished / "probabilities.tif") as a, rasterio.open(out / "probabilities.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_several_seeds_give_mean_and_deviation(scene_file, tiny, tmp_path):
    out = tmp_path / "seeds"
    assert main(["run", str(scene_file), "--out", str(out), "--seeds", "0", "1", "--quiet", *tiny]) == 0
    summary = json.loads((out / "summary.json").read_text())
    values = [json.loads((out / f"seed-{seed}" / "report.json").read_text())["overall_accuracy"] for seed in (0, 1)]
    row = next(row for row in summary["rows"] if row["name"] == "BDGF, all modalities")
    assert row["overall_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert row["overall_accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))


@pytest.fixture(scope="module")
def begun(finished, tmp_path_factory):
    """A run of which no stage has ended."""
    out = tmp_path_factory.mktemp("begun") / "run"
    shutil.copytree(finished, out)
    (out / "state.json").write_text('{"stages": {"configured": {}}}')
    return out


@pytest.fixture(scope="module")
def unlabelled(scene_file, tmp_path_factory):
    """The scene without its labels."""
    path = tmp_path_factory.mktemp("unlabelled") / "scene.toml"
    table = scene_file.read_text(encoding="utf-8").partition("[labels]")[0]
    path.write_text(table.replace('path = "', f'path = "{scene_file.parent}/'), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.toml", "--out", "{out}"], "nowhere.toml"),
        (["run", "{scene}", "--out", "{out}", "--set", "pretrain.stepz=3"], "did you mean 'steps'"),
        (["run", "{scene}", "--out", "{out}", "--set", "train.epochs=many"], "train.epochs"),
        (["run", "{scene}", "--out", "{out}", "--set", "model.mode=patch", "--set", "data.patch=99"], "larger than the scene"),
        (["run", "{scene}", "--out", "{done}"], "--resume"),
        (["run", "{scene}", "--out", "{done}", "--resume", "--seed", "5"], "begun with other settings"),
        (["train", "{out}"], "out does not exist; name the directory of a run"),
        (["predict", "{scene}"], "scene.toml is a file; name the directory of a run"),
        (["evaluate", "{folder}"], "holds no run (state.json is missing); name the --out of an earlier"),
        (["predict", "{begun}"], "stage train has not ended; run `bdgf-fast train {begun}` first"),
        (["train", "{begun}"], "run `bdgf-fast pretrain SCENE --out {begun} --resume` first"),
        (["run", "{done}", "--out", "{out}"], "is the directory of a run, not a scene; to continue the run name its scene"),
        (["run", "{unlabelled}", "--out", "{out}"], "`bdgf-fast predict DIR --scene SCENE --out MAPS`"),
        (["run", "{scene}", "--out", "{out}", "--set", "epochs=3"], "unknown section or key 'epochs' (did you mean 'train.epochs'"),
        (["run", "augsburg", "--out", "{out}"], "augsburg is a known data set; name augsburg:FOLDER"),
        (["run", "{scene}", "--out", "{out}", "--features", "{scene}"], "scene.toml cannot be opened as a raster"),
        (["pretrain", "{scene}", "--out", "{out}", "--set", "features.path=[none.npy]"], "none.npy does not exist"),
        (["run", "{scene}", "--out", "{scene}"], "is a file"),
        (["predict", "{done}", "--scene", "{scene}"], "--out"),
        (["run", "{scene}", "--out", "{out}", "--threads", "0"], "--threads"),
        (["run", "{scene}", "--out", "{out}", "--set", "train.patience=2"], "val_blocks"),
        (["run", "{scene}", "--out", "{out}", "--device", "tpu"], "--device"),
        (["predict", "{done}", "--out", "{out}", "--stride", "0"], "--stride"),
        (["predict", "{done}", "--out", "{out}", "--memory", "lots"], "2GiB"),
        (["predict", "{done}", "--out", "{out}", "--memory", "100MB"], "too small"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, finished, begun, unlabelled, scene_file, tmp_path, capsys):
    places = {"out": tmp_path / "out", "scene": scene_file, "done": finished, "folder": tmp_path, "begun": begun,
              "unlabelled": unlabelled}  # fmt: skip
    assert main([word.format(**places) for word in arguments]) == 2
    text = capsys.readouterr().err
    assert sentence.format(**places) in text and text.startswith("error: ") and "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_a_refusal_removes_no_directory_that_was_there(tmp_path):
    out = tmp_path / "mine" / "run"
    out.parent.mkdir()
    assert main(["run", "nowhere.toml", "--out", str(out)]) == 2
    assert list(tmp_path.rglob("*")) == [out.parent]
    assert main(["study", "nowhere.toml", "--out", str(tmp_path / "deep" / "study")]) == 2
    assert list(tmp_path.rglob("*")) == [out.parent]


def test_damaged_checkpoint_names_the_file(finished, scene_file, tiny, tmp_path, capsys):
    out = tmp_path / "damaged"
    assert main(["pretrain", str(scene_file), "--out", str(out), "--quiet", *tiny]) == 0
    path = out / "checkpoints" / "denoiser.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["train", str(out), "--quiet"]) == 2
    assert "denoiser.safetensors" in capsys.readouterr().err


def test_full_disk_leaves_no_half_file(finished, scene_file, capsys, monkeypatch, tmp_path):
    import errno
    from pathlib import Path

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "full"
    assert main(["predict", str(finished), "--out", str(out), "--quiet"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list(Path(out).glob("*"))


@pytest.mark.parametrize(
    "built, said",
    [
        ({"cuda": None, "cuda_missing_because": "no nvcc was found"}, "none: no nvcc was found"),
        ({"cuda": "13.0.88", "cuda_architectures": "80-real 120-virtual"}, "CUDA 13.0.88, for compute capability 8.0, 12.0"),
    ],
)
def test_an_extension_with_and_without_cuda_is_described(monkeypatch, built, said):
    from bdgf_fast.pipeline import versions

    rest = {"extension": "_C.so", "compiler": "GNU", "threads": "OpenMP", "cpu_isas": ["scalar"], "cpu_isa": "scalar"}
    monkeypatch.setattr(versions._native, "build_info", lambda: {**rest, **built})
    assert versions.extension()["CUDA kernels"] == said


def test_what_a_report_says_of_the_software_names_no_path_of_the_machine():
    from bdgf_fast.pipeline.versions import extension, versions

    assert extension()["file"] not in versions().values()
    assert not [value for value in versions().values() if value.startswith("/")]


def test_info_lists_every_operation(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {row["operation"] for row in facts["backends"]} >= {"selective_scan", "q_sample", "cross_attention"}
    assert main(["info"]) == 0
    page = capsys.readouterr().out
    assert "selective_scan" in page and "\nCompiled extension\n" in page and "_because" not in page
    assert "extension extension" not in page and not any(key.startswith("extension extension") for key in facts["versions"])
