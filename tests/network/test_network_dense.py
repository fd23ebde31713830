"""The dense network: windows, statistics, crops, and maps that do not depend on the tiles they were computed in."""

import numpy as np
import pytest
import torch

from bdgf_fast.config import Config
from bdgf_fast.data import SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.errors import UserError
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.network.context import Context
from bdgf_fast.network.group_network import DenseNetwork
from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.reach import halo, reach
from bdgf_fast.network.samples import DenseSamples
from bdgf_fast.network.statistics import fit_context, statistics_at
from bdgf_fast.network.stored_maps import StoredMaps
from bdgf_fast.network.train import train
from bdgf_fast.network.windows import from_windows, to_windows


@pytest.fixture
def features(site, config, denoiser):
    return DiffusionFeatures.fit(denoiser, site.prepared, config, 3)


def small_scene(height, width, labels=None, per_class=5, block=4):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(height, width)).cumsum(0).cumsum(1).astype(np.float32)
    arrays = {"a": np.stack([base, base[::-1]]), "b": base[None, :, ::-1].copy()}
    labels = 1 + (base > np.median(base)).astype(np.int64) if labels is None else labels
    spec = SplitSpec(kind="blocks", block=block, train_fraction=0.5, per_class=per_class)
    scene = scene_from_arrays("small", arrays, labels, classes={1: "low", 2: "high"}, split=spec)
    return prepare(scene, make_split(scene, 7, 0))


def test_windows_there_and_back():
    x = torch.arange(2 * 3 * 8 * 16.0).view(2, 3, 8, 16)
    windows = to_windows(x, 4)
    assert windows.shape == (16, 3, 4, 4)
    assert torch.equal(windows[1], x[0, :, :4, 4:8]) and torch.equal(windows[9], x[1, :, :4, 4:8])
    assert torch.equal(from_windows(windows, 8, 16), x)
    with pytest.raises(ValueError, match="8 x 16 pixels is not divided by windows of 16"):
        to_windows(x, 16)


@pytest.mark.parametrize("guided", [True, False])
def test_a_map_does_not_depend_on_its_blocks(site, config, features, guided):
    config = config.override("model.twins=true", "train.epochs=1")
    source = features if guided else None
    network, _ = train(site.prepared, source, config, seed=0)
    maps = []
    for block in (16, 48, 128):  # of a scene of 65 x 65
        whole = torch.zeros(3, 65, 65)
        for y, x, part, branches in predict(network, source, site.prepared, config.override(f"predict.block={block}")):
            whole[:, y : y + part.shape[1], x : x + part.shape[2]] = part
            assert set(branches) == set(network.kinds)
        maps.append(whole)
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=0, atol=2e-5)
    rc = torch.tensor([[0, 0], [64, 64], [0, 64], [33, 17], [64, 3]])
    some = predict_pixels(network, source, site.prepared, config, rc)
    torch.testing.assert_close(some.probabilities, maps[0][:, rc[:, 0], rc[:, 1]].T, rtol=0, atol=2e-5)
    torch.testing.assert_close(maps[0].sum(0), torch.ones(65, 65), rtol=0, atol=1e-4)


def test_views_are_averaged_and_turned_back(site, config):
    network, _ = train(site.prepared, None, config, seed=0)
    rc = site.split.test[:40]
    once = predict_pixels(network, None, site.prepared, config, rc).probabilities
    eight = predict_pixels(network, None, site.prepared, config.override("predict.views=8"), rc).probabilities
    assert not torch.equal(once, eight) and (once - eight).abs().max() < 0.3  # a map that was not turned back would be another's


@pytest.mark.parametrize("branch", ["cnn", "mamba", "transformer"])
def test_nothing_beyond_the_reach_matters(branch):
    config = Config().override(f"model.branches=[{branch}]", "model.width=8", "model.state=2", "model.heads=2", "model.groups=2",
                               "model.guide_cnn=none", "model.guide_mamba=none", "model.guide_transformer=none", "model.trees=0",
                               "model.radii=[2]", "model.hidden=16", "predict.block=16")  # fmt: skip
    prepared = small_scene(96, 96)
    network = DenseNetwork(prepared.groups, (), 2, config.model).eval().requires_grad_(False)
    at, far = torch.tensor([[40, 40]]), reach(config)
    before = predict_pixels(network, None, prepared, config, at).probabilities
    window, changed = prepared.window, {}

    class Disturbed:
        def __getattr__(self, name):
            return getattr(prepared, name)

        def window(self, y, x, h, w):
            values = window(y, x, h, w).clone()
            rows, columns = torch.arange(y, y + h), torch.arange(x, x + w)
            beyond = (rows[:, None] - 40).abs().maximum((columns - 40).abs()) > changed["from"]
            values[:, beyond] += 1
            return values

    changed["from"] = far
    assert torch.equal(predict_pixels(network, None, Disturbed(), config, at).probabilities, before)
    changed["from"] = 6
    assert not torch.equal(predict_pixels(network, None, Disturbed(), config, at).probabilities, before)


def test_labels_weigh_the_inverse_of_their_visits():
    prepared = small_scene(40, 40, per_class=30, block=8)
    config = Config().override("train.crops=8", "train.augment=false", "train.noise=0", "model.statistics=false", "train.epochs=64")
    rc = torch.as_tensor(prepared.split.train)
    samples = DenseSamples(prepared, None, config, 0, rc, "cpu")
    seen, epochs = torch.zeros(len(rc)), 40
    for step in range(epochs * len(rc) // 8):
        for part in samples.parts(step):
            at = part.inputs[3]
            assert (at[:, 1:] >= 5).all() and (at[:, 1:] < 11).all()
        seen += torch.bincount(samples._crops(step)[2][samples._crops(step)[2] >= 0], minlength=len(rc))
    expected = 1 / samples.weight
    assert expected.min() >= 1 and expected.max() > 2  # each is laid over once an epoch itself
    torch.testing.assert_close(seen / epochs, expected, rtol=0.35, atol=0.3)
    assert abs((seen / epochs).sum() / expected.sum() - 1) < 0.03


def test_a_step_reads_what_stands_at_the_labels():
    prepared = small_scene(40, 40, per_class=30, block=8)
    one_part = ("train.crops=6", "train.accumulate=1", "train.noise=0")
    config = Config().override(*one_part, "model.radii=[1]", "model.context=[]", "model.trees=0")
    rc = torch.as_tensor(prepared.split.train)
    samples = DenseSamples(prepared, None, config, 0, rc, "cpu")
    samples.fit(DenseNetwork(prepared.groups, (), 2, config.model))
    (part,) = samples.parts(3)
    x, guides, rows, at = part.inputs
    assert x.shape == (6, 3, 18, 18) and guides == [] and abs(float(part.weight.sum()) - 1) < 1e-5 and part.share == 1
    centre = x[at[:, 0], :, at[:, 1] + 1, at[:, 2] + 1]  # the stem's frame is one pixel
    assert torch.equal(centre, rows[:, :3])  # the first statistics are the bands themselves, whatever way the crop was turned
    for value, target in zip(centre, part.target, strict=True):
        own = [i for i, (r, c) in enumerate(rc.tolist()) if torch.equal(prepared.window(r, c, 1, 1)[:, 0, 0], value)]
        assert int(target) in {int(prepared.labels[tuple(rc[i].tolist())]) for i in own}


def test_statistics_do_not_depend_on_the_cells():
    prepared = small_scene(40, 40)
    rc = torch.tensor([[0, 0], [39, 39], [20, 3], [21, 38]])
    config = Config().override("model.radii=[2,5,6,18]", "model.context=[2,6]")
    context = Context(3, config.model.context)
    fit_context(context, prepared, config)
    a, b = (statistics_at(prepared, None, config.model, rc, side, context) for side in (8, 64))
    assert a.shape == (4, 27 + 3 * 12) and torch.equal(a, b)


def test_the_context_is_centred_and_turned_on_the_training_side():
    prepared = small_scene(40, 40)
    config = Config().override("model.context=[2,6]")
    context = Context(3, config.model.context)
    fit_context(context, prepared, config)
    maps = context(prepared.window(-6, -6, 52, 52))[:, torch.from_numpy(prepared.split.train_region)]
    assert maps.shape[0] == context.channels == 12
    torch.testing.assert_close(maps.mean(1), torch.zeros(12), rtol=0, atol=1e-4)
    assert abs(float(maps.square().mean()) - 1) < 1e-3  # one factor for all
    for own in maps.split(6):  # of one window: uncorrelated, the largest first
        outer = own @ own.T / own.shape[1]
        assert (outer - outer.diag().diag()).abs().max() < 1e-3 and (outer.diag().diff() <= 1e-4).all()


@pytest.mark.parametrize("memory", [0, 30_000, 10**9])
def test_stored_maps_give_what_was_computed(memory):
    maps, calls = [torch.randn(3, 50, 41), torch.randn(2, 50, 41)], []

    def compute(y, x, h, w):
        calls.append((y, x))
        return [m[:, y : y + h, x : x + w] for m in maps]

    stored = StoredMaps(compute, 50, 41, 16, memory)
    padded = [torch.nn.functional.pad(m[None], (20, 20, 20, 20), mode="reflect")[0] for m in maps]
    for y, x, h, w in ((0, 0, 50, 41), (10, 30, 5, 5), (-7, 35, 16, 16), (15, 15, 2, 2), (45, -3, 12, 9), (10, 30, 5, 5)):
        for got, whole in zip(stored.window(y, x, h, w), padded, strict=True):
            assert torch.equal(got, whole[:, y + 20 : y + 20 + h, x + 20 : x + 20 + w])
    assert len(calls) == len(set(calls)) == 12


@pytest.mark.parametrize("size", [(9, 12), (17, 33)])
def test_a_scene_smaller_than_a_window(size):
    prepared = small_scene(*size)
    config = Config().override("model.width=8", "model.state=2", "model.heads=2", "model.groups=2", "train.epochs=1",
                               "model.trees=2", "train.crops=2")  # fmt: skip
    network, _ = train(prepared, None, config, seed=0)
    ((y, x, part, _),) = list(predict(network, None, prepared, config))
    assert (y, x) == (0, 0) and part.shape == (2, *size) and torch.isfinite(part).all()


def test_a_class_with_one_label_and_labels_at_the_border_alone():
    labels = np.zeros((24, 24), np.int64)
    labels[0], labels[:, -1] = 1, 1
    labels[0, 0] = 2
    prepared = small_scene(24, 24, labels)
    prepared.split.train = torch.tensor([[0, 0], [0, 7], [0, 23], [23, 23]])
    config = Config().override("model.branches=[cnn]", "model.width=8", "model.heads=2", "model.groups=2", "train.epochs=2",
                               "model.trees=2", "train.crops=3")  # fmt: skip
    network, history = train(prepared, None, config, seed=0)
    assert np.isfinite(history["curves"]["series"]["loss"]).all()
    assert predict_pixels(network, None, prepared, config, prepared.split.train).probabilities.shape == (4, 2)


def test_halo_covers_windows_and_padding():
    c = Config().model
    assert halo(c) == 16 and halo(Config().override("model.stages=6").model) == 32
    assert reach(Config()) == 55  # 35 of the U-Net, 15 of a scan's window, 5 of the box around


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.crop=20"], "train.crop is 20; the dense network needs a multiple of model.scan_window 16"),
        (["predict.block=40"], "predict.block is 40"),
        (["model.map_radius=8"], "train.crop is 16; with model.map_radius 8 it must be at least 17"),
        (["features.mode=patch"], 'set model.mode = "patch" too'),
        (["model.scan_window=12"], "model.scan_window is 12; it takes one of: 4, 8, 16, 32, 64"),
        (["model.radii=[2,2]"], "model.radii is [2, 2]"),
        (["model.mode=both"], "model.mode is 'both'"),
        (["model.trees=-1"], "model.trees is -1"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError) as caught:
        Config().override(*settings)
    assert words in str(caught.value)


def test_a_source_without_maps_is_refused(site, config):
    class Patches:
        channels = (4,)

        def patches(self, rc, size):
            return [torch.zeros(len(rc), 4, size, size)]

    with pytest.raises(ValueError, match=r"Patches has no tile\(y0, x0, h, w\)"):
        train(site.prepared, Patches(), config, seed=0)


def test_a_stride_is_for_patches(site, config):
    network, _ = train(site.prepared, None, config, seed=0)
    with pytest.raises(UserError, match="--stride is for patch networks"):
        list(predict(network, None, site.prepared, config, stride=2))
