"""Scenes prepared together: statistics over all, bands in one order, and refusals that name the scene."""

import numpy as np
import pytest

from bdgf_fast.data import PreparedScene, scene_from_arrays
from bdgf_fast.data.together import prepare_together, state_of
from bdgf_fast.errors import DataWarning, SceneError, StateError


def scene(name, seed, *, size=(20, 30), shift=0.0, bands=("red", "nir"), modalities=("optical", "radar")):
    rng = np.random.default_rng(seed)
    counts = {"optical": 2, "radar": 1}
    made = scene_from_arrays(name, {m: rng.normal(shift, 1, (counts[m], *size)).astype(np.float32) for m in modalities})
    if "optical" in modalities:
        made.modality("optical").bands = list(bands)
    return made


def values(*scenes, modality="optical"):
    return np.concatenate([s.modality(modality).read(0, s.height, 0, s.width).reshape(2, -1) for s in scenes], 1)


def test_one_value_means_one_thing_in_every_scene():
    a, b = scene("a", 0), scene("b", 1, size=(25, 10), shift=5.0)
    together = prepare_together([a, b])
    low, high = np.percentile(values(a, b), (1, 99), axis=1)
    for prepared, own in zip(together, (a, b), strict=True):
        np.testing.assert_allclose(prepared.normalisers[0].scaling.low, low)
        scaled = np.clip(2 * (values(own) - low[:, None]) / (high - low)[:, None] - 1, -1.5, 1.5)
        np.testing.assert_allclose(prepared.window(0, 0, own.height, own.width)[:2].reshape(2, -1), scaled, atol=1e-5)
        assert prepared.groups == (2, 1) and not prepared.classes and (prepared.labels == -1).all()


def test_another_scene_is_prepared_from_the_stored_state():
    a, b, c = scene("a", 0), scene("b", 1, shift=2.0), scene("c", 2)
    together = prepare_together([a, b])
    state = state_of(together)
    assert state["scene"] == "a, b" and state["classes"] == []
    again = prepare_together([c], state=state)[0]
    other = PreparedScene.from_state(c, None, state)
    expected = PreparedScene(c, together[0].normalisers).window(0, 0, 20, 30)
    assert (again.window(0, 0, 20, 30) == expected).all() and (other.window(0, 0, 20, 30) == expected).all()


def test_a_scene_may_lack_a_modality_and_turn_its_bands():
    a, b = scene("a", 0, modalities=("optical",)), scene("b", 1, bands=("nir", "red"))
    with pytest.warns(DataWarning, match="scene 'b': the bands of modality 'optical' are in another order than in scene 'a'"):
        first, second = prepare_together([a, b])
    assert first.absent == ("radar",) and second.absent == () and first.groups == second.groups == (2, 1)
    assert (first.window(0, 0, 20, 30)[2] == 0).all()
    red = b.modality("optical").read(0, 20, 0, 30)[1]
    scaling = second.normalisers[0].scaling
    expected = np.clip(2 * (red - scaling.low[0]) / (scaling.high[0] - scaling.low[0]) - 1, -1.5, 1.5)
    np.testing.assert_allclose(second.window(0, 0, 20, 30)[0], expected, atol=1e-5)
    np.testing.assert_allclose(scaling.low[0], np.percentile(np.concatenate([values(a)[0], red.ravel()]), 1))


def test_bands_in_windows_of_bounded_memory():
    scenes = [scene("a", 0, size=(600, 40)), scene("b", 1, size=(40, 600))]
    whole = prepare_together(scenes)
    tight = prepare_together(scenes, cache_bytes=2**16)
    for a, b in zip(whole, tight, strict=True):
        assert a.in_memory and not b.in_memory and b.cache_bytes == 2**15
        assert (a.window(3, 3, 30, 30) == b.window(3, 3, 30, 30)).all()


def other_pca(a, b):
    b.modality("optical").pca = 1


def no_value(a, b):
    b.modality("optical").parts[0][0]._array[1] = np.nan


def one_band(a, b):
    modality = b.modality("optical")
    modality.parts, modality.bands = [(modality.parts[0][0], [0])], ["red"]


def other_names(a, b):
    b.modality("optical").bands = ["nir", "blue"]


@pytest.mark.filterwarnings("ignore::bdgf_fast.errors.DataWarning")
@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (other_pca, SceneError, "scene 'b': pca of modality 'optical' is 1, in scene 'a' it is None"),
        (no_value, SceneError, "scene 'b': band 'nir' of modality 'optical' holds no value here, but it does in other scenes"),
        (one_band, StateError, "scene 'b' does not go with scene 'a': modality 'optical' has 1 band, scene 'a' 2"),
        (other_names, StateError, "band 1 of modality 'optical' is called 'nir' here, 'red' in scene 'a'; name the bands alike"),
    ],
)
def test_what_differs_is_said(change, error, said):
    a, b = scene("a", 0), scene("b", 1)
    change(a, b)
    with pytest.raises(error, match=said):
        prepare_together([a, b])


def test_other_units_are_said():
    a, b = scene("a", 0), scene("b", 1)
    for own, unit in ((a, "dB"), (b, "1")):
        own.modality("radar").parts[0][0].units = [unit]
    with pytest.warns(DataWarning, match="scene 'b': band 'band 1' of modality 'radar' is in '1', in scene 'a' it is in 'dB'"):
        prepare_together([a, b])


def test_nothing_varies():
    flat = [scene_from_arrays(name, {"x": np.ones((1, 9, 9), np.float32)}) for name in "ab"]
    with pytest.warns(DataWarning), pytest.raises(SceneError, match="every band is constant in all scenes"):
        prepare_together(flat)
