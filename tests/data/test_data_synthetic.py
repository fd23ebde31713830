"""The synthetic scene, scenes written to disk, colours and figures."""

import numpy as np
import pytest
import torch

from bdgf_fast.data import SplitSpec, load_scene, make_split, prepare, scene_from_arrays, synthetic_scene, write_scene
from bdgf_fast.data.colours import class_colours, parse_colour
from bdgf_fast.errors import UserError
from bdgf_fast.report.figure import UNLABELLED, false_colour, paint, write_png

pytest.importorskip("scipy")


def test_synthetic_scene_is_reproducible_and_complete():
    scene, same, other = synthetic_scene(4), synthetic_scene(4), synthetic_scene(5)
    assert [len(m.bands) for m in scene.modalities] == [28, 2, 1] and (scene.height, scene.width) == (112, 112)
    for a, b, c in zip(scene.modalities, same.modalities, other.modalities, strict=True):
        first = a.read(0, 112, 0, 112)
        assert first.dtype == np.float32 and np.array_equal(first, b.read(0, 112, 0, 112))
        assert not np.array_equal(first, c.read(0, 112, 0, 112))
    assert scene.valid().all() and (scene.labels >= 0).all()
    counts = np.bincount(scene.labels.ravel(), minlength=7)
    assert counts.min() > 400, "every class is there in numbers"
    assert synthetic_scene(0, (70, 90), bands=5).modality("spectral").read(0, 70, 0, 90).shape == (5, 70, 90)


@pytest.mark.parametrize("seed", range(4))
def test_demo_splits_hold_every_class(seed):
    scene = synthetic_scene(seed)
    for split_seed in range(3):
        split = make_split(scene, patch=11, seed=split_seed)
        assert min(split.counts["train"]) >= 20 and min(split.counts["test"]) > 100


def patch_features(prepared, rc):
    """Mean, spread and centre of the whole patch and of its inner third."""
    x = prepared.patches(rc, 11)
    inner = x[:, :, 3:8, 3:8]
    parts = [x.mean((2, 3)), x.std((2, 3)), x[:, :, 5, 5], inner.mean((2, 3)), inner.std((2, 3))]
    return torch.cat(parts, 1).numpy()


@pytest.mark.slow
def test_no_sensor_is_enough_alone():
    forest = pytest.importorskip("sklearn.ensemble").RandomForestClassifier
    scene = synthetic_scene(0)
    score = {name: [] for name in ("all", "spectral", "sar", "surface")}
    for seed in range(2):
        split = make_split(scene, patch=11, seed=seed)
        prepared = prepare(scene, split)
        y, truth = (prepared.labels[rc[:, 0], rc[:, 1]].numpy() for rc in (split.train, split.test))
        for name in score:
            one = prepared if name == "all" else prepared.select([name])
            model = forest(150, random_state=0).fit(patch_features(one, split.train), y)
            score[name].append(100 * (model.predict(patch_features(one, split.test)) == truth).mean())
    mean = {name: np.mean(values) for name, values in score.items()}
    assert 70 < mean["all"] < 95, mean
    assert mean["all"] - max(mean[n] for n in ("spectral", "sar", "surface")) > 8, mean


def test_synthetic_scene_refuses_nonsense():
    with pytest.raises(UserError, match="size is 20 x 90"):
        synthetic_scene(0, (20, 90))
    with pytest.raises(UserError, match="bands is 2"):
        synthetic_scene(0, bands=2)


def test_written_scene_reads_back_alike(tmp_path):
    pytest.importorskip("rasterio")
    scene = synthetic_scene(1)
    back = load_scene(write_scene(scene, tmp_path / "folder"))
    assert back.name == scene.name and back.split_spec == scene.split_spec and back.classes == scene.classes
    assert np.array_equal(back.labels, scene.labels) and back.crs.to_epsg() == 32633
    first, second = make_split(scene, seed=2), make_split(back, seed=2)
    assert torch.equal(first.train, second.train) and torch.equal(first.test, second.test)
    a, b = prepare(scene, first), prepare(back, second)
    assert torch.equal(a.window(-5, -5, 130, 130), b.window(-5, -5, 130, 130))
    own = ("scene", "pixel")  # the name, and the size of the pixels that the written scene was given
    assert {k: v for k, v in a.state().items() if k not in own} == {k: v for k, v in b.state().items() if k not in own}
    assert back.modality("spectral").rgb == scene.modality("spectral").rgb


@pytest.mark.parametrize("codes", [(0, 3), (1, 300), (-2, 70_000)])
def test_written_scene_with_odd_codes_gaps_and_maps(tmp_path, codes):
    pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    band = rng.normal(size=(12, 17)).astype(np.float32)
    band[3, 4] = np.nan
    labels = rng.choice([-9, *codes], (12, 17))
    maps = {"train": rng.random((12, 17)) < 0.5}
    maps["test"] = ~maps["train"]
    maps = {side: mask & (labels != -9) for side, mask in maps.items()}
    names = {codes[0]: 'a "quoted" name', codes[1]: "back\\slash"}
    scene = scene_from_arrays(
        "odd", {"x": band}, labels, classes=names, ignore=[-9, 0] if 0 not in codes else [-9], given=maps
    )
    back = load_scene(write_scene(scene, tmp_path))
    assert np.array_equal(back.labels, scene.labels) and back.classes == scene.classes
    assert back.split_spec == scene.split_spec and all(np.array_equal(back.given[s], maps[s]) for s in maps)
    assert np.array_equal(back.modalities[0].read(0, 12, 0, 17)[0], band, equal_nan=True)


def test_write_scene_onto_a_file(tmp_path):
    pytest.importorskip("rasterio")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken cannot be made a folder"):
        write_scene(synthetic_scene(0, (64, 64)), tmp_path / "taken")


def test_colours_differ_and_mean_something():
    for names in ([f"class {i}" for i in range(60)], ["Forest", "forest edge", "water", "Sea water", "x"], ["a"]):
        colours = class_colours(names)
        assert len(set(colours)) == len(names) and all(0 <= v <= 255 for c in colours for v in c)
    water, trees = class_colours(["Open water", "Trees"])
    assert max(water) == water[2] and max(trees) == trees[1]
    assert parse_colour("#0a0B0c") == (10, 11, 12) == parse_colour([10, 11, 12])
    for bad in ("red", "#12345", [1, 2], [1, 2, 256], [1.0, 2, 3], 7):
        with pytest.raises(ValueError, match="is not a colour"):
            parse_colour(bad)


def test_false_colour_and_paint():
    band = np.arange(3 * 10 * 12, dtype=np.float32).reshape(3, 10, 12)
    band[:, 0, 0] = np.nan
    scene = scene_from_arrays("s", {"x": band, "y": band[0]}, np.ones((10, 12), int))
    image = false_colour(scene)
    assert image.shape == (10, 12, 3) and image.dtype == np.uint8 and (image[0, 0] == 255).all()
    assert image[9, 11].tolist() == [255] * 3 and image[0, 1].tolist() == [0] * 3
    assert false_colour(scene, step=3).shape == (4, 4, 3)
    grey = false_colour(scene, "y")
    assert np.array_equal(grey[..., 0], grey[..., 2])
    scene.modalities[0].bands = ["Red", "green", "Blue"]
    assert false_colour(scene).shape == (10, 12, 3)
    painted = paint(np.array([[-1, 0]]), scene.classes)
    assert painted[0, 0].tolist() == list(UNLABELLED) and tuple(painted[0, 1]) == scene.classes[0].colour


@pytest.mark.parametrize(("shape", "count"), [((64, 64), 6), ((20, 200), 17), ((200, 20), 2), ((1, 3), 1)])
def test_figure_shows_every_colour(tmp_path, shape, count):
    image = pytest.importorskip("matplotlib.image")
    index = np.arange(shape[0] * shape[1]).reshape(shape) * count // (shape[0] * shape[1])
    scene = scene_from_arrays("s", {"x": np.random.default_rng(0).normal(size=shape)}, index + 1, split=SplitSpec())
    write_png(tmp_path / "map.png", scene, index, title="A title")
    shown = {tuple(c) for c in (image.imread(tmp_path / "map.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)}
    assert {c.colour for c in scene.classes} <= shown
    with pytest.raises(ValueError, match="predicted has shape"):
        write_png(tmp_path / "x.png", scene, index[:, :-1])
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]


def test_another_calibration_is_a_gain_and_an_offset_of_each_band():
    plain, off = synthetic_scene(3, (64, 64), bands=4), synthetic_scene(3, (64, 64), bands=4, sensor=1)
    assert (plain.labels == off.labels).all()
    for modality in plain.modalities:
        own, other = modality.read(0, 64, 0, 64), off.modality(modality.name).read(0, 64, 0, 64)
        for a, b in zip(own, other, strict=True):
            gain, offset = np.polyfit(a.ravel(), b.ravel(), 1)
            np.testing.assert_allclose(b, gain * a + offset, atol=1e-3 * b.std())
            assert np.exp(-0.36) < gain < np.exp(0.36) and abs(gain - 1) > 1e-3 and abs(offset) < 1.01 * a.std()


def test_a_season_dries_the_crops_more_than_the_trees():
    early, late = synthetic_scene(3, (64, 64), bands=28), synthetic_scene(3, (64, 64), bands=28, season=1)
    assert (early.labels == late.labels).all()
    change = {}
    for code, name in ((3, "trees"), (4, "crops")):
        where = early.labels == code
        red, nir = 3, 7  # about 630 and 930 nm
        ratio = [(s[nir] / s[red]).item() for s in (scene.modality("spectral").read(0, 64, 0, 64)[:, where].mean(1)
                                                    for scene in (early, late))]  # fmt: skip
        change[name] = ratio[1] / ratio[0]
        level = [scene.modality("sar").read(0, 64, 0, 64)[0, where].mean() for scene in (early, late)]
        if name == "crops":
            assert level[1] - level[0] == pytest.approx(-2.5, abs=0.01)
    assert change["crops"] < 0.6 < change["trees"] < 1
