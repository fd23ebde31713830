"""Normalisation, windows, patches and stored states."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from bdgf_fast.data import PreparedScene, SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.data import normalise as normalise_module
from bdgf_fast.data import prepared as prepared_module
from bdgf_fast.data.prepared import mirror
from bdgf_fast.errors import DataWarning, SceneError, StateError

H, W = 23, 31


def make_scene(shape=(H, W), seed=0, **extra):
    rng = np.random.default_rng(seed)
    height, width = shape
    labels = (np.arange(width)[None] // 2 + np.arange(height)[:, None]) % 3 + 1
    arrays = {
        "hsi": rng.normal(100, 20, (6, height, width)).astype(np.float32),
        "sar": rng.normal(-10, 3, (2, height, width)).astype(np.float32),
    }
    arrays.update(extra)
    return scene_from_arrays("s", arrays, labels, split=SplitSpec(block=5, train_fraction=0.4, per_class=9))


def by_hand(scene, split):
    """Normalised scene (C, H, W), band by band in float64, from the documentation's words."""
    out = []
    for modality in scene.modalities:
        for band in modality.read(0, scene.height, 0, scene.width).astype(np.float64):
            low, high = np.percentile(band[split.train_region & scene.valid()], [1, 99])
            out.append(np.nan_to_num(np.clip(2 * (band - low) / (high - low) - 1, -1.5, 1.5)))
    return np.stack(out)


@pytest.fixture
def ready():
    scene = make_scene()
    split = make_split(scene, patch=3)
    return scene, split, prepare(scene, split)


def test_scaling_uses_the_training_side_only(ready):
    scene, split, prepared = ready
    assert prepared.groups == (6, 2) and prepared.channels == 8 and prepared.modality_names == ("hsi", "sar")
    whole = prepared.window(0, 0, H, W).numpy()
    np.testing.assert_allclose(whole, by_hand(scene, split), atol=2e-5)
    assert whole.min() >= -1.5 and whole.max() <= 1.5
    other = make_scene()
    other.modalities[0].parts[0][0]._array[:, ~split.train_region] += 50
    changed = prepare(other, split)
    assert changed.state() == prepared.state(), "pixels outside the training region have no say"


def padded(prepared, pad):
    whole = prepared.window(0, 0, prepared.height, prepared.width).numpy()
    return np.pad(whole, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")


@pytest.mark.parametrize("cache", [1 << 29, 3000])
@pytest.mark.parametrize("shape", [(H, W), (1, 9), (9, 1), (1, 1), (2, 5)])
def test_windows_are_slices_of_the_padded_scene(monkeypatch, shape, cache):
    """Any overhang, scenes of one row, and the tiled path with tiles far smaller than the scene."""
    monkeypatch.setattr(prepared_module, "TILE", 8)
    rng = np.random.default_rng(1)
    scene = scene_from_arrays("s", {"x": rng.normal(size=(40, *shape)).astype(np.float32)})
    reference = PreparedScene(scene, [identity(40)])
    assert reference.in_memory
    prepared = PreparedScene(scene, [identity(40)], cache_bytes=cache)
    assert prepared.in_memory == (cache > 3000 or shape[0] * shape[1] * 160 <= 3000)
    pad = 70
    big = padded(reference, pad)
    windows = [(0, 0, *shape), (-3, -2, 7, 9), (-70, -70, 140 + shape[0], 140 + shape[1]), (shape[0] - 1, 0, 5, 5)]
    windows += [(shape[0] + 3, shape[1] + 4, 6, 7), (-20, -30, 4, 3), (0, 0, 0, 4)]
    for y0, x0, h, w in windows:
        got = prepared.window(y0, x0, h, w)
        assert got.dtype == torch.float32 and got.is_contiguous()
        assert np.array_equal(got.numpy(), big[:, pad + y0 : pad + y0 + h, pad + x0 : pad + x0 + w])
    for size in (1, 2, 5, 8, 11, 30):
        rc = np.stack([rng.integers(0, shape[0], 37), rng.integers(0, shape[1], 37)], 1)
        got = prepared.patches(torch.from_numpy(rc), size)
        assert got.shape == (37, 40, size, size) and got.is_contiguous()
        for patch, (r, c) in zip(got.numpy(), rc + pad - size // 2, strict=True):
            assert np.array_equal(patch, big[:, r : r + size, c : c + size])


def identity(bands):
    """Normaliser that changes nothing within [-1, 1]."""
    ones = np.ones(bands)
    names = [f"band {i}" for i in range(1, bands + 1)]
    return normalise_module.Normaliser("x", names, list(range(bands)), normalise_module.Scaling(-ones, ones))


def test_tiles_held_stay_within_the_budget(monkeypatch, ready):
    monkeypatch.setattr(prepared_module, "TILE", 4)
    scene, split, whole = ready
    budget = 3 * 4 * 4 * 8 * 4
    tiled = prepare(scene, split, cache_bytes=budget)
    rc = torch.cartesian_prod(torch.arange(H), torch.arange(W))
    assert torch.equal(tiled.patches(rc, 5), whole.patches(rc, 5))
    assert sum(t.nbytes for t in tiled._tiles.values()) <= budget


def test_many_threads_read_alike(monkeypatch, ready):
    monkeypatch.setattr(prepared_module, "TILE", 4)
    scene, split, whole = ready
    tiled = prepare(scene, split, cache_bytes=2000)
    rc = torch.cartesian_prod(torch.arange(H), torch.arange(W))
    expected, wrong = whole.patches(rc, 5), []

    def work(seed):
        order = torch.randperm(len(rc), generator=torch.Generator().manual_seed(seed))
        if not torch.equal(tiled.patches(rc[order], 5), expected[order]):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_empty_and_wrong_requests(ready):
    prepared = ready[2]
    assert prepared.patches(torch.empty(0, 2, dtype=torch.int64), 5).shape == (0, 8, 5, 5)
    with pytest.raises(ValueError, match=r"rc has shape \(3,\); \(n, 2\)"):
        prepared.patches(torch.zeros(3, dtype=torch.int64), 5)
    with pytest.raises(ValueError, match="outside the 23 x 31 scene"):
        prepared.patches(torch.tensor([[0, 31]]), 5)
    with pytest.raises(ValueError, match="outside the 23 x 31 scene"):
        prepared.patches(torch.tensor([[-1, 3]]), 5)
    with pytest.raises(ValueError, match="size is 0"):
        prepared.patches(torch.tensor([[0, 0]]), 0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_mirror_is_numpys_reflect(size):
    folded = np.pad(np.arange(size), 25, mode="reflect")
    assert np.array_equal(mirror(torch.arange(-25, size + 25), size).numpy(), folded)


def test_missing_values_read_as_zero_and_stay_out_of_the_statistics():
    scene = make_scene()
    clean_split = make_split(scene, patch=3)
    holed = make_scene()
    holed.modalities[0].parts[0][0]._array[2, 4:8, 4:8] = np.nan
    with pytest.warns(DataWarning, match="16 of 713 pixels"):
        prepared = prepare(holed, clean_split)
    np.testing.assert_allclose(prepared.window(0, 0, H, W).numpy(), by_hand(holed, clean_split), atol=2e-5)
    assert (prepared.window(4, 4, 4, 4)[2] == 0).all() and (prepared.window(4, 4, 4, 4)[3] != 0).any()
    assert not prepared.valid[4:8, 4:8].any() and int(prepared.valid.sum()) == H * W - 16
    assert np.array_equal(prepared.valid.numpy(), prepared.select(["sar"]).valid.numpy())


def test_dead_bands_are_dropped_and_named():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(4, H, W)).astype(np.float32)
    cube[1] = 7
    scene = make_scene(swir=cube)
    split = make_split(scene, patch=3)
    cube[3][split.train_region] = 1.0  # alive, but not where it may be looked at
    with pytest.warns(DataWarning, match=r"'swir' is used without band 2, band 4: constant on the training side\."):
        prepared = prepare(scene, split)
    assert prepared.groups == (6, 2, 2)
    np.testing.assert_allclose(prepared.window(0, 0, H, W)[8:].numpy(), by_hand_bands(cube[[0, 2]], split), atol=2e-5)
    again = PreparedScene.from_state(scene, None, json.loads(json.dumps(prepared.state())))
    assert torch.equal(again.window(0, 0, H, W), prepared.window(0, 0, H, W))


def by_hand_bands(bands, split):
    low, high = np.percentile(bands[:, split.train_region].astype(float), [1, 99], axis=1)
    return np.clip(2 * (bands - low[:, None, None]) / (high - low)[:, None, None] - 1, -1.5, 1.5)


def test_rare_values_keep_a_band_alive():
    spiky = np.zeros((H, W), np.float32)
    scene = make_scene(mask=spiky)
    split = make_split(scene, patch=3)
    spiky[tuple(split.train[0])] = 4
    prepared = prepare(scene, split)
    assert prepared.groups == (6, 2, 1)
    assert prepared.window(0, 0, H, W)[8].unique().tolist() == [-1.0, 1.0]


def test_modality_without_a_living_band():
    scene = make_scene(flat=np.full((H, W), 3.0, np.float32))
    with pytest.warns(DataWarning, match="modality 'flat' is left out: all of it is constant on the training side"):
        prepared = prepare(scene, make_split(scene, patch=3))
    assert prepared.modality_names == ("hsi", "sar") and prepared.groups == (6, 2)
    labels = np.arange(H * W).reshape(H, W) % 2 + 1
    alone = scene_from_arrays("f", {"flat": np.ones((1, H, W))}, labels, split=SplitSpec(block=5))
    with pytest.warns(DataWarning), pytest.raises(SceneError, match="every band is constant on the training side"):
        prepare(alone, make_split(alone, patch=3))


def test_band_without_values_takes_no_part():
    cube = np.random.default_rng(0).normal(size=(3, H, W)).astype(np.float32)
    cube[1] = np.nan
    scene = make_scene(swir=cube)
    with pytest.warns(DataWarning, match="modality 'swir' is used without band 2: no value there at all"):
        assert scene.valid().all()
    split = make_split(scene, patch=3)
    prepared = prepare(scene, split)
    assert prepared.groups == (6, 2, 2)
    np.testing.assert_allclose(prepared.window(0, 0, H, W)[8:].numpy(), by_hand_bands(cube[[0, 2]], split), atol=2e-5)
    cube[1] = 1 + cube[0]
    cube[2] = np.nan
    other = PreparedScene.from_state(make_scene(swir=cube), None, prepared.state())
    with pytest.warns(DataWarning), pytest.raises(SceneError, match="band 'band 3' of modality 'swir' holds no value here, but"):
        other.valid  # noqa: B018


def test_bands_in_another_order_are_taken_by_name(ready):
    scene, split, prepared = ready
    scene.modalities[0].bands = list("abcdef")
    prepared = prepare(scene, split)
    state = json.loads(json.dumps(prepared.state()))
    cube = scene.modalities[0].read(0, H, 0, W)
    order = [3, 0, 5, 1, 2, 4]
    shuffled = make_scene(hsi=cube[order])
    shuffled.modalities[0].bands = ["D", "a", "f", "b", "c", "e"]
    shuffled.modalities[0].rgb = (0, 1, 2)
    with pytest.warns(DataWarning, match="in another order than in the checkpoint and are taken by their names, a, b, c, d, e, f"):
        there = PreparedScene.from_state(shuffled, None, state)
    assert torch.equal(there.window(0, 0, H, W), prepared.window(0, 0, H, W))
    assert there.scene.modalities[0].rgb == (3, 0, 5), "colours follow their bands"
    shuffled.modalities[0].bands = ["d", "a", "f", "b", "c", "x"]
    with pytest.raises(StateError, match="band 1 of modality 'hsi' is called 'd' here, 'a' in the checkpoint; name"):
        PreparedScene.from_state(shuffled, None, state)


def test_scene_with_fewer_classes(ready):
    scene, _, prepared = ready
    arrays = {m.name: m.read(0, H, 0, W) for m in scene.modalities}
    codes = np.where(scene.labels == 0, 0, scene.labels + 1)  # class 1 is not there
    other = scene_from_arrays("o", arrays, codes)
    there = PreparedScene.from_state(other, None, prepared.state())
    expected = np.where(scene.labels == 0, -1, scene.labels)
    assert [c.code for c in there.classes] == [1, 2, 3] and np.array_equal(there.labels.numpy(), expected)


def test_sampling_of_large_scenes(monkeypatch, ready):
    scene, split, prepared = ready
    monkeypatch.setattr(normalise_module, "MAX_SAMPLE_VALUES", 300)
    monkeypatch.setattr("bdgf_fast.data.scene.STRIP_BYTES", 5000)
    few = prepare(scene, split)
    band = scene.modalities[0].read(0, H, 0, W)[:, split.train_region]
    step = -(-band.size // 300)
    low = np.percentile(band[:, ::step].astype(float), 1, axis=1)
    np.testing.assert_allclose(few.normalisers[0].scaling.low, low, rtol=1e-6)
    assert torch.allclose(prepared.window(0, 0, H, W), prepare(scene, split).window(0, 0, H, W), atol=1)


def test_pca():
    decomposition = pytest.importorskip("sklearn.decomposition")
    scene = make_scene()
    scene.modalities[0].pca = 3
    split = make_split(scene, patch=3)
    prepared = prepare(scene, split)
    assert prepared.groups == (3, 2)
    scaled = by_hand(make_scene(), split)[:6]
    inside = scaled[:, split.train_region].T
    scores = decomposition.PCA(3, svd_solver="full").fit(inside).transform(scaled.reshape(6, -1).T).T.reshape(3, H, W)
    expected = by_hand_bands(scores, split)
    np.testing.assert_allclose(prepared.window(0, 0, H, W)[:3].numpy(), expected, atol=2e-4)
    again = PreparedScene.from_state(scene, split, json.loads(json.dumps(prepared.state())))
    assert torch.equal(again.window(-1, -1, 30, 40), prepared.window(-1, -1, 30, 40))
    scene.modalities[0].pca = 7
    with pytest.raises(SceneError, match="pca = 7 for modality 'hsi', but only 6 components exist"):
        prepare(scene, split)


def test_state_restores_on_another_scene(ready):
    scene, split, prepared = ready
    state = json.loads(json.dumps(prepared.state()))
    other = make_scene((40, 12), seed=5)
    there = PreparedScene.from_state(other, None, state)
    assert (there.height, there.width, there.groups) == (40, 12, (6, 2))
    for modality, offset in zip(other.modalities, (0, 6), strict=True):
        own = prepared.normalisers[offset // 6].apply(modality.read(0, 40, 0, 12))
        assert np.array_equal(there.window(0, 0, 40, 12)[offset : offset + len(own)].numpy(), own)
    unlabelled = make_scene((40, 12), seed=5)
    unlabelled.labels, unlabelled.classes = np.full((40, 12), -1, np.int16), []
    assert [c.name for c in PreparedScene.from_state(unlabelled, None, state).classes] == [
        "class 1",
        "class 2",
        "class 3",
    ]


def test_select(ready):
    scene, split, prepared = ready
    sar = prepared.select(["sar"])
    assert sar.groups == (2,) and sar.modality_names == ("sar",)
    assert torch.equal(sar.window(-3, 2, 9, 9), prepared.window(-3, 2, 9, 9)[6:])
    swapped = prepared.select(["sar", "hsi"])
    assert torch.equal(swapped.window(0, 0, 5, 5), prepared.window(0, 0, 5, 5)[[6, 7, 0, 1, 2, 3, 4, 5]])
    again = PreparedScene.from_state(scene, None, sar.state())
    assert torch.equal(again.window(0, 0, H, W), sar.window(0, 0, H, W)), "further modalities are left aside"
    assert torch.equal(prepare(scene, split, modalities=["sar"]).window(0, 0, 9, 9), sar.window(0, 0, 9, 9))
    with pytest.raises(SceneError, match="no modality 'lidar'; it has hsi, sar"):
        prepared.select(["lidar"])
    with pytest.raises(SceneError, match="no modality 'lidar'"):
        prepare(scene, split, modalities=["lidar"])
    with pytest.raises(SceneError, match="choose at least one"):
        prepared.select([])


def test_state_of_another_kind_of_scene(ready):
    scene, _, prepared = ready
    state = prepared.state()
    rng = np.random.default_rng(0)
    few = make_scene(hsi=rng.normal(size=(4, H, W)))
    with pytest.raises(StateError, match="modality 'hsi' has 4 bands, the checkpoint 6"):
        PreparedScene.from_state(few, None, state)
    renamed = scene_from_arrays("t", {"optical": np.zeros((6, H, W)), "sar": np.zeros((2, H, W))})
    with pytest.raises(
        StateError, match="scene 't' does not fit .* of scene 's': it has no modality 'hsi', only optical"
    ):
        PreparedScene.from_state(renamed, None, state)
    other = make_scene()
    other.classes = [*other.classes[:2], replace(other.classes[2], code=9)]
    with pytest.raises(StateError, match="class codes 9 are not among the checkpoint's 1, 2, 3"):
        PreparedScene.from_state(other, None, state)
    with pytest.raises(StateError, match="has version 99, this program writes 1"):
        PreparedScene.from_state(scene, None, {**state, "version": 99})
    with pytest.raises(StateError, match="is damaged"):
        PreparedScene.from_state(scene, None, {k: v for k, v in state.items() if k != "modalities"})
    scene.modalities[0].bands = list("abcdef")
    with pytest.warns(DataWarning, match="band 1 of modality 'hsi' is called 'a' here, 'band 1' in the checkpoint"):
        PreparedScene.from_state(scene, None, state)


def test_arrays_of_different_size():
    with pytest.raises(SceneError, match=r"'b' is 4 x 6 pixels, 'a' is 4 x 5"):
        scene_from_arrays("s", {"a": np.zeros((4, 5)), "b": np.zeros((4, 6))})
    with pytest.raises(SceneError, match="no modality; give at least one array"):
        scene_from_arrays("s", {})
