"""Maps of many scenes: a list with mistakes in it, what is kept, what is made anew, the index, the mosaics, several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from application import TINY
from rasterio.transform import from_origin

import bdgf_fast as bf
from bdgf_fast.cli import main
from bdgf_fast.data import synthetic_scene, write_scene
from bdgf_fast.pipeline import many_maps
from bdgf_fast.pipeline.run import Run
from bdgf_fast.pipeline.scene_list import named, read_list

LEFT, TOP = 500_000, 5_500_000


@pytest.fixture(scope="module")
def finished(scene_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("many") / "run"
    brief = ['model.branches=["cnn"]', "model.trees=5", "predict.block=16"]
    settings = [word for setting in [*TINY, *brief] for word in ("--set", setting)] + ["--threads", "1"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


def place(folder, seed, *, left=LEFT, crs="EPSG:32633", lost_columns=0):
    """A scene of 64 x 64 pixels whose first columns have no value."""
    scene = synthetic_scene(seed=seed, size=(64, 64), bands=6)
    if lost_columns:
        scene.modality("sar").parts[0][0]._array[..., :lost_columns] = np.nan
    scene.labels[:], scene.classes = -1, []
    return write_scene(scene, folder, crs=crs, transform=from_origin(left, TOP, 10, 10))


@pytest.fixture
def listed(tmp_path):
    """Two scenes that overlap by 16 columns, one in another coordinate system, one that is missing and one that is damaged."""
    place(tmp_path / "in/a", 1)
    place(tmp_path / "in/b", 2, left=LEFT + 480, lost_columns=4)
    place(tmp_path / "in/c", 3, crs="EPSG:32634")
    (tmp_path / "in/bad.toml").write_text("[[modality]\n")
    path = tmp_path / "in/list.txt"
    path.write_text("# scenes\na/scene.toml\n\nb\nno/such.toml\n  bad.toml\nc/scene.toml\n", encoding="utf-8")
    return path


def read(path):
    with rasterio.open(path) as data:
        return data.read()


def index_of(out):
    return json.loads((out / "index.json").read_text(encoding="utf-8"))


def states(out):
    return {feature["id"]: feature["properties"]["state"] for feature in index_of(out)["features"]}


def test_a_list_names_scenes_relative_to_itself(tmp_path):
    path = tmp_path / "list.txt"
    lines = ["\ufeff# a list", " x/a.toml ", "", "/else/where/a.toml", "x/../x/a.toml", "A.toml", "f/scene.toml", "augsburg:data",
             "synthetic"]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    found = named(read_list(path))
    assert [scene.name for scene in found] == ["a", "a-2", "A-3", "f", "augsburg", "synthetic"]
    assert found[0].reference == str(tmp_path / "x/a.toml") and found[1].reference == "/else/where/a.toml"
    assert found[4].reference == f"augsburg:{tmp_path / 'data'}" and found[5].reference == "synthetic"


def test_the_others_go_on_and_the_index_says_what_is_wrong(finished, listed, tmp_path, capsys, caplog):
    out = tmp_path / "maps"
    assert main(["predict", str(finished), "--scenes", str(listed), "--out", str(out), "--quiet"]) == 1
    said = capsys.readouterr()
    assert "such: not mapped: " in caplog.text and "bad: not mapped: " in caplog.text and "Traceback" not in caplog.text
    assert "3 of 5 scenes are mapped; 2 could not be mapped" in said.out
    assert states(out) == {"a": "done", "b": "done", "such": "failed", "bad": "failed", "c": "done"}
    assert not (out / "such").exists() and not (out / "bad").exists()
    features = {feature["id"]: feature for feature in index_of(out)["features"]}
    assert "does not exist" in features["such"]["properties"]["error"] and features["such"]["geometry"] is None
    facts = features["b"]["properties"]
    assert facts["crs"] == "EPSG:32633" and facts["pixel_size"] == [10, 10] and facts["proj:shape"] == [64, 64]
    assert facts["bounds"] == [LEFT + 480, TOP - 640, LEFT + 1120, TOP] and facts["seconds"] > 0
    assert features["b"]["bbox"] == pytest.approx([15.0066, 49.6468, 15.0155, 49.6526], abs=2e-4)
    digest = many_maps.origin.digest_of(finished / "checkpoints/network.safetensors")
    assert facts["model_digest"] == digest and features["b"]["assets"]["map"]["href"] == "b/map.tif"
    # a map of the list is the map of its scene
    assert main(["predict", str(finished), "--scene", str(tmp_path / "in/c"), "--out", str(tmp_path / "c"), "--quiet"]) == 0
    np.testing.assert_array_equal(read(out / "c/map.tif"), read(tmp_path / "c/map.tif"))
    # one mosaic a coordinate system; where b has no value, a shows
    assert [entry["file"] for entry in index_of(out)["mosaics"]] == ["mosaic-epsg32633.vrt", "mosaic-epsg32634.vrt"]
    a, b = read(out / "a/map.tif")[0], read(out / "b/map.tif")[0]
    assert (b[:, :4] == 0).all()
    expected = np.concatenate([a, b[:, 16:]], 1)
    expected[:, 52:64] = b[:, 4:16]
    np.testing.assert_array_equal(read(out / "mosaic-epsg32633.vrt")[0], expected)
    np.testing.assert_array_equal(read(out / "mosaic-epsg32634.vrt")[0], read(out / "c/map.tif")[0])
    with rasterio.open(out / "mosaic-epsg32633.vrt") as mosaic, rasterio.open(out / "a/map.tif") as one:
        codes = np.unique(expected)
        assert [mosaic.colormap(1)[code] for code in codes] == [one.colormap(1)[code] for code in codes]


def test_only_what_has_changed_is_mapped_again(finished, listed, tmp_path, monkeypatch):
    out, mapped = tmp_path / "maps", []
    predict = Run.predict
    monkeypatch.setattr(Run, "predict", lambda self, reference, *a, **k: (mapped.append(Path(reference).parent.name),
                                                                          predict(self, reference, *a, **k)))
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(line for line in lines if "bad" not in line and "such" not in line))
    found = bf.predict_scenes(finished, listed, out, quiet=True)
    assert mapped == ["a", "b", "c"] and not found.failed and list(found.maps) == ["a", "b", "c"]
    before = read(out / "b/map.tif")
    assert main(["predict", str(finished), "--scenes", str(listed), "--out", str(out), "--quiet"]) == 0
    assert mapped == ["a", "b", "c"]
    os.utime(tmp_path / "in/a/sar.tif")  # another time, the same content
    place(tmp_path / "in/b", 7, left=LEFT + 480)
    with open(listed, "a") as stream:
        stream.write("\nnext.toml\n")
    found = bf.predict_scenes(finished, listed, out, quiet=True)
    assert mapped == ["a", "b", "c", "b"] and list(found.failed) == ["next"]
    assert (found.maps["b"].map() != before[0]).any()
    # without the scene in the other coordinate system there is one mosaic
    found = bf.predict_scenes(finished, [tmp_path / "in/a", tmp_path / "in/b"], out, quiet=True)
    assert [path.name for path in found.mosaics] == ["mosaic.vrt"] and len(mapped) == 4
    assert [path.name for path in sorted(out.glob("*.vrt"))] == ["mosaic.vrt"]
    # other settings, other maps
    bf.predict_scenes(finished, [tmp_path / "in/a"], out, quiet=True, precision="bfloat16")
    assert mapped[4:] == ["a"]


def test_a_fault_in_one_scene_leaves_the_others(finished, listed, tmp_path, monkeypatch):
    draw = many_maps.Run._draw

    def faulty(prepared, *rest):
        if prepared.scene.path.parent.name == "a":
            raise RuntimeError("a fault of ours")
        draw(prepared, *rest)

    monkeypatch.setattr(many_maps.Run, "_draw", staticmethod(faulty))
    out = tmp_path / "maps"
    found = bf.predict_scenes(finished, listed, out, quiet=True)
    assert set(found.failed) == {"a", "such", "bad"} and "internal error: RuntimeError: a fault of ours" in found.failed["a"]
    assert set(found.maps) == {"b", "c"} and not (out / "a/item.json").exists()


DIES = """
import os, signal, sys
from bdgf_fast.cli import main
from bdgf_fast.network.whole_scene import Blocks

save = Blocks.save

def dying(self, *block):
    save(self, *block)
    if self.folder.parent.name == "b" and len(list(self.folder.glob("[0-9]*.npz"))) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Blocks.save = dying
main(sys.argv[1:])
"""


def test_a_killed_list_goes_on(finished, listed, tmp_path):
    out = tmp_path / "maps"
    command = ["predict", str(finished), "--scenes", str(listed), "--out", str(out), "--quiet", "--threads", "1"]
    died = subprocess.run([sys.executable, "-c", DIES, *command], capture_output=True)
    assert died.returncode == -signal.SIGKILL
    assert states(out) == {"a": "done", "b": "waiting", "such": "waiting", "bad": "waiting", "c": "waiting"}
    kept = {path: path.stat().st_mtime_ns for path in (out / "a/map.tif", *out.glob("b/blocks/[0-9]*.npz"))}
    assert len(kept) == 4
    saved = []
    from bdgf_fast.network import whole_scene

    save = whole_scene.Blocks.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_scene.Blocks, "save", lambda self, *a: (saved.append(self.path(*a[:2])), save(self, *a)))
        assert main(command) == 1
    assert not set(saved) & set(kept) and len(saved) + len(kept) - 1 == 32
    assert (out / "a/map.tif").stat().st_mtime_ns == kept[out / "a/map.tif"]
    assert set(states(out).values()) == {"done", "failed"}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("scenes", [5, 1])
def test_processes_share_scenes_or_blocks(finished, listed, tmp_path, scenes):
    if scenes == 1:
        listed.write_text("c\n")
    out = tmp_path / "maps"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint",
        "localhost:0", "-m", "bdgf_fast", "predict", str(finished), "--scenes", str(listed), "--out", str(out), "--quiet",
        "--device", "cpu", "--threads", "1",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (found.returncode == 0) == (scenes == 1), found.stderr
    expected = bf.predict_scenes(finished, listed, tmp_path / "alone", quiet=True)
    assert states(out) == states(tmp_path / "alone") and len(index_of(out)["mosaics"]) == len(expected.mosaics)
    for name, alone in expected.maps.items():
        np.testing.assert_array_equal(read(out / name / "map.tif")[0], alone.map())
    if scenes == 5:
        assert found.stderr.count("not mapped") == 2


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--scenes", "{list}"], "predict --scenes needs --out, the directory of the maps"),
        (["--scenes", "{list}", "--out", "{run}"], "needs another --out than the run's directory"),
        (["--scenes", "{none}", "--out", "{out}"], "cannot be read"),
        (["--scenes", "{empty}", "--out", "{out}"], "the list names no scene"),
        (["--scenes", "{image}", "--out", "{out}"], "is not text in UTF-8"),
        (["--scenes", "{list}", "--out", "{out}", "--features", "x.npy"], "--features are the maps of one scene"),
        (["--scenes", "{list}", "--out", "{out}", "--stride", "0"], "--stride is 0"),
    ],
)
def test_bad_input(finished, listed, tmp_path, capsys, more, sentence):
    places = {"list": listed, "run": finished, "none": tmp_path / "none.txt", "empty": tmp_path / "empty.txt",
              "image": tmp_path / "in/a/sar.tif", "out": tmp_path / "out"}  # fmt: skip
    places["empty"].write_text("# nothing\n")
    assert main(["predict", str(finished), *(word.format(**places) for word in more)]) == 2
    text = capsys.readouterr().err
    assert sentence in text and text.startswith("error: ") and not (tmp_path / "out").exists()
