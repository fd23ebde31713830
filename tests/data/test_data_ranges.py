"""Values of a scene against those its model was trained on."""

import json
import warnings

import numpy as np
import pytest

from bdgf_fast.cli import main
from bdgf_fast.data import PreparedScene, SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.data.check import check
from bdgf_fast.data.ranges import value_warnings
from bdgf_fast.errors import DataWarning

H, W = 40, 30


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {"s2": rng.normal(2000, 300, (3, H, W)).astype(np.float32), "dem": rng.normal(100, 9, (1, H, W)).astype(np.float32)}


def build(bands, **options):
    labels = np.arange(H * W).reshape(H, W) // 3 % 2 + 1
    return scene_from_arrays("s", bands, labels, split=SplitSpec(block=5, train_fraction=0.5, per_class=20), **options)


@pytest.fixture
def state():
    scene = build(arrays())
    return json.loads(json.dumps(prepare(scene, make_split(scene, patch=3)).state(), allow_nan=False))


def found(state, bands, **options):
    return value_warnings(PreparedScene.from_state(build(bands, **options), None, state))


def test_state_holds_what_the_training_side_looked_like(state):
    scene = build(arrays())
    split = make_split(scene, patch=3)
    inside = scene.modalities[0].read(0, H, 0, W)[:, split.train_region]
    entry = state["modalities"][0]
    assert entry["percentiles"]["at"] == [0, 1, 5, 25, 50, 75, 95, 99, 100] and entry["units"] == ["", "", ""]
    expected = np.percentile(inside, entry["percentiles"]["at"], axis=1).T
    np.testing.assert_allclose(entry["percentiles"]["values"], expected, rtol=1e-6)
    assert PreparedScene.from_state(scene, None, state).state() == state


def test_the_same_kind_of_values_says_nothing(state):
    assert found(state, arrays(seed=1)) == []


def test_another_offset_is_named_with_the_share_of_clipped_values(state):
    bands = arrays(seed=1)
    bands["s2"][1] += 1500
    (text,) = found(state, bands)
    low, high = (state["modalities"][0][key][1] for key in ("low", "high"))
    margin = (high - low) / 4
    share = 100 * ((bands["s2"][1] < low - margin) | (bands["s2"][1] > high + margin)).mean()
    assert f"modality 's2' leaves what the model was trained on in band 2 ({share:.1f} % of the values clipped;" in text
    assert "band 1" not in text and share > 50


def test_another_scale_is_seen_though_nothing_is_clipped(state):
    bands = {"s2": arrays(1)["s2"] * 0.3, "dem": arrays(1)["dem"]}
    (text,) = found(state, bands)
    assert all(f"band {i} (" in text for i in (1, 2, 3))


def test_missing_values_and_dead_bands_are_left_aside(state):
    bands = arrays(seed=1)
    bands["s2"][:, :20] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(state, bands) == []


def test_units_and_size_of_pixels(write_tif, write_toml):
    rasterio = pytest.importorskip("rasterio")
    from bdgf_fast.data import load_scene

    def scene(pixel, unit):
        with rasterio.open(write_tif("x.tif", arrays()["s2"], pixel=pixel), "r+") as data:
            data.units = (unit,) * 3
        write_tif("gt.tif", np.arange(H * W).reshape(H, W) // 3 % 2 + np.uint8(1), pixel=pixel)
        text = '[[modality]]\nname = "s2"\npath = "x.tif"\n[labels]\npath = "gt.tif"\n[split]\nblock = 5\nper_class = 9\n'
        return load_scene(write_toml(text))

    trained = scene(10.0, "dB")
    state = json.loads(json.dumps(prepare(trained, make_split(trained, patch=3)).state()))
    assert state["pixel"] == [10.0, 10.0] and state["modalities"][0]["units"] == ["dB"] * 3
    said = value_warnings(PreparedScene.from_state(scene(20.0, "linear"), None, state))
    assert sum("is in 'linear', the model was trained on 'dB'" in text for text in said) == 3
    assert any(text.endswith("pixels of 20 m, the model was trained on 10 m.") for text in said)
    assert value_warnings(PreparedScene.from_state(scene(10.0, ""), None, state)) == []


def test_states_of_older_releases_say_nothing(state):
    for entry in state["modalities"]:
        del entry["units"], entry["percentiles"]
    del state["pixel"]
    bands = arrays(seed=1)
    bands["s2"] += 5000
    assert found(state, bands) == []


def test_data_check_compares_with_a_run_and_with_the_training_side(tmp_path, state, capsys):
    bands = arrays(seed=1)
    bands["s2"] += 5000
    for name, array in bands.items():
        np.save(tmp_path / f"{name}.npy", array)
    entries = "".join(f'[[modality]]\nname = "{name}"\npath = "{name}.npy"\nlayout = "chw"\n' for name in bands)
    (tmp_path / "scene.toml").write_text(entries)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scene.json").write_text(json.dumps(state))
    (tmp_path / "run" / "config.json").write_text('{"config": {"model": {}}}')
    assert main(["data", "check", str(tmp_path), "--run", str(tmp_path / "run")]) == 0
    assert "leaves what the model was trained on in band 1 (100.0 % of the values clipped" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path), "--run", str(tmp_path / "none")]) == 1
    assert "scene.json cannot be read (No such file or directory); --run names the directory of a run" in capsys.readouterr().out
    labels = np.arange(H * W).reshape(H, W) // 3 % 2 + 1
    scene = build(bands)
    outside = ~make_split(scene, patch=11).train_region
    bands["s2"][0][outside] += 3000
    np.save(tmp_path / "s2.npy", bands["s2"])
    np.save(tmp_path / "gt.npy", labels)
    split = "[split]\nblock = 5\ntrain_fraction = 0.5\nper_class = 20\n"
    (tmp_path / "scene.toml").write_text(f'{entries}[labels]\npath = "gt.npy"\n{split}')
    report = check(tmp_path)
    assert any("leaves the range of the training side in band 1 (" in text for level, text in report.findings if level == "look")


def test_warnings_are_data_warnings(state):
    from bdgf_fast.data.ranges import warn_of_values

    bands = arrays(seed=1)
    bands["dem"] *= 3.28
    with pytest.warns(DataWarning, match="modality 'dem' leaves what the model was trained on"):
        warn_of_values(PreparedScene.from_state(build(bands), None, state))
