"""A modality that is missing: hidden in training, and pixels that are classified without it."""

import dataclasses

import numpy as np
import pytest
import torch

from bdgf_fast.data import prepare
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.features.source import hiding
from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.samples import DenseSamples
from bdgf_fast.network.train import load_network, train

RADAR = slice(3, 5)
"""Channels of the site's second modality."""


@pytest.fixture
def hiding_config(config):
    return config.override("model.hide_rate=0.5", "model.trees=10", "train.crops=8", "train.epochs=1")


def with_radar(site, change):
    """The site, prepared alike, with other values in the radar's channels."""
    from bdgf_fast.data.prepared import PreparedScene
    from bdgf_fast.data.sources.raster import ArrayRaster

    radar = site.scene.modality("radar")
    values = change(radar.read(0, site.scene.height, 0, site.scene.width).copy())
    raster = ArrayRaster(values, "changed", layout="chw", nodata=None, crs=None, transform=None)
    other = dataclasses.replace(radar, parts=[(raster, [0, 1])])
    modalities = [other if m.name == "radar" else m for m in site.scene.modalities]
    scene = dataclasses.replace(site.scene, modalities=modalities, _lacking=None)
    return PreparedScene(scene, site.prepared.normalisers, split=site.split)


def hole(values):
    values[:, 20:40, 10:35] = np.nan
    return values


@pytest.mark.parametrize("cache_bytes", [2**30, 1])
def test_a_hidden_modality_reads_as_missing_and_the_scene_stays(site, cache_bytes):
    whole = prepare(site.scene, site.split, cache_bytes=cache_bytes)
    before = whole.window(-3, 5, 20, 70)
    view = whole.hiding("radar")
    seen = view.window(-3, 5, 20, 70)
    assert not seen[RADAR].any() and torch.equal(seen[:3], before[:3]) and torch.equal(seen[5:], before[5:])
    rc = torch.tensor([[0, 0], [30, 64]])
    patches = view.patches(rc, 5)
    assert not patches[:, RADAR].any() and torch.equal(patches[:, :3], whole.patches(rc, 5)[:, :3])
    assert torch.equal(whole.window(-3, 5, 20, 70), before) and whole.hidden is None
    with pytest.raises(ValueError, match="no modality 'sonar' to hide, only optical, radar, height"):
        whole.hiding("sonar")


def test_what_a_pixel_lacks(site):
    def change(values):
        values[:, :4] = np.nan
        return values

    prepared = with_radar(site, change)
    with pytest.warns(UserWarning, match="260 of 4225 pixels hold nodata or NaN in modality 'radar'; they take no part"):
        found = prepared.lacking()
    assert (found[:4] == 1).all() and (found[4:] == -1).all()
    assert torch.equal(torch.as_tensor(prepared.valid), found == -1)
    assert (prepared.select(["optical", "height"]).lacking()[:4] == -2).all()  # nobody knows how to do without what it never saw


def test_features_of_a_hidden_modality_do_not_depend_on_it(site, config, denoiser):
    features = DiffusionFeatures.fit(denoiser, site.prepared, config, 3)
    changed = with_radar(site, lambda values: values[:, ::-1] * 0.5)
    whole, other = (features.over(p).tile(8, 8, 20, 20)[0] for p in (site.prepared, changed))
    assert not torch.equal(whole, other)
    hidden, same = (hiding(p, features, "radar")[1].tile(8, 8, 20, 20)[0] for p in (site.prepared, changed))
    assert torch.equal(hidden, same) and not torch.equal(hidden, whole)


def test_crops_are_hidden_at_the_rate_and_as_a_function_of_the_step(site, hiding_config):
    config = hiding_config.override("train.crops=48")
    made = [DenseSamples(site.prepared, None, config, 7, torch.as_tensor(site.split.train), "cpu") for _ in range(2)]
    drawn = np.stack([made[0]._hidden(step) for step in range(200)])
    assert np.array_equal(drawn[13], made[1]._hidden(13))
    shares = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    assert shares[0] == pytest.approx(0.5, abs=0.02) and shares[1:] == pytest.approx([1 / 6] * 3, abs=0.02)
    never = DenseSamples(site.prepared, None, config.override("model.hide_rate=0"), 7, torch.as_tensor(site.split.train), "cpu")
    assert not never._hidden(0).any() and len(never.views) == 1


@pytest.fixture
def trained(site, hiding_config, denoiser, tmp_path):
    features = DiffusionFeatures.fit(denoiser, site.prepared, hiding_config, 3)
    path = tmp_path / "network.safetensors"
    network, _ = train(site.prepared, features, hiding_config, seed=1, checkpoint=path)
    return network, features, path


def test_a_prediction_without_a_modality_does_not_depend_on_it(site, hiding_config, trained):
    network, features, path = trained
    rc = torch.as_tensor(site.split.test[:40])
    changed = with_radar(site, lambda values: values[:, ::-1] * 0.5)
    views = [hiding(p, features.over(p), "radar") for p in (site.prepared, changed)]
    first, second = (predict_pixels(network, own, view, hiding_config, rc) for view, own in views)
    assert torch.equal(first.probabilities, second.probabilities)
    stored, _, _ = load_network(path, hiding_config)
    again = predict_pixels(stored, views[0][1], views[0][0], hiding_config, rc)
    assert torch.equal(again.probabilities, first.probabilities)
    whole = predict_pixels(network, features, site.prepared, hiding_config, rc)
    assert not torch.equal(whole.probabilities, first.probabilities)
    forests = [name for name in first.labels if "forest" in name]
    assert len(forests) == 2 and any((whole.labels[name] != first.labels[name]).any() for name in forests)


@pytest.mark.filterwarnings("ignore:scene 'small'", "ignore:changed")
def test_a_hole_in_one_modality_is_mapped_without_it(site, hiding_config, trained):
    network, features, _ = trained
    prepared = with_radar(site, hole)
    source = features.over(prepared)
    maps = []
    for block in (16, 64):
        whole = torch.zeros(network.classes, 65, 65)
        for y, x, part, labels in predict(network, source, prepared, hiding_config.override(f"predict.block={block}")):
            whole[:, y : y + part.shape[1], x : x + part.shape[2]] = part
            assert all((values >= 0).all() for values in labels.values())
        maps.append(whole)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-5)
    rc = torch.tensor([[25, 12], [39, 34], [41, 34], [2, 60]])
    view, own = hiding(prepared, source, "radar")
    without, seeing = (predict_pixels(network, s, p, hiding_config, rc).probabilities for p, s in ((view, own), (prepared, source)))
    found = maps[0][:, rc[:, 0], rc[:, 1]].T
    torch.testing.assert_close(found[:2], without[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2:], seeing[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:changed")
def test_a_network_that_never_hid_leaves_the_hole_open(site, config, denoiser):
    config = config.override("model.trees=0", "train.crops=8", "train.epochs=1")
    features = DiffusionFeatures.fit(denoiser, site.prepared, config, 3)
    network, _ = train(site.prepared, features, config, seed=1)
    prepared = with_radar(site, hole)
    labels = np.full((65, 65), -2)
    for y, x, _, found in predict(network, features.over(prepared), prepared, config):
        part = found["cnn"]
        labels[y : y + part.shape[0], x : x + part.shape[1]] = part
    inside = np.zeros((65, 65), bool)
    inside[20:40, 10:35] = True
    assert (labels[inside] == -1).all() and (labels[~inside] >= 0).all()


def test_hiding_is_for_the_dense_network(config):
    with pytest.raises(ValueError, match=r'model.hide_rate is 0.3, which is for the dense network; set model.mode = "dense"'):
        config.override("model.mode=patch", "model.hide_rate=0.3")
