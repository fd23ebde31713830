"""Maps of another model in place of the denoiser's features: read alike, projected alike, cut alike; they guide the network."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from bdgf_fast.data import scene_from_arrays
from bdgf_fast.errors import UserError
from bdgf_fast.features.arrays import ArrayFeatures
from bdgf_fast.network.predict import predict_pixels
from bdgf_fast.network.train import train
from bdgf_fast.report.evaluation import evaluate


@pytest.fixture
def maps(site):
    rng = np.random.default_rng(2)
    fields = rng.normal(size=(12, 65, 65)).cumsum(1).cumsum(2) + 5
    return fields.astype(np.float32)


def test_maps_are_centred_and_scaled_by_the_training_side(site, config, maps):
    features = ArrayFeatures.fit(site.prepared, config, 0, [maps])
    assert features.channels == (8,)
    region = site.split.train_region
    whole = features.tile(0, 0, 65, 65)[0].numpy()
    inside = whole[:, region].astype(float)
    np.testing.assert_allclose(inside.mean(1), 0, atol=1e-4)
    # principal components of the region, by numpy, up to sign
    x = maps[:, region].astype(float)
    values, vectors = np.linalg.eigh(np.cov(x, bias=True))
    values, vectors = values[::-1][:8], vectors[:, ::-1][:, :8]
    expected = vectors.T @ (maps.reshape(12, -1) - x.mean(1, keepdims=True)) / np.sqrt(values.mean())
    np.testing.assert_allclose(np.abs(whole.reshape(8, -1)), np.abs(expected), rtol=1e-3, atol=1e-3)


def test_patches_block_and_tile_agree(site, config, maps):
    features = ArrayFeatures.fit(site.prepared, config, 0, [maps])
    rc = torch.tensor([[0, 0], [3, 64], [64, 64], [30, 31]])
    patches, block = features.patches(rc, 7)[0], features.block(0, 0, 65, 65, 7)(rc)[0]
    torch.testing.assert_close(patches, block)
    whole = np.pad(features.tile(0, 0, 65, 65)[0].numpy(), ((0, 0), (3, 3), (3, 3)), mode="reflect")
    for patch, (r, c) in zip(patches, rc.tolist(), strict=True):
        np.testing.assert_allclose(patch.numpy(), whole[:, r : r + 7, c : c + 7], rtol=1e-5, atol=1e-5)


def test_files_give_what_arrays_give(site, config, maps, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    np.save(tmp_path / "chw.npy", maps)
    np.save(tmp_path / "hwc.npy", maps.transpose(1, 2, 0))
    with rasterio.open(tmp_path / "maps.tif", "w", driver="GTiff", height=65, width=65, count=12, dtype="float32") as out:
        out.write(maps)
    expected = ArrayFeatures.fit(site.prepared, config, 0, [torch.from_numpy(maps)]).tile(3, 5, 20, 30)[0]
    for name in ("chw.npy", "hwc.npy", "maps.tif"):
        found = ArrayFeatures.fit(site.prepared, config, 0, [tmp_path / name]).tile(3, 5, 20, 30)[0]
        torch.testing.assert_close(found, expected)


def test_several_maps_guide_one_stage_each_or_all_together(site, config, maps):
    parts = [maps[:8], maps[8:]]
    assert ArrayFeatures.fit(site.prepared, config, 0, parts).channels == (8, 4)
    assert ArrayFeatures.fit(site.prepared, config.override("features.pca=joint"), 0, parts).channels == (8,)


def test_missing_values_take_the_training_mean(site, config, maps):
    holes = maps.copy()
    holes[:, 20:24, 20:24] = np.nan
    features = ArrayFeatures.fit(site.prepared, config, 0, [holes])
    region = site.split.train_region & np.isfinite(holes[0])
    filled = np.where(np.isnan(holes), maps[:, region].mean(1)[:, None, None], holes)
    expected = ArrayFeatures.fit(site.prepared, config, 0, [filled])
    torch.testing.assert_close(features.tile(18, 18, 9, 9)[0], expected.tile(18, 18, 9, 9)[0], rtol=1e-3, atol=1e-3)


def test_state_restores(site, config, maps):
    features = ArrayFeatures.fit(site.prepared, config, 0, [maps[:8], maps[8:]])
    again = ArrayFeatures.restore(site.prepared, config, [maps[:8], maps[8:]], features.state(), features.tensors())
    for a, b in zip(features.tile(0, 0, 30, 30), again.tile(0, 0, 30, 30), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(UserError, match="channels"):
        ArrayFeatures.restore(site.prepared, config, [maps[:7], maps[8:]], features.state(), features.tensors())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda m, t: m[:, :60], "rows and columns|one grid"),
        (lambda m, t: m[None], "feature map is"),
        (lambda m, t: t / "absent.npy", "absent.npy does not exist"),
        (lambda m, t: m[0, :60], "differ in size"),
    ],
)
def test_bad_maps_are_named(site, config, maps, tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        ArrayFeatures.fit(site.prepared, config, 0, [given(maps, tmp_path)])


def test_informative_maps_help_where_the_bands_say_nothing(config):
    """The bands are noise and the maps tell the classes: guided training must see it, unguided cannot."""
    from bdgf_fast.data import SplitSpec, make_split, prepare

    rng = np.random.default_rng(0)
    labels = 1 + (np.add.outer(np.arange(64) // 5, np.arange(64) // 7) % 3)
    told = np.stack([labels == k for k in (1, 2, 3)]) + 0.1 * rng.normal(size=(3, 64, 64))
    bands = {"optical": rng.normal(size=(3, 64, 64)).astype(np.float32)}
    spec = SplitSpec(kind="blocks", block=8, train_fraction=0.4, per_class=40)
    scene = scene_from_arrays("told", bands, labels, classes={1: "a", 2: "b", 3: "c"}, split=spec)
    prepared = prepare(scene, make_split(scene, 7, 0))
    config = config.override("model.branches=[cnn]", "train.epochs=8", "train.learning_rate=1e-2", "train.ema=0.8")
    features = ArrayFeatures.fit(prepared, config, 0, [told.astype(np.float32)])
    accuracy = {}
    for name, source in (("guided", features), ("alone", None)):
        network, _ = train(prepared, source, config, seed=0)
        accuracy[name] = evaluate(network, source, prepared, config)["overall_accuracy"]
    assert accuracy["guided"] > 0.9 and accuracy["alone"] < 0.6
    assert predict_pixels(network, None, prepared, config, prepared.split.test[:3]).probabilities.shape == (3, 3)


def test_the_example_runs(capsys):
    path = Path(__file__).parents[2] / "examples" / "own_features.py"
    spec = importlib.util.spec_from_file_location("own_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    accuracies = [float(line.split()[-2]) for line in capsys.readouterr().out.splitlines()]
    assert len(accuracies) == 3 and min(accuracies) > 40  # seven classes
