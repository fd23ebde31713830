"""A run belongs to what it was made from, to one command at a time, and its accuracy to its test pixels."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from bdgf_fast.cli import main
from bdgf_fast.config import Config
from bdgf_fast.data import load_scene, make_split
from bdgf_fast.errors import UserError
from bdgf_fast.pipeline import origin
from bdgf_fast.pipeline.locks import LOCK, lock, released
from bdgf_fast.pipeline.scenes import check_size
from bdgf_fast.report.metrics import by_class

TOML = (
    '[[modality]]\nname = "x"\npath = "x.npy"\n[labels]\npath = "gt.npy"\nclasses = { 1 = "a", 2 = "b" }\n'
    "[split]\nblock = 5\nper_class = 9\n"
)


@pytest.fixture
def scene(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 60, 3)))
    np.save(tmp_path / "gt.npy", np.arange(60 * 60).reshape(60, 60) // 5 % 2 + 1)
    path = tmp_path / "scene.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def trained(scene_file, tiny, tmp_path_factory):
    """A run of a network over patches on a scene of its own, without values in one corner and with maps of a stride."""
    folder = tmp_path_factory.mktemp("bound")
    shutil.copytree(scene_file.parent, folder / "scene")
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(folder / "scene" / "sar.tif", "r+") as data:
        values = data.read()
        values[:, 20:44, 20:44] = np.nan
        values[:, 31, 31] = 0.5  # one pixel far from every other
        data.write(values)
    out = folder / "run"
    settings = [*tiny, "--set", "model.mode=patch", "--set", "train.epochs=1", "--set", "data.patch=8", "--set", "seed=7"]
    assert main(["pretrain", str(folder / "scene" / "scene.toml"), "--out", str(out), "--quiet", *settings]) == 0
    assert main(["train", str(out), "--quiet", "--threads", "1"]) == 0
    return out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "scene.toml").write_text(TOML.replace("block = 5", "block = 6")), ["[split] block was 5, is 6"]),
        (lambda f: (f / "scene.toml").write_text(TOML + "train_fraction = 0.4\n"), ["[split] train_fraction was 0.3, is 0.4"]),
        (lambda f: (f / "scene.toml").write_text(TOML + "train_fraction = 0.3 # the default\n"), []),
        (lambda f: (f / "scene.toml").write_text('name = "called otherwise"\n' + TOML), []),
        (lambda f: os.utime(f / "x.npy"), []),
        (lambda f: np.save(f / "x.npy", np.load(f / "x.npy") + 1), ["the content of {}/x.npy"]),
        (lambda f: np.save(f / "gt.npy", 3 - np.load(f / "gt.npy")), ["the labels"]),
    ],
)
def test_what_has_changed_is_named(scene, change, said):
    before = json.loads(json.dumps(origin.describe(load_scene(scene))))
    change(scene.parent)
    found = origin.changes(before, origin.describe(load_scene(scene), before=before))
    assert found == [text.format(scene.parent) for text in said]


def test_a_large_file_is_read_again_when_its_time_has_changed(scene, monkeypatch):
    monkeypatch.setattr(origin, "ALWAYS_READ", 10)
    before = origin.describe(load_scene(scene))
    file = scene.parent / "x.npy"
    times = file.stat()
    np.save(file, np.load(file) + 1)
    assert origin.changes(before, origin.describe(load_scene(scene), before=before))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # size and time as they were: taken to be the same
    assert not origin.changes(before, origin.describe(load_scene(scene), before=before))


def test_a_split_is_stored_whole(scene, tmp_path):
    loaded = load_scene(scene)
    split = make_split(loaded, 7, 3)
    origin.save_split(tmp_path / "split.npz", split, loaded.labels)
    again = origin.load_split(tmp_path / "split.npz")
    assert all(torch.equal(getattr(split, side), getattr(again, side)) for side in ("train", "val", "test"))
    assert np.array_equal(split.train_region, again.train_region) and split.summary() == again.summary()
    with np.load(tmp_path / "split.npz") as stored:
        rows, columns, classes = stored["test"].T
    assert np.array_equal(loaded.labels[rows, columns], classes)


def test_a_changed_scene_is_refused_and_another_predicted(trained, tmp_path, capsys):
    folder = trained.parent
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    toml = folder / "scene" / "scene.toml"
    text = toml.read_text()
    try:
        toml.write_text(text.replace("train_fraction = 0.4", "train_fraction = 0.5"))
        for command in ("evaluate", "predict", "train"):
            assert main([command, str(out), "--quiet", "--threads", "1"]) == 2
            assert "[split] train_fraction was 0.4, is 0.5" in capsys.readouterr().err
        (out / "origin.json").rename(tmp_path / "origin.json")
        assert main(["evaluate", str(out), "--quiet"]) == 2
        assert "of another release" in capsys.readouterr().err
        (tmp_path / "origin.json").rename(out / "origin.json")
        (folder / "scene").rename(folder / "moved")
        other = ["--scene", str(folder / "moved" / "scene.toml"), "--out", str(tmp_path / "map")]
        assert main(["predict", str(out), "--quiet", "--threads", "1", "--stride", "8", *other]) == 0
        assert (tmp_path / "map" / "map.tif").exists() and not (tmp_path / "map" / LOCK).exists()
        assert main(["evaluate", str(out), "--quiet"]) == 2
        assert "scene.toml does not exist" in capsys.readouterr().err
    finally:
        if (folder / "moved").exists():
            (folder / "moved").rename(folder / "scene")
        toml.write_text(text)


def test_a_coarse_map_is_not_what_is_scored(trained):
    arguments = [str(trained), "--quiet", "--threads", "1"]
    assert main(["evaluate", *arguments]) == 0
    before = json.loads((trained / "report.json").read_text())
    assert before["seed"] == before["config"]["seed"] == 7 and before["map"] is None
    assert main(["predict", *arguments, "--stride", "6"]) == 0
    assert main(["evaluate", *arguments]) == 0
    after = json.loads((trained / "report.json").read_text())
    assert after["confusion_matrix"] == before["confusion_matrix"] and after["map"]["stride"] == 6
    page = (trained / "report.html").read_text()
    assert "one of every 6 rows and columns" in page and 'href="map.tif"' in page
    for words in ("sar.tif", "producer's accuracy", "user's accuracy", "IoU", "hectares"):
        assert words in page
    assert all(c["map_pixels"] is not None for c in after["classes"])


def test_measures_of_a_class():
    found = by_class([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert found[0] == {"producers_accuracy": 3 / 4, "users_accuracy": 3 / 5, "f1": 6 / 9, "iou": 3 / 6}
    assert found[2] == dict.fromkeys(found[0])


HOLD = "import sys, time; from pathlib import Path; from bdgf_fast.pipeline.locks import lock; lock(Path(sys.argv[1]));print(1, flush=True); time.sleep(600)"  # noqa: E501


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_lock_survives_no_kill(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "1\n"
        for shared in (False, True):
            with released(), pytest.raises(UserError, match=rf"in use by another bdgf-fast command \(process {holder.pid}\)"):
                lock(tmp_path, shared=shared)
        assert main(["run", "synthetic", "--out", str(tmp_path), "--quiet"]) == 2
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with released():
        lock(tmp_path)
        lock(tmp_path)  # a second time in one process
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        ((1, 200), [], "the scene is 1 x 200 pixels; the diffusion model needs at least 7 x 7"),
        ((1, 200), ["model.mode=patch", "features.path=maps.npy"], "the network on patches needs at least 7 x 7"),
        ((8, 200), ["model.mode=patch"], "data.patch is 11 pixels, larger than the scene (8 x 200); --set data.patch=8 or less"),
        ((1, 200), ["features.path=maps.npy"], None),
    ],
)
def test_small_scenes(size, settings, words):
    class Small:
        height, width = size

    config = Config().override(*settings)
    if words is None:
        check_size(Small, config)
        return
    with pytest.raises(UserError) as caught:
        check_size(Small, config)
    assert words in str(caught.value)
