"""Splits, against an independent brute-force version of the rules."""

import math

import numpy as np
import pytest
import torch

from bdgf_fast.data import SplitSpec, load_scene, make_split, scene_from_arrays
from bdgf_fast.data.split import dilate
from bdgf_fast.errors import DataWarning, SplitError


def scene_of(labels, split=None, given=None, nodata=None, band=None):
    band = np.random.default_rng(0).normal(size=labels.shape) if band is None else band
    return scene_from_arrays("s", {"x": band}, labels, split=split, given=given, nodata=nodata)


def stripes(height, width, classes=3):
    return (np.arange(width)[None] // 2 + np.arange(height)[:, None] // 3) % classes + 1


def brute_force(labels, block, fraction, per_class, gap, seed, val=0.0):
    """Pixels as the documentation words it, pixel by pixel. Labels: 0 unlabelled, ascending codes."""
    height, width = labels.shape
    across = math.ceil(width / block)
    total = math.ceil(height / block) * across
    chosen = np.random.default_rng(seed).permutation(total)[: math.floor(fraction * total + 1e-9)].tolist()
    held = max(1, math.floor(val * len(chosen) + 1e-9)) if val else 0
    train_blocks, val_blocks = chosen[: len(chosen) - held], chosen[len(chosen) - held :]
    number = np.array([[(y // block) * across + x // block for x in range(width)] for y in range(height)])
    in_train, in_val = np.isin(number, train_blocks), np.isin(number, val_blocks)

    def far(y, x, mask):
        ys, xs = np.nonzero(mask)
        return len(ys) == 0 or int(np.maximum(abs(ys - y), abs(xs - x)).min()) > gap

    pixels = [(y, x) for y in range(height) for x in range(width) if labels[y, x]]
    rng = np.random.default_rng(seed + 1)
    train = []
    for code in sorted(set(labels.ravel()) - {0}):
        mine = [p for p in pixels if labels[p] == code and in_train[p]]
        train += [mine[i] for i in rng.permutation(len(mine))[:per_class]]
    return (
        train,
        [p for p in pixels if in_val[p] and far(*p, in_train)],
        [p for p in pixels if not in_train[p] and not in_val[p] and far(*p, in_train | in_val)],
        in_train,
    )


def as_pixels(tensor):
    return [tuple(p) for p in tensor.tolist()]


@pytest.mark.filterwarnings("ignore:.*below the patch radius")
@pytest.mark.parametrize("val", [0.0, 0.3])
@pytest.mark.parametrize(("height", "width", "block", "gap", "patch"), [(33, 41, 8, "patch", 5), (20, 50, 7, 2, 11)])
def test_blocks_match_brute_force(height, width, block, gap, patch, val):
    labels = stripes(height, width)
    labels[3:6, 4:30] = 0
    spec = SplitSpec(block=block, train_fraction=0.4, per_class=9, gap=gap, val_blocks=val)
    for seed in range(3):
        split = make_split(scene_of(labels, spec), patch=patch, seed=seed)
        train, held, test, region = brute_force(labels, block, 0.4, 9, patch // 2 if gap == "patch" else gap, seed, val)
        assert len(test) > 20 and (len(held) > 5) == bool(val), "the case must test something"
        assert as_pixels(split.train) == train
        assert as_pixels(split.val) == held
        assert as_pixels(split.test) == test
        assert np.array_equal(split.train_region, region)
        for side, pixels in (("train", train), ("val", held), ("test", test)):
            assert split.counts[side] == [sum(labels[p] == code for p in pixels) for code in (1, 2, 3)]
        assert split.train.dtype == split.test.dtype == torch.int64


# Achieved on the Sentinel tile with the rules of the documentation: training and test pixels per class.
TILE_TEST = {0: [1285, 6207, 7658, 5549, 2409], 1: [1456, 3192, 9318, 5040, 2328], 2: [1136, 5441, 9648, 5151, 992]}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_vector_on_the_real_tile(tile, write_toml, seed):
    scene = load_scene(write_toml(tile))
    split = make_split(scene, patch=11, seed=seed)
    assert split.counts["train"] == [100] * 5 and split.counts["val"] == [0] * 5
    assert split.counts["test"] == TILE_TEST[seed]
    assert split.train_region.sum() == 58 * 16 * 16
    # Independent: distances by a full comparison with the training blocks' corners.
    blocks = np.random.default_rng(seed).permutation(196)[:58]
    test = np.ones((224, 224), bool)
    for block in blocks.tolist():
        y, x = block // 14 * 16, block % 14 * 16
        test[max(0, y - 5) : y + 16 + 5, max(0, x - 5) : x + 16 + 5] = False
    test &= scene.labels >= 0
    assert np.array_equal(np.argwhere(test), split.test.numpy())
    rng = np.random.default_rng(seed + 1)
    inside = np.zeros((224, 224), bool)
    for block in blocks.tolist():
        inside[block // 14 * 16 :, block % 14 * 16 :][:16, :16] = True
    expected = [rng.permutation(np.flatnonzero(inside & (scene.labels == k)))[:100] for k in range(5)]
    assert np.array_equal(np.concatenate(expected), (split.train[:, 0] * 224 + split.train[:, 1]).numpy())


def test_fraction_is_not_lost_to_binary_rounding():
    spec = SplitSpec(block=1, train_fraction=0.29, per_class=None, gap=0)
    split = make_split(scene_of(stripes(10, 10), spec), patch=1)
    assert len(split.train) == 29, "0.29 * 100 is 28.999999999999996"


@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize("distance", [0, 1, 3, 4, 6, 50])
def test_dilate(distance, corner):
    mask = np.random.default_rng(1).random((17, 12)) < 0.02
    if corner:
        mask[:], mask[0, -1] = False, True
    ys, xs = np.nonzero(mask)
    yy, xx = np.mgrid[:17, :12]
    near = (np.maximum(abs(yy[..., None] - ys), abs(xx[..., None] - xs)) <= distance).any(-1)
    assert mask.any() and np.array_equal(dilate(mask, distance), near)
    assert not dilate(np.zeros((4, 4), bool), distance).any()


def test_invalid_pixels_take_no_part():
    labels = stripes(24, 24)
    band = np.random.default_rng(0).normal(size=labels.shape)
    band[::2] = np.nan
    spec = SplitSpec(block=6, train_fraction=0.4, per_class=None)
    with pytest.warns(DataWarning, match="288 of 576 pixels"):
        split = make_split(scene_of(labels, spec, band=band), patch=3)
    for side in (split.train, split.test):
        assert len(side) and (side[:, 0] % 2 == 1).all()


def test_given():
    labels = stripes(20, 30)
    given = {"train": np.zeros((20, 30), bool), "test": np.zeros((20, 30), bool), "val": np.zeros((20, 30), bool)}
    given["train"][:, :10], given["val"][:, 9:12], given["test"][:, 12:] = True, True, True
    split = make_split(scene_of(labels, given=given), patch=5)
    assert sorted(as_pixels(split.train)) == [tuple(p) for p in np.argwhere(given["train"])]
    assert (split.val[:, 1] >= 10).all() and len(split.val) == 40
    assert (split.test[:, 1] >= 12).all() and len(split.test) == 360
    assert np.array_equal(split.train_region, dilate(given["train"], 2))
    gapped = make_split(scene_of(labels, SplitSpec("given", per_class=None, gap="patch"), given), patch=5)
    assert int(gapped.test[:, 1].min()) == 14, "more than two pixels from validation column 11"
    few = make_split(scene_of(labels, SplitSpec("given", per_class=4), given), patch=5, seed=3)
    assert few.counts["train"] == [4, 4, 4]
    other = make_split(scene_of(labels, SplitSpec("given", per_class=4), given), patch=5, seed=4)
    assert not torch.equal(few.train, other.train)


def test_given_maps_that_overlap():
    labels = stripes(20, 30)
    given = {"train": np.zeros((20, 30), bool), "test": np.ones((20, 30), bool)}
    given["train"][:, :10] = True
    with pytest.warns(DataWarning, match="200 pixels stand in the train and in the test map"):
        split = make_split(scene_of(labels, given=given), patch=5)
    assert (split.test[:, 1] >= 10).all() and len(split.test) == 400
    assert any("40 of 400 test pixels lie within the patch radius" in note for note in split.notes)


def test_per_class_leaks_and_says_so():
    labels = stripes(20, 30)
    spec = SplitSpec("per_class", per_class=10)
    with pytest.warns(DataWarning, match="test pixels lie within the patch radius .* optimistic"):
        split = make_split(scene_of(labels, spec), patch=5, seed=1)
    assert split.counts["train"] == [10, 10, 10] and len(split.test) == 570
    assert not set(as_pixels(split.train)) & set(as_pixels(split.test))
    spec = SplitSpec("per_class", per_class=2, gap="patch")
    strict = make_split(scene_of(labels, spec), patch=5, seed=1)
    near = (strict.test[:, None] - strict.train[None]).abs().amax(-1).amin(-1)
    assert int(near.min()) == 3 and not strict.notes


def test_reported_counts_and_notes():
    labels = stripes(24, 24)
    labels[labels == 3] = 0
    labels[0, 0] = labels[23, 23] = 3
    spec = SplitSpec(block=12, train_fraction=0.5, per_class=50, gap=0)
    for seed in range(20):
        scene = scene_of(labels, spec)
        try:
            with pytest.warns(DataWarning, match="no test pixel of class class 3|gap 0 px is below"):
                split = make_split(scene, patch=3, seed=seed)
        except SplitError:
            continue
        assert split.counts["train"][2] in (1, 2)
        assert any(f"fewer than 50 training pixels: class 3 {split.counts['train'][2]}" in n for n in split.notes)
        break
    else:
        pytest.fail("no seed gave a split")


def test_class_without_training_pixels():
    labels = stripes(24, 24)
    labels[:12, :12] = 1
    labels[12:] = np.where(labels[12:] == 3, 1, labels[12:])
    spec = SplitSpec(block=12, train_fraction=0.5)
    with pytest.raises(
        SplitError, match=r"class 3 has no training pixel .*\(\d+ in the scene\); put the"
    ):
        for seed in range(20):
            make_split(scene_of(labels, spec), patch=3, seed=seed)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SplitSpec("random"), "kind is 'random'; it can be blocks, given, per_class"),
        (SplitSpec(block=0), "block is 0"),
        (SplitSpec(train_fraction=1.0), "train_fraction is 1.0"),
        (SplitSpec(val_blocks=1.0), "val_blocks is 1.0"),
        (SplitSpec(block=24), "make 1 block of 24, of which 0 would train"),
        (SplitSpec(block=12, train_fraction=0.25, val_blocks=0.5), "0 would train and 3 test"),
        (SplitSpec("per_class", per_class=None), "needs per_class"),
        (SplitSpec(per_class=0), "per_class is 0"),
        (SplitSpec("given", per_class=None), "needs a train and a test map"),
        (SplitSpec("per_class", val_blocks=0.2), "val_blocks goes with"),
        (SplitSpec(gap=-1), "gap is -1"),
        (SplitSpec(gap="far"), "gap is 'far'"),
    ],
)
def test_rules_that_make_no_sense(spec, message):
    with pytest.raises(SplitError, match=message):
        make_split(scene_of(stripes(24, 24), spec))


def test_patch_below_one():
    with pytest.raises(SplitError, match="patch is 0"):
        make_split(scene_of(stripes(24, 24)), patch=0)
