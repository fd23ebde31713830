"""Bands brought to common levels without labels."""

import json

import numpy as np
import pytest
import torch

from bdgf_fast.data import PreparedScene, SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.data.align import aligned, common_levels, levels, reference_levels
from bdgf_fast.data.joined import join_scenes
from bdgf_fast.data.together import prepare_together, state_of

SPEC = SplitSpec(kind="all", per_class=9)


def scene(name, values, dem=None):
    return scene_from_arrays(name, {"s2": values, "dem": values[:1] if dem is None else dem},
                             1 + np.arange(values[0].size).reshape(values[0].shape) % 2, split=SPEC)  # fmt: skip


@pytest.fixture
def values():
    return np.random.default_rng(5).gamma(3, 100, (3, 24, 32)).astype(np.float32)


def test_levels_are_means_and_deviations_that_wild_values_do_not_move(values):
    wild = values.copy()
    wild[1, 0, :3] = 1e6
    (centre, spread), (_, wild_spread) = levels(scene("a", values))["s2"], levels(scene("b", wild))["s2"]
    low, high = np.percentile(values, (1, 99), axis=(1, 2))
    drawn = np.clip(values.astype(float), low[:, None, None], high[:, None, None])
    np.testing.assert_allclose(centre, drawn.mean((1, 2)))
    np.testing.assert_allclose(spread, drawn.std((1, 2)))
    assert abs(wild_spread[1] / spread[1] - 1) < 0.05 and wild_spread[0] == spread[0]


def test_gain_and_offset_are_taken_back(values):
    first = scene("a", values)
    gain, offset = np.array([2, 0.5, 1])[:, None, None], np.array([5, -3, 100])[:, None, None]
    other = scene("b", (values * gain + offset).astype(np.float32), values[:1])
    moved = aligned(other, reference_levels(first))
    np.testing.assert_allclose(moved.modality("s2").read(0, 24, 0, 32), values, rtol=2e-5)
    np.testing.assert_allclose(moved.modality("s2").read(3, 5, 7, 9), values[:, 3:5, 7:9], rtol=2e-5)
    assert moved.modality("s2").parts[0][0].sources == other.modality("s2").parts[0][0].sources
    assert moved.modality("dem").parts is other.modality("dem").parts  # nothing to move there


def test_missing_values_and_bands_that_do_not_vary(values):
    other = values * 2 + 5
    other[0, 3, 4], other[2] = np.nan, 7
    with pytest.warns(UserWarning, match="1 of 768 pixels"):
        moved = aligned(scene("b", other, values[:1]), reference_levels(scene("a", values))).modality("s2").read(0, 24, 0, 32)
    assert np.isnan(moved[0, 3, 4]) and np.isnan(moved).sum() == 1
    np.testing.assert_allclose(moved[2], levels(scene("a", values))["s2"][0][2], rtol=1e-6)  # the mean, without a deviation


def test_a_model_keeps_its_levels_and_aligns_other_scenes(values):
    first, other = scene("a", values), scene("b", values * 2 + 5)
    split = make_split(first, seed=0)
    plain, prepared = prepare(first, split), prepare(first, split, align=True)
    assert torch.equal(prepared.window(0, 0, 24, 32), plain.window(0, 0, 24, 32))  # its own reference
    state = json.loads(json.dumps(prepared.state()))
    assert "levels" in state and "levels" not in plain.state()
    seen = PreparedScene.from_state(other, None, state)
    torch.testing.assert_close(seen.window(0, 0, 24, 32), plain.window(0, 0, 24, 32), rtol=0, atol=1e-4)
    unmoved = PreparedScene.from_state(other, None, plain.state())
    assert (unmoved.window(0, 0, 24, 32) - plain.window(0, 0, 24, 32)).abs().max() > 0.5
    assert seen.select(["dem"]).state()["levels"] == state["levels"]


def test_joined_scenes_are_aligned_one_by_one(values):
    parts = [scene("a", values), scene("b", values * 2 + 5)]
    joined = join_scenes(parts, "ab", split=SPEC)
    reference = reference_levels(joined)
    np.testing.assert_allclose(reference["s2"], np.mean([levels(part)["s2"] for part in parts], 0))
    split = make_split(joined, seed=0)
    prepared = prepare(joined, split, align=True)
    top = joined.tops[1]
    torch.testing.assert_close(prepared.window(0, 0, 24, 32), prepared.window(top, 0, 24, 32), rtol=0, atol=1e-4)
    again = PreparedScene.from_state(joined, split, prepared.state())
    assert torch.equal(again.window(0, 0, joined.height, 32), prepared.window(0, 0, joined.height, 32))


def test_scenes_of_one_pre_training_are_aligned(values):
    scenes = [scene("a", values), scene("b", values * 2 + 5)]
    first, second = prepare_together(scenes, align=True)
    torch.testing.assert_close(first.window(0, 0, 24, 32), second.window(0, 0, 24, 32), rtol=0, atol=1e-4)
    state = json.loads(json.dumps(state_of([first, second])))
    assert state["levels"] == first.levels == common_levels(scenes)
    again = prepare_together(scenes, state=state)
    assert torch.equal(again[1].window(0, 0, 24, 32), second.window(0, 0, 24, 32))
    plain = prepare_together(scenes)
    assert plain[0].levels is None and not torch.equal(plain[0].window(0, 0, 24, 32), plain[1].window(0, 0, 24, 32))
