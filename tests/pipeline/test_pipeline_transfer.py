"""Trained on some scenes, scored on others: the table is that of the maps, alignment helps a sensor that is off, mistakes named."""

import json
import re

import numpy as np
import pytest
import torch
from application import TINY

import bdgf_fast as bf
from bdgf_fast.cli import main
from bdgf_fast.data import load_scene, synthetic_scene, write_scene
from bdgf_fast.report.metrics import scores

BRIEF = [*TINY, 'model.branches=["cnn"]', "model.trees=5"]
CONFIG = {key: json.loads(value) for key, value in (text.split("=", 1) for text in BRIEF)}
HOW = {"config": CONFIG, "device": "cpu", "quiet": True, "labels": 20}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two scenes to train on, and two others whose sensors are off; the last one has no labels."""
    folder = tmp_path_factory.mktemp("scenes")
    shapes = {"a": (64, 64), "b": (64, 72), "c": (72, 64), "d": (64, 64)}
    made = {name: synthetic_scene(seed, shape, bands=4, sensor=float(name in "cd")) for seed, (name, shape) in
            enumerate(shapes.items())}  # fmt: skip
    made["d"].classes, made["d"].labels[:] = [], -1
    return {name: write_scene(scene, folder / name) for name, scene in made.items()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def result(scenes, tmp_path_factory):
    train, test = [scenes["a"], scenes["b"]], [scenes["c"], scenes["d"]]
    return bf.transfer(train, test, tmp_path_factory.mktemp("transfer") / "out", align="both", seed=1, **HOW)


def test_the_table_scores_all_labels_of_the_map(scenes, result):
    assert result.state["train_pixels"] == [40] * 7 and result.state["seed"] == 1 and list(result.targets) == ["c", "d"]
    target = result.targets["c"]
    assert target["pixels"] == 72 * 64 and list(target["rows"]) == ["none", "scene"]
    scene = load_scene(scenes["c"])
    for way, row in target["rows"].items():
        assert list(row) == ["BDGF", *bf.baselines.FORESTS]
        codes = result.map("c", aligned=way == "scene").map().astype(int)
        own = scores(scene.labels, codes - 1, 7)  # codes 1 to 7 are classes 0 to 6
        assert row["BDGF"] == own
        assert np.sum(row["BDGF"]["confusion_matrix"]) == 72 * 64
    assert not (result.map("c").map() == result.map("c", aligned=True).map()).all()


def test_alignment_takes_a_wrong_calibration_back(result):
    rows = result.targets["c"]["rows"]
    for name in bf.baselines.FORESTS:
        assert rows["scene"][name]["overall_accuracy"] > rows["none"][name]["overall_accuracy"] + 0.05, name


def test_a_scene_without_labels_is_mapped_alone(result):
    assert result.targets["d"] == {"pixels": 0, "rows": {}}
    assert result.map("d").map().shape == (64, 64)
    text = str(result)
    assert text.startswith("# a, b -> c, d\n") and "Mapped without a score, for want of labels: d." in text
    row = result.targets["c"]["rows"]["scene"]["BDGF"]
    assert f"| BDGF | aligned | {100 * row['overall_accuracy']:.1f} / {100 * row['average_accuracy']:.1f} |" in text


def test_two_models_learned_from_aligned_and_other_values(result):
    levels = ["levels" in json.loads((result.path / name / "scene.json").read_text()) for name in ("model", "model-aligned")]
    assert levels == [False, True]
    report = json.loads((result.path / "model" / "config.json").read_text())
    assert report["scene"] == str(result.path / "train.toml") and report["config"]["data"]["align"] == "none"


def test_a_finished_model_is_not_trained_again(scenes, result, capsys):
    weights = result.path / "model" / "checkpoints" / "network.safetensors"
    before, stamp = result.state, weights.stat().st_mtime_ns
    names = [str(scenes[name]) for name in "abcd"]
    settings = [part for text in BRIEF for part in ("--set", text)]
    arguments = ["--labels", "20", "--align", "both", "--seed", "1", "--quiet", "--device", "cpu", "--threads", "1", *settings]
    command = ["transfer", "--train", *names[:2], "--test", *names[2:], "--out", str(result.path), *arguments]
    assert main(command) == 2 and "holds a run already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert "| BDGF | aligned |" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == stamp and json.loads((result.path / "transfer.json").read_text()) == before
    assert main([*command[:2], names[0], "--test", names[2], *command[7:], "--resume"]) == 2
    assert "other training scenes or labels" in capsys.readouterr().err


def test_one_training_scene_needs_one_model(scenes, tmp_path):
    found = bf.transfer(scenes["a"], scenes["c"], tmp_path / "out", align="both", baselines="none", **HOW)
    assert not (tmp_path / "out/model-aligned").exists() and list(found.targets["c"]["rows"]) == ["none", "scene"]
    assert (tmp_path / "out/maps/c/map.tif").exists() and (tmp_path / "out/maps/c-aligned/map.tif").exists()
    plain = bf.transfer([scenes["a"]], [scenes["c"]], tmp_path / "plain", baselines="none", **HOW)  # the default: not aligned
    assert plain.targets["c"]["rows"]["none"] == found.targets["c"]["rows"]["none"]


def refused(train, test, out, **more):
    with pytest.raises(bf.UserError) as error:
        bf.transfer(train, test, out, **{**HOW, **more})
    assert not out.exists()
    return str(error.value)


def test_mistakes_are_named_before_anything_is_written(scenes, tmp_path):
    a, b, c, d = scenes.values()
    out = tmp_path / "out"
    assert "is named by --train and by --test" in refused([a, b], [b.parent], out)
    assert "--train names" in refused([a, a.parent], [b], out) and "--test names no scene" in refused([a], [], out)
    assert "has no labels: a scene that trains has some" in refused([a, d], [c], out)
    assert "--labels is 0" in refused([a], [c], out, labels=0) and "align is 'band'" in refused([a], [c], out, align="band")
    text = a.read_text()
    for name, change, said in (
        ("renamed", ('4 = "trees"', '4 = "woods"'), "code 4 is 'woods' here, 'trees' in"),
        ("swapped", ('name = "sar"', 'name = "radar"'), "has the modalities spectral, radar, surface"),
        ("narrow", ('path = "spectral.tif"', 'path = "spectral.tif"\nbands = [1, 2, 3]'), "modality 'spectral' has 3 bands"),
    ):
        other = a.parent / f"{name}.toml"
        assert change[0] in text
        other.write_text(text.replace(*change))
        for train, test in (([b, other], [c]), ([b], [other])):
            assert said in refused(train, test, out)
    assert f"code 4 is 'woods' here, 'trees' in {b}" in refused([b], [a.parent / "renamed.toml"], out)


def test_a_class_that_no_training_scene_has(scenes, tmp_path):
    text = scenes["a"].read_text()
    fewer = scenes["a"].parent / "fewer.toml"
    fewer.write_text(re.sub(r"ignore = \[0\]", "ignore = [0, 4]", text))
    said = refused([fewer], [scenes["c"]], tmp_path / "out")
    assert "no training scene has a pixel of class 'trees' (code 4)" in said
