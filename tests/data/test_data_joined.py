"""Scenes joined to one: their windows and labels are those of the parts, nothing lies between them, and what differs is named."""

import warnings

import numpy as np
import pytest
import torch

from bdgf_fast.data import SplitSpec, load_scene, make_split, prepare, scene_from_arrays, synthetic_scene, write_scene
from bdgf_fast.data.joined import STEP, join_scenes, legend, table_of
from bdgf_fast.errors import DataWarning, SceneError, SplitError, StateError

SPEC = SplitSpec(kind="all", per_class=5)


def scene(name, seed, shape, codes=(1, 2, 3), names=("water", "trees", "crops"), bands=("red", "nir"), **more):
    rng = np.random.default_rng(seed)
    made = scene_from_arrays(
        name, {"s2": rng.normal(size=(len(bands), *shape)).astype(np.float32), "dem": rng.normal(size=shape).astype(np.float32)},
        rng.choice(codes, shape), classes=dict(zip(codes, names, strict=True)), **more,
    )  # fmt: skip
    made.modality("s2").bands = list(bands)
    return made


@pytest.fixture
def parts():
    return [scene("a", 1, (20, 30)), scene("b", 2, (25, 18)), scene("c", 3, (10, 30))]


def test_windows_and_labels_are_those_of_the_parts(parts):
    joined = join_scenes(parts, "abc", gap=40, split=SPEC)
    assert joined.tops == [0, STEP, 3 * STEP]  # 20 + 40 and 25 + 40 rows, each up to the next multiple of 64
    assert (joined.height, joined.width) == (3 * STEP + 10, 30)
    everywhere = np.zeros((joined.height, joined.width), bool)
    for top, part in zip(joined.tops, parts, strict=True):
        rows, columns = slice(top, top + part.height), slice(0, part.width)
        everywhere[rows, columns] = True
        for modality in part.modalities:
            own = joined.modality(modality.name)
            np.testing.assert_array_equal(own.read(top, top + part.height, 0, part.width),
                                          modality.read(0, part.height, 0, part.width))  # fmt: skip
            np.testing.assert_array_equal(own.read(top + 3, top + 9, 5, 11), modality.read(3, 9, 5, 11))
        np.testing.assert_array_equal(joined.labels[rows, columns], part.labels)
    np.testing.assert_array_equal(joined.valid(), everywhere)
    assert (joined.labels[~everywhere] == -1).all()
    assert np.isnan(joined.modality("s2").read(0, joined.height, 0, 30)[:, ~everywhere]).all()
    np.testing.assert_array_equal(joined.modality("s2").parts[0][0].read([1], 60, 70, 10, 20)[0, 4:, :8],
                                  parts[1].modality("s2").read(0, 6, 10, 18)[1])  # fmt: skip


def test_the_gap_holds_two_scenes_apart_and_is_not_warned_of(parts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joined = join_scenes(parts, "abc", gap=40, split=SPEC)
        split = make_split(joined, seed=0)
        prepared = prepare(joined, split)
    assert min(b - a - p.height for a, b, p in zip(joined.tops, joined.tops[1:], parts, strict=False)) >= 40
    window = prepared.window(0, 0, 20 + 40, 30)  # all that a pixel of the first scene sees within the gap
    assert not window[:, 20:].any() and window[:, :20].any()
    assert torch.equal(prepared.valid, torch.from_numpy(joined.valid()))


def test_missing_values_of_a_part_stay_missing(parts):
    values = parts[1].modality("s2").read(0, 25, 0, 18)
    values[0, 4, 7] = np.nan
    holed = scene_from_arrays("b", {"s2": values, "dem": parts[1].modality("dem").read(0, 25, 0, 18)[0]},
                              parts[1].labels + 1, classes={1: "water", 2: "trees", 3: "crops"})  # fmt: skip
    holed.modality("s2").bands = ["red", "nir"]
    with pytest.warns(DataWarning, match="1 of 450 pixels"):
        joined = join_scenes([parts[0], holed], "ab")
    assert not joined.valid()[joined.tops[1] + 4, 7] and joined.valid().sum() == 20 * 30 + 25 * 18 - 1


def test_normalisation_knows_the_parts_alone(parts):
    joined = join_scenes(parts[:2], "ab", split=SPEC)
    prepared = prepare(joined, make_split(joined, seed=0))
    values = np.concatenate([part.modality("s2").read(0, part.height, 0, part.width)[0].ravel() for part in parts[:2]])
    np.testing.assert_allclose(prepared.normalisers[0].scaling.low[0], np.percentile(values, 1), rtol=1e-6)


def test_modalities_and_bands_take_the_order_of_the_first(parts):
    other = scene("b", 2, (25, 18), bands=("nir", "red"))
    other.modalities.reverse()
    with pytest.warns(DataWarning, match="are in another order"):
        joined = join_scenes([parts[0], other], "ab")
    top = joined.tops[1]
    assert [m.name for m in joined.modalities] == ["s2", "dem"] and joined.modality("s2").bands == ["red", "nir"]
    np.testing.assert_array_equal(joined.modality("s2").read(top, top + 25, 0, 18), other.modality("s2").read(0, 25, 0, 18)[::-1])


def test_training_pixels_of_every_scene_and_no_test_pixel(parts):
    joined = join_scenes(parts[:2], "ab", split=SPEC)
    split = make_split(joined, seed=4)
    assert split.counts == {"train": [10, 10, 10], "val": [0, 0, 0], "test": [0, 0, 0]} and not split.notes
    rows, columns = split.train.numpy().T
    labels = joined.labels[rows, columns]
    for below in (rows < joined.tops[1], rows >= joined.tops[1]):
        assert np.bincount(labels[below]).tolist() == [5, 5, 5]
    assert split.train_region.all()
    alone = make_split(join_scenes(parts[:1], "a", split=SPEC), seed=4)  # the first scene's pixels of each class come first
    single = make_split(parts[0], seed=4, spec=SPEC)
    assert torch.equal(alone.train, single.train)


def test_a_class_may_be_missing_in_a_scene(parts):
    fewer = scene("b", 2, (25, 18), codes=(1, 3), names=("water", "crops"))
    joined = join_scenes([fewer, parts[0]], "ba", split=SPEC)
    assert [info.code for info in joined.classes] == [1, 2, 3]
    assert make_split(joined, seed=0).counts["train"] == [10, 5, 10]
    top = joined.tops[1]
    np.testing.assert_array_equal(joined.labels[top : top + 20, :30], parts[0].labels)
    np.testing.assert_array_equal(joined.labels[:25, :18] == 2, fewer.labels == 1)


def test_a_code_without_a_name_goes_with_any(parts):
    nameless = scene("b", 2, (25, 18), names=("class 1", "class 2", "class 3"))
    assert [info.name for info in legend([nameless, parts[0]])] == ["water", "trees", "crops"]


@pytest.mark.parametrize(("other", "error", "said"), [
    ({"names": ("water", "forest", "crops")}, SceneError, r"scene 'b': code 2 is 'forest' here, 'trees' in scene 'a'"),
    ({"codes": (1, 2, 7)}, SceneError, r"scene 'b': class 'crops' has code 7 here, 3 in scene 'a'"),
    ({"bands": ("red", "nir", "swir")}, StateError, r"scene 'b' does not go with scene 'a': modality 's2' has 3 bands"),
])  # fmt: skip
def test_what_differs_is_named(parts, other, error, said):
    with pytest.raises(error, match=said):
        join_scenes([parts[0], scene("b", 2, (25, 18), **other)], "ab")


def test_other_modalities_and_no_labels(parts):
    bare = scene("b", 2, (25, 18))
    bare.modalities.pop()
    with pytest.raises(SceneError, match="scene 'b' has the modalities s2, scene 'a' has s2, dem"):
        join_scenes([parts[0], bare], "ab")
    unlabelled = scene("b", 2, (25, 18))
    unlabelled.classes = []
    with pytest.raises(SceneError, match="scene 'b' has no labels: a scene that trains"):
        join_scenes([parts[0], unlabelled], "ab")


def test_a_file_that_joins(tmp_path):
    pytest.importorskip("rasterio")
    for seed, name in enumerate(("west", "east")):
        write_scene(synthetic_scene(seed, (64, 64), bands=3), tmp_path / name)
    path = tmp_path / "both.toml"
    path.write_text(table_of(["west", "east/scene.toml"], "both", 7, 100))
    joined = load_scene(path)
    assert joined.name == "both" and joined.split_spec == SplitSpec(kind="all", per_class=7) and joined.tops == [0, 3 * STEP]
    files = {name.rsplit("/", 2)[-2:][0] + "/" + name.rsplit("/", 1)[-1] for name in joined.modality("sar").parts[0][0].sources}
    assert files == {"west/scene.toml", "west/sar.tif", "east/scene.toml", "east/sar.tif"}

    for text, said in (
        ("join = []", "join is a list of scenes"),
        ('join = ["west", "west"]', "names .*west twice"),
        ('join = ["both.toml"]', "both.toml joins scenes itself"),
        ('join = ["west"]\ngap = -1', "gap is -1"),
        ('join = ["west"]\nmodality = 3', "unknown key 'modality'"),
        ('join = ["nowhere.toml"]', "nowhere.toml does not exist"),
    ):
        bad = tmp_path / "bad.toml"
        bad.write_text(text)
        with pytest.raises(SceneError, match=said):
            load_scene(bad)


def test_no_class_without_a_training_pixel(parts):
    parts[0].labels[:] = np.where(parts[0].labels == 1, -1, parts[0].labels)
    with pytest.raises(SplitError, match="'trees'"):
        make_split(join_scenes(parts[:1], "a", split=SPEC), seed=0)
